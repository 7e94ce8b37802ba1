"""The charts of score curation, and what is to say of it in words."""

from __future__ import annotations

from collections.abc import Iterable

from mixup.quality.calibration import CALIBRATION_BINS, wilson_interval
from mixup.report import curation_figures as figures
from mixup.report.charts import Chart
from mixup.report.curation import Calibration, CellsFound, CuratedRatings, ScoreCuration
from mixup.report.digest import Digest


def curation_charts(curation: ScoreCuration | None) -> Iterable[Chart]:
    """The charts of score curation that have data."""
    if curation is None:
        return
    if (error := curation.calibration.error) is not None:
        yield _calibration_chart(curation.calibration, error, curation.threshold)
    if any(map(any, curation.ratings.counts)):
        yield _ratings_chart(curation.ratings)
    if curation.cells.cells > 1:
        yield _cells_chart(curation.cells)


def _calibration_chart(found: Calibration, error: float, threshold: int) -> Chart:
    bins = []
    for at, (rows, total, high) in enumerate(
        zip(found.rows, found.predicted, found.high, strict=True)
    ):
        if interval := wilson_interval(high, rows):
            bins.append((at, rows, total / rows, high / rows, *interval))
    predicted, observed, low, high = ([row[place] for row in bins] for place in (2, 3, 4, 5))
    return Chart(
        "calibration",
        "Do predicted ratings come true?",
        f"{found.total:,} rated rows: the probability of a rating of {threshold} or more that the "
        "ratings of a row's neighbors alone give, without its own, beside how often such a rating "
        "was observed. On the dotted line both agree. Expected calibration error "
        f"{error:.3f}; the whiskers are 95 % intervals.",
        figures.calibration_curve(predicted, observed, low, high, [rows for _, rows, *_ in bins]),
        ("predicted", "rows", "mean predicted", "observed", "95 % interval"),
        tuple(
            (
                f"{at / CALIBRATION_BINS:.1f} to {(at + 1) / CALIBRATION_BINS:.1f}",
                f"{rows:,}",
                f"{mean:.3f}",
                f"{share:.3f}",
                f"{base:.3f} to {top:.3f}",
            )
            for at, rows, mean, share, base, top in bins
        ),
    )


def _ratings_chart(ratings: CuratedRatings) -> Chart:
    rows = []
    for observed, counts in enumerate(ratings.counts):
        for curated, count in enumerate(counts):
            if count:
                share = f"{100 * count / sum(counts):.1f} %"
                rows.append((str(observed), str(curated), f"{count:,}", share))
    total = sum(map(sum, ratings.counts))
    return Chart(
        "curated",
        "Curated against observed ratings",
        f"{total:,} rated rows by the rating that was observed and the one that curation gives. "
        "What is off the diagonal was replaced.",
        figures.curated_ratings(ratings.counts),
        ("observed", "curated", "rows", "of the observed rating"),
        tuple(rows),
    )


def _cells_chart(cells: CellsFound) -> Chart:
    bins = len(cells.sizes)
    return Chart(
        "cells",
        "Sizes of cells",
        f"{cells.cells:,} cells by their rows. A cell may have {cells.cap:,} rows at most.",
        figures.cell_sizes(cells.sizes, cells.cap),
        ("rows", "cells"),
        tuple(
            (figures.size_range(at, bins, cells.cap), f"{count:,}")
            for at, count in enumerate(cells.sizes)
        ),
    )


def ratings_words(digest: Digest) -> str:
    """What the test of observed ratings came to, or why there was none."""
    ratings = digest.curation.ratings if digest.curation else CuratedRatings()
    if not ratings.rated:
        return "No row has an observed rating, so there is none to test."
    if not ratings.tested:
        why = (digest.scores and digest.scores.untested) or "no cell has enough rated rows"
        return f"No rating could be called suspicious: {why}. All observed ratings stay."
    return (
        f"{ratings.tested:,} of {ratings.rated:,} observed ratings could be tested: "
        f"{ratings.suspicious:,} are suspicious, and {ratings.replaced:,} of these were replaced "
        "by what the neighbors suggest. All observed ratings go on voting as they are."
    )


def calibration_words(curation: ScoreCuration) -> str:
    """Why there is no calibration curve."""
    if not curation.ratings.rated:
        return "No row has an observed rating, so no prediction can be held against one."
    return (
        "No rated row has enough rated neighbors to be predicted from, so nothing can be said of "
        "how well predictions come true."
    )


def cells_words(cells: CellsFound) -> str:
    """How neighbors were looked for."""
    if not cells.cells:
        return "No row has a vector, so there are no neighbors."
    if cells.cells == 1:
        return (
            f"All {cells.rows:,} rows are in one cell, so the neighbors of each row are exact: no "
            "row was left out of the search."
        )
    return (
        "Neighbors are looked for inside a cell. Rows near a border are visible next door, so that "
        "most neighbors across it are found."
    )
