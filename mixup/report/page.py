"""The report page: one self-contained HTML string, readable without a network."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from mixup.ledger import FATE_LEFT_OUT
from mixup.report import figures
from mixup.report.digest import Digest, Share
from mixup.report.wording import (
    FATES,
    duration,
    fate_label,
    number,
    percent,
    score,
    sentence,
    shortfall,
    split_text,
    visible,
    words,
)

REWARD_ORDER = ("format", "alignment", "quality", "coverage", "combined")


@dataclass(frozen=True)
class Bar:
    """A labeled count with its share of the whole (None if the whole is 0) and a style name."""

    label: str
    count: int
    share: float | None
    kind: str


@dataclass(frozen=True)
class Chart:
    """A figure with its place in the page, its caption, and the same numbers as a table."""

    id: str
    title: str
    caption: str
    figure: go.Figure
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def render_page(digest: Digest) -> str:
    """The report of a release as one HTML document.

    Scripts, styles and figures are inline and the content policy forbids every request. All text
    of the data is escaped, and control characters in it are shown by their code points.
    """
    charts = {chart.id: chart for chart in _charts(digest)}
    drawn = {name: json.loads(str(chart.figure.to_json())) for name, chart in charts.items()}
    html = _template().render(
        digest=digest,
        fates=_fate_bars(digest.fates),
        fates_total=sum(digest.fates.values()),
        quarantine=_reasons(digest.quarantine),
        rejects=_reasons(digest.rejects),
        licences=_bars(digest.release_licences, "plain"),
        shortfall=shortfall(digest.counts),
        charts=charts,
        reward_charts=[charts[f"reward-{at}"] for at in range(len(digest.rewards))],
        reward_order=_reward_order,
        figures=drawn,
        palette=dict(figures.DARK),
        plotly_js=_plotly_js(),
    )
    return html.lstrip()


def interval(share: Share) -> tuple[float, float] | None:
    """The 95 % Wilson interval of a share, in [0, 1]; None for no trials."""
    if share.total == 0:
        return None
    z, n, p = 1.959964, share.total, share.ok / share.total
    center, scale = p + z * z / (2 * n), 1 + z * z / n
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (center - half) / scale), min(1.0, (center + half) / scale)


def _share(share: Share) -> float | None:
    return _part(share.ok, share.total)


def _reasons(counts: Mapping[str, int]) -> list[Bar]:
    labeled = {sentence(words(name)): count for name, count in counts.items()}
    return _bars(labeled, "dropped")


def _bars(counts: Mapping[str, int], kind: str) -> list[Bar]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    total = sum(counts.values())
    return [Bar(visible(name), count, _part(count, total), kind) for name, count in ordered]


def _fate_bars(fates: Mapping[str, int]) -> list[Bar]:
    order, total = list(FATES), sum(fates.values())

    def place(name: str) -> tuple[int, int, str]:
        kind = name.partition(":")[0]
        return (order.index(kind) if kind in order else len(order), -fates[name], name)

    return [
        Bar(fate_label(name), fates[name], _part(fates[name], total), _fate_kind(name))
        for name in sorted(fates, key=place)
    ]


def _fate_kind(name: str) -> str:
    kind = name.partition(":")[0]
    return kind if kind in FATES else FATE_LEFT_OUT


def _part(count: int, total: int) -> float | None:
    return count / total if total else None


def _reward_order(names: Iterable[str]) -> list[str]:
    known = {name: at for at, name in enumerate(REWARD_ORDER)}
    return sorted(names, key=lambda name: (known.get(name, -1), name))


def _charts(digest: Digest) -> Iterable[Chart]:
    yield Chart(
        "ratings",
        "Observed ratings",
        f"{sum(digest.ratings):,} rows by the rating that was observed.",
        figures.rating_counts(digest.ratings),
        ("rating", "rows"),
        tuple((str(at), f"{count:,}") for at, count in enumerate(digest.ratings)),
    )
    yield Chart(
        "quality",
        "Quality before and after",
        f"Share of {sum(digest.quality_pool):,} rows of the pool and of "
        f"{sum(digest.quality_release):,} rows of the release.",
        figures.quality_shift(digest.quality_pool, digest.quality_release),
        ("P(rating ≥ 4)", "pool", "release"),
        _binned(digest.quality_pool, digest.quality_release),
    )
    sizes = sorted(digest.cluster_sizes.items())
    members = sum(size * count for size, count in sizes)
    yield Chart(
        "sizes",
        "Cluster sizes",
        f"{sum(digest.cluster_sizes.values()):,} clusters of {members:,} members.",
        figures.size_counts(digest.cluster_sizes),
        ("members", "clusters"),
        tuple((str(size), f"{count:,}") for size, count in sizes),
    )
    yield Chart(
        "cohesion",
        "Cohesion",
        "Clusters by the mean cosine between their members.",
        figures.unit_histogram(digest.cohesion, unit="clusters", x_title="mean cosine"),
        ("mean cosine", "clusters"),
        _binned(digest.cohesion),
    )
    for at, name in enumerate(_reward_order(digest.rewards)):
        yield _reward_chart(digest, f"reward-{at}", name)


def _reward_chart(digest: Digest, place: str, name: str) -> Chart:
    bins, missing = digest.rewards[name], digest.missing_rewards.get(name, 0)
    accept_at = digest.accept_at if name == "combined" else None
    caption = f"{sum(bins):,} samples scored" + (f", {missing:,} missing" if missing else "")
    if accept_at is not None:
        caption += f"; accepted from {accept_at:g}"
    figure = figures.unit_histogram(bins, unit="samples", mark=accept_at)
    figure.update_layout(height=190)
    columns = ("reward", "samples")
    return Chart(place, sentence(words(name)), f"{caption}.", figure, columns, _binned(bins))


def _binned(*columns: Sequence[int]) -> tuple[tuple[str, ...], ...]:
    count = len(columns[0])
    return tuple(
        (f"{at / count:.2f} to {(at + 1) / count:.2f}", *(f"{bins[at]:,}" for bins in columns))
        for at in range(count)
    )


@cache
def _plotly_js() -> Markup:
    return Markup(get_plotlyjs())  # a pinned library, not data


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mixup", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        visible=visible,
        words=words,
        sentence=sentence,
        percent=percent,
        number=number,
        score=score,
        duration=duration,
        share=_share,
        interval=interval,
        split=split_text,
    )
    return environment.get_template("page.html.j2")
