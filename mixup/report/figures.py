"""The figures of the report: pure functions from counts to plotly figures.

Colors are those of the light page; the page swaps them for ``DARK`` when the reader prefers dark.
No text from the data enters a figure, because plotly reads markup in its labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from mixup.report.timeline import ENGINE, SpanRow, kind_of

INK, MUTED, GRID, PAPER = "#1c2430", "#667080", "#e7e9ed", "#ffffff"
POOL, RELEASE = "#b3bac6", "#1f6f6b"
LIGHTER = "#5fa8a1"
ALERT = "#b4472f"
REWARD = "#c98a2b"

DARK: Mapping[str, str] = {
    INK: "#e8eaee",
    MUTED: "#99a2b0",
    GRID: "#2a313c",
    PAPER: "#171b22",
    POOL: "#566070",
    RELEASE: "#58b7ae",
    LIGHTER: "#2f7f79",
    ALERT: "#e58a72",
    REWARD: "#dfae5e",
}

_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


def rating_counts(counts: Sequence[int]) -> go.Figure:
    """Bars of rows by observed rating, 0 up to the last count."""
    bars = go.Bar(x=list(range(len(counts))), y=list(counts), marker_color=RELEASE)
    bars.hovertemplate = "rating %{x}<br>%{y:,} rows<extra></extra>"
    return styled(go.Figure(bars), x_title="observed rating", dtick=1)


def rating_noise(classes: Sequence[int], matrix: Sequence[Sequence[float]]) -> go.Figure:
    """A heat map of P(observed rating | true class), true classes downwards."""
    names = [str(name) for name in classes]
    heat = go.Heatmap(
        x=names, y=names, z=[list(row) for row in matrix], zmin=0, zmax=1, showscale=False
    )
    heat.colorscale = [[0, PAPER], [1, RELEASE]]
    heat.texttemplate = "%{z:.2f}"
    heat.hovertemplate = "true class %{y}<br>observed %{x}<br>%{z:.3f}<extra></extra>"
    figure = styled(go.Figure(heat), x_title="observed rating")
    figure.update_xaxes(type="category")  # as numbers, classes that are absent would leave gaps
    return figure.update_yaxes(
        autorange="reversed", title_text="true class", type="category", dtick=1
    )


def precision_curve(
    cuts: Sequence[float], precision: Sequence[float], share: Sequence[float], *, mark: float
) -> go.Figure:
    """Expected precision, and the share of rows that are kept, over the cut of quality.

    Args:
        cuts: rising cuts in [0, 1].
        precision: expected share of truly high rows among those kept.
        share: share of all rows that is kept.
        mark: the cut in use.
    """
    figure = go.Figure()
    for name, values, color in (("precision", precision, RELEASE), ("kept", share, POOL)):
        figure.add_scatter(
            x=list(cuts),
            y=[100 * value for value in values],
            name=name,
            mode="lines",
            line={"color": color, "width": 2, "shape": "vh"},
            hovertemplate=f"{name}, from %{{x:.3f}}<br>%{{y:.1f}} %<extra></extra>",
        )
    figure.add_vline(x=mark, line={"color": ALERT, "width": 1.5, "dash": "dot"})
    figure.update_layout(
        showlegend=True,
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
    )
    return styled(figure, x_title="quality from which rows are kept", unit=True, y_suffix=" %")


def shift(pool: Sequence[int], release: Sequence[int], x_title: str) -> go.Figure:
    """A value in [0, 1] over the pool beside the release, as shares of each in percent.

    Shares, because a release is a few percent of its pool. A side without rows has no bars.
    """
    figure = go.Figure()
    for name, bins, color in (("pool", pool, POOL), ("release", release, RELEASE)):
        total = sum(bins)
        share = [100 * count / total for count in bins] if total else []
        figure.add_bar(
            x=_centers(len(bins)) if total else [],
            y=share,
            name=name,
            marker_color=color,
            opacity=0.85,
            customdata=_ranges(len(bins)),
            hovertemplate=f"{name}, %{{customdata}}<br>%{{y:.1f}} % of rows<extra></extra>",
        )
    figure.update_layout(
        showlegend=True,
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        barmode="overlay",
    )
    return styled(figure, x_title=x_title, unit=True, y_suffix=" %")


def size_counts(sizes: Mapping[int, int]) -> go.Figure:
    """Bars of clusters by their number of members."""
    members = sorted(sizes)
    bars = go.Bar(x=members, y=[sizes[size] for size in members], marker_color=RELEASE)
    bars.hovertemplate = "%{x} members<br>%{y:,} clusters<extra></extra>"
    dtick = 1 if not members or members[-1] - members[0] <= 12 else None
    return styled(go.Figure(bars), x_title="members", dtick=dtick)


def unit_histogram(
    bins: Sequence[int], *, unit: str, x_title: str = "", mark: float | None = None
) -> go.Figure:
    """Bars of counts over equal bins of [0, 1].

    Args:
        bins: count of each bin.
        unit: what is counted, in the plural, such as "samples".
        x_title: title of the axis.
        mark: a value in [0, 1] to mark by a line, such as a threshold.
    """
    bars = go.Bar(x=_centers(len(bins)), y=list(bins), marker_color=RELEASE)
    bars.customdata = _ranges(len(bins))
    bars.hovertemplate = f"%{{customdata}}<br>%{{y:,}} {unit}<extra></extra>"
    figure = go.Figure(bars)
    if mark is not None:
        figure.add_vline(x=mark, line={"color": ALERT, "width": 1.5, "dash": "dot"})
    return styled(figure, x_title=x_title, unit=True)


def work_lanes(lanes: Mapping[str, Sequence[SpanRow]]) -> go.Figure:
    """One lane of bars for each actor, over seconds; the first lane is on top.

    Dragging over the time axis zooms in. Names of lanes keep letters, digits and ``:.-_`` only.
    """
    figure = go.Figure()
    for place, (name, spans) in enumerate(lanes.items()):
        plain = _plain(name)
        figure.add_bar(
            orientation="h",
            base=[span.start for span in spans],
            x=[round(span.end - span.start, 3) for span in spans],
            y=[place] * len(spans),
            width=0.62,
            name=plain,
            marker_color=RELEASE if kind_of(name) == ENGINE else REWARD,
            marker_line_width=0,
            hovertemplate=f"{plain}<br>from %{{base:.1f}} s, for %{{x:.2f}} s<extra></extra>",
        )
    figure.update_layout(barmode="overlay", showlegend=False)
    figure = styled(figure, x_title="seconds from the first work")
    figure.update_layout(height=70 + 30 * max(1, len(lanes)), dragmode="zoom")
    figure.update_xaxes(fixedrange=False, rangemode="tozero", showgrid=True, gridcolor=GRID)
    figure.update_yaxes(
        range=[len(lanes) - 0.5, -0.5],
        tickvals=list(range(len(lanes))),
        ticktext=[_plain(name) for name in lanes],
        showgrid=False,
    )
    return figure


def _plain(name: str) -> str:
    return re.sub(r"[^\w:.-]", "_", name, flags=re.ASCII)[:24]


def styled(
    figure: go.Figure,
    *,
    x_title: str,
    unit: bool = False,
    dtick: float | None = None,
    y_suffix: str = "",
) -> go.Figure:
    """The figure in the style of the page.

    Args:
        figure: with its traces.
        x_title: title of the axis.
        unit: whether the values are in [0, 1].
        dtick: the step of the ticks; None leaves it to plotly.
        y_suffix: what stands behind the numbers of the other axis.
    """
    axis = {"color": MUTED, "fixedrange": True, "zeroline": False, "title_standoff": 8}
    figure.update_layout(
        template="none",
        height=260,
        bargap=0.12,
        font={"family": _FONT, "size": 12, "color": MUTED},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hoverlabel={"bgcolor": PAPER, "bordercolor": GRID, "font_color": INK},
    )
    top = 36 if figure.layout["showlegend"] else 12
    figure.update_layout(margin={"l": 8, "r": 8, "t": top, "b": 44 if x_title else 24})
    figure.update_xaxes(**axis, title_text=x_title, showgrid=False, linecolor=GRID, dtick=dtick)
    figure.update_yaxes(
        **axis,
        automargin=True,
        gridcolor=GRID,
        nticks=5,
        rangemode="tozero",
        separatethousands=True,
        ticksuffix=y_suffix,
    )
    if unit:
        figure.update_xaxes(range=[0, 1], dtick=0.2)
    return figure


def _centers(count: int) -> list[float]:
    return [(at + 0.5) / count for at in range(count)]


def _ranges(count: int) -> list[str]:
    return [f"{at / count:.2f} to {(at + 1) / count:.2f}" for at in range(count)]
