"""The figures of score curation: pure functions from counts to plotly figures."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from mixup.report.figures import PAPER, POOL, RELEASE, styled


def calibration_curve(
    predicted: Sequence[float],
    observed: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    rows: Sequence[int],
) -> go.Figure:
    """Frequencies with their intervals over predictions, beside the line on which both are equal.

    Args:
        predicted: mean prediction of each bin that has rows, in [0, 1].
        observed: share of its rows for which the predicted came true.
        low: lower ends of the intervals of these shares.
        high: upper ends.
        rows: rows of each bin.
    """
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        line={"color": POOL, "width": 1.5, "dash": "dot"},
        hoverinfo="skip",
        showlegend=False,
    )
    figure.add_scatter(
        x=list(predicted),
        y=list(observed),
        mode="lines+markers",
        line={"color": RELEASE, "width": 2},
        marker={"color": RELEASE, "size": 7},
        error_y={
            "type": "data",
            "array": [top - share for top, share in zip(high, observed, strict=True)],
            "arrayminus": [share - base for base, share in zip(low, observed, strict=True)],
            "color": RELEASE,
            "thickness": 1.5,
            "width": 3,
        },
        customdata=list(rows),
        hovertemplate="predicted %{x:.2f}<br>observed %{y:.2f}<br>%{customdata:,} rows"
        "<extra></extra>",
        showlegend=False,
    )
    figure = styled(figure, x_title="predicted", unit=True)
    return figure.update_yaxes(range=[0, 1], dtick=0.2, title_text="observed")


def curated_ratings(counts: Sequence[Sequence[int]]) -> go.Figure:
    """A heat map of rows by observed (downwards) and curated rating, colored by share of a row."""
    names = [str(rating) for rating in range(len(counts))]
    totals = [max(1, sum(row)) for row in counts]
    heat = go.Heatmap(
        x=names,
        y=names,
        z=[[count / total for count in row] for row, total in zip(counts, totals, strict=True)],
        text=[[f"{count:,}" if count else "" for count in row] for row in counts],
        zmin=0,
        zmax=1,
        showscale=False,
    )
    heat.colorscale = [[0, PAPER], [1, RELEASE]]
    heat.texttemplate = "%{text}"
    heat.hovertemplate = "observed %{y}<br>curated %{x}<br>%{z:.1%} of the rating<extra></extra>"
    figure = styled(go.Figure(heat), x_title="curated rating")
    figure.update_xaxes(type="category", dtick=1)
    figure.update_yaxes(autorange="reversed", type="category", dtick=1)
    return figure.update_yaxes(title_text="observed rating")


def cell_sizes(sizes: Sequence[int], cap: int) -> go.Figure:
    """Bars of cells by their rows, in equal bins up to the cap."""
    width = cap / len(sizes)
    bars = go.Bar(
        x=[width * (at + 0.5) for at in range(len(sizes))],
        y=list(sizes),
        width=0.88 * width,
        marker_color=RELEASE,
        customdata=[size_range(at, len(sizes), cap) for at in range(len(sizes))],
        hovertemplate="%{customdata} rows<br>%{y:,} cells<extra></extra>",
    )
    figure = styled(go.Figure(bars), x_title="rows of a cell")
    if max(sizes) <= _FEW:
        figure.update_yaxes(dtick=1)
    return figure.update_xaxes(range=[0, cap], separatethousands=True)


_FEW = 5  # cells of one bin, up to which the axis would get ticks between whole numbers


def size_range(at: int, bins: int, cap: int) -> str:
    """The whole numbers of rows of a bin, such as "201 to 400"."""
    low, high = cap * at // bins + 1, cap * (at + 1) // bins
    return f"{low:,} to {high:,}" if high > low else f"{low:,}"
