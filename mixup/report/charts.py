"""The charts of a digest: each a figure with its caption and the same numbers as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from mixup.quality.rating_noise import RatingNoise
from mixup.quality.scores import PoolScores
from mixup.quality.threshold import PrecisionCurve
from mixup.report import figures
from mixup.report.clusters import reward_order
from mixup.report.digest import Digest
from mixup.report.timeline import SpanRow, Timeline
from mixup.report.wording import seconds, sentence, visible, words


@dataclass(frozen=True)
class Chart:
    """A figure with its place in the page, its caption, and the same numbers as a table."""

    id: str
    title: str
    caption: str
    figure: go.Figure
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def charts_of(digest: Digest) -> Iterable[Chart]:
    """All charts of a digest; those without data too."""
    yield Chart(
        "ratings",
        "Observed ratings",
        f"{sum(digest.ratings):,} rows by the rating that was observed.",
        figures.rating_counts(digest.ratings),
        ("rating", "rows"),
        tuple((str(at), f"{count:,}") for at, count in enumerate(digest.ratings)),
    )
    if digest.noise is not None and digest.noise.matrix:
        yield _noise_chart(digest.noise)
    if digest.scores is not None and digest.scores.curve is not None and digest.scores.curve.cuts:
        yield _precision_chart(digest.scores, digest.scores.curve)
    yield _shift_chart(
        "quality",
        "Quality before and after",
        f"P(rating ≥ {digest.curation.threshold if digest.curation else 4})",
        digest.quality_pool,
        digest.quality_release,
    )
    yield _shift_chart(
        "long-tail",
        "Long tail before and after",
        "mean distance to the nearest rows",
        digest.long_tail_pool,
        digest.long_tail_release,
    )
    yield from _cluster_charts(digest)
    for at, name in enumerate(reward_order(digest.rewards)):
        yield _reward_chart(digest, f"reward-{at}", name)
    yield _timeline_chart(digest.timeline)


def _noise_chart(noise: RatingNoise) -> Chart:
    rows = []
    for at, true in enumerate(noise.classes):
        for to, observed in enumerate(noise.classes):
            low, high = noise.low[at][to], noise.high[at][to]
            interval = "—" if low is None or high is None else f"{low:.3f} to {high:.3f}"
            rows.append((str(true), str(observed), f"{noise.matrix[at][to]:.3f}", interval))
    return Chart(
        "noise",
        "Errors of the rater",
        noise_words(noise),
        figures.rating_noise(noise.classes, noise.matrix),
        ("true class", "observed rating", "probability", "90 % interval"),
        tuple(rows),
    )


def noise_words(noise: RatingNoise) -> str:
    """What T is worth, in words."""
    counted = f"{noise.samples:,} rated rows and their nearest others"
    if noise.source == "consensus":
        return f"P(observed rating | true class), from how {counted} agree."
    if noise.source == "shrunk":
        return (
            f"P(observed rating | true class), from how {counted} agree. It cannot be trusted by "
            f"itself ({noise.detail}), so it is drawn towards a simple form."
        )
    if noise.source == "stated":
        return "P(observed rating | true class), as the config states how reliable the rater is."
    if noise.source == "regression":
        return (
            "P(observed rating | true class) of a rater that is right as often in each class, by "
            f"how well {noise.samples:,} ratings are predicted from their texts if it is: the "
            "highest share with which they are predicted as well as with any. How neighbors agree "
            f"does not tell it ({noise.detail})."
        )
    return f"The errors of the rater cannot be told: {noise.detail or 'all ratings are alike'}."


def _precision_chart(scores: PoolScores, curve: PrecisionCurve) -> Chart:
    share = [rows / curve.total for rows in curve.rows]
    at = sorted({round(place) for place in np.linspace(0, len(curve.cuts) - 1, _CURVE_ROWS)})
    return Chart(
        "precision",
        "Precision and yield",
        f"What keeping rows from a quality on is expected to give, over {curve.total:,} rows of "
        f"the pool as it was counted. Kept from {scores.keep_at:g} on ({scores.keep_detail}).",
        figures.precision_curve(curve.cuts, curve.precision, share, mark=scores.keep_at),
        ("quality from", "expected precision", "rows", "of all"),
        tuple(
            (
                f"{curve.cuts[place]:.3f}",
                f"{curve.precision[place]:.3f}",
                f"{curve.rows[place]:,}",
                f"{100 * share[place]:.1f} %",
            )
            for place in at
        ),
    )


_CURVE_ROWS = 21  # of the table beside the curve, which may have a thousand


def scores_words(scores: PoolScores) -> str:
    """What was fitted of the pool, in words."""
    tested = "Observed ratings were tested by those of their neighbors."
    if scores.untested is not None:
        tested = f"No observed rating was tested: {scores.untested}."
    told = f" ({scores.rater_detail})" if scores.rater_detail else ""
    return (
        f"Quality is told by {scores.predictor}. A rating is taken to be right with a probability "
        f"of {scores.rater.reliability:.2f}{told}. {tested} Where neighbors "
        f"vote, those of a row are worth {scores.effective_votes:g} independent votes "
        f"({scores.votes_detail})."
    )


def _shift_chart(
    place: str, title: str, value: str, pool: Sequence[int], release: Sequence[int]
) -> Chart:
    return Chart(
        place,
        title,
        f"Share of {sum(pool):,} rows of the pool and of {sum(release):,} rows of the release.",
        figures.shift(pool, release, value),
        (value, "pool", "release"),
        _binned(pool, release),
    )


def _cluster_charts(digest: Digest) -> Iterable[Chart]:
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


def _timeline_chart(timeline: Timeline) -> Chart:
    lanes: dict[str, list[SpanRow]] = {}
    for span in timeline.spans:
        lanes.setdefault(span.name, []).append(span)
    caption = "Each bar is a batch at work; what is empty is waiting. Drag to zoom, double-click "
    caption += "to see all."
    if timeline.resolution:
        caption += f" Waits of at most {seconds(timeline.resolution)} are drawn as work."
    end = max((span.end for span in timeline.spans), default=0.0)
    rows = []
    for name, spans in lanes.items():
        busy = sum(span.end - span.start for span in spans)
        share = f"{100 * busy / end:.0f} %" if end else "—"
        rows.append((visible(name), f"{len(spans):,}", seconds(busy), share))
    return Chart(
        "timeline",
        "Who worked when",
        caption,
        figures.work_lanes(lanes),
        ("lane", "stretches", "at work", "of the time shown"),
        tuple(rows),
    )


def _binned(*columns: Sequence[int]) -> tuple[tuple[str, ...], ...]:
    count = len(columns[0])
    return tuple(
        (f"{at / count:.2f} to {(at + 1) / count:.2f}", *(f"{bins[at]:,}" for bins in columns))
        for at in range(count)
    )
