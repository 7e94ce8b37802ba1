"""What the report shows of score curation, as plain data: part of the digest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mixup.errors import ShapeError
from mixup.quality.calibration import CALIBRATION_BINS, expected_calibration_error
from mixup.quality.transition import RATING_CLASSES

SIZE_BINS = 20  # of the sizes of cells, up to the cap
PAIR_CHARS = 600


@dataclass(frozen=True)
class Calibration:
    """Whether P(the rating is high) comes true, over rows whose rating was observed.

    Attributes:
        rows: Rows of each of ``CALIBRATION_BINS`` equal bins of the prediction.
        predicted: The sum of their predictions.
        high: Rows of them whose observed rating is high.
    """

    rows: tuple[int, ...] = (0,) * CALIBRATION_BINS
    predicted: tuple[float, ...] = (0.0,) * CALIBRATION_BINS
    high: tuple[int, ...] = (0,) * CALIBRATION_BINS

    def __post_init__(self) -> None:
        """Raises ShapeError for another number of bins."""
        if {len(self.rows), len(self.predicted), len(self.high)} != {CALIBRATION_BINS}:
            raise ShapeError(f"calibration has {len(self.rows)} bins, expected {CALIBRATION_BINS}")

    @property
    def total(self) -> int:
        """Rows with a prediction."""
        return sum(self.rows)

    @property
    def error(self) -> float | None:
        """The expected calibration error; None without rows."""
        return expected_calibration_error(self.rows, self.predicted, self.high)


@dataclass(frozen=True)
class CuratedRatings:
    """Observed ratings and what curation made of them.

    Attributes:
        rated: Rows with an observed rating.
        counts: Six rows, one an observed rating, of rows by curated rating; those without one,
            which have no vector, are not in it.
        tested: Ratings that were tested by those of their neighbors.
        suspicious: Those of them that the neighbors contradict.
        replaced: Those of them that were replaced.
    """

    rated: int = 0
    counts: tuple[tuple[int, ...], ...] = ((0,) * RATING_CLASSES,) * RATING_CLASSES
    tested: int = 0
    suspicious: int = 0
    replaced: int = 0

    def __post_init__(self) -> None:
        """Raises ShapeError where the counts are not 6 x 6."""
        if [len(row) for row in self.counts] != [RATING_CLASSES] * RATING_CLASSES:
            raise ShapeError(f"counts of ratings are not {RATING_CLASSES} x {RATING_CLASSES}")


@dataclass(frozen=True)
class CellsFound:
    """The cells in which neighbors were looked for.

    Attributes:
        cells: Cells with rows.
        rows: Rows in them.
        most: Rows of the largest.
        cap: Most rows that a cell may have.
        sizes: Cells by rows, ``SIZE_BINS`` equal bins up to the cap: bin i holds those of more
            than i / SIZE_BINS of it.
        visits: Visits of rows to cells beside their own.
        done: Cells done in the run of the release; None where that is not on record.
        drift: How far the pool has moved from the fit; None where too few rows came since.
        refit_at: Drift from which cells are fitted anew.
        new: Rows that came since the fit.
    """

    cells: int = 0
    rows: int = 0
    most: int = 0
    cap: int = 1
    sizes: tuple[int, ...] = (0,) * SIZE_BINS
    visits: int = 0
    done: int | None = None
    drift: float | None = None
    refit_at: float = 0.25
    new: int = 0

    def __post_init__(self) -> None:
        """Raises ShapeError for another number of bins."""
        if len(self.sizes) != SIZE_BINS:
            raise ShapeError(f"sizes of cells have {len(self.sizes)} bins, expected {SIZE_BINS}")

    @property
    def replication(self) -> float | None:
        """The mean number of cells in which a row is visible; None without rows."""
        return 1 + self.visits / self.rows if self.rows else None


def size_bins(rows: Iterable[int], cap: int) -> tuple[int, ...]:
    """Cells by their rows, as ``CellsFound.sizes``; one that is over the cap is in the last bin."""
    found = [0] * SIZE_BINS
    for count in rows:
        found[min(-(-count * SIZE_BINS // cap) - 1, SIZE_BINS - 1)] += 1
    return tuple(found)


@dataclass(frozen=True)
class PairText:
    """One row of a pair: its uid, its text cut to ``PAIR_CHARS``, what that lost, its sources."""

    uid: str
    text: str
    lost: int
    sources: tuple[str, ...]


def pair_text(uid: str, text: str, sources: Sequence[str]) -> PairText:
    """A row as the report shows it."""
    return PairText(uid, text[:PAIR_CHARS], max(0, len(text) - PAIR_CHARS), tuple(sources))


@dataclass(frozen=True)
class DuplicatePair:
    """A near-duplicate that was left out beside the row that represents it.

    Attributes:
        left: The near-duplicate.
        kept: Its representative.
        similarity: Their cosine similarity; None where it is not on record.
        same_source: Whether the sources of their oldest occurrences are the same; None where one
            names none.
    """

    left: PairText
    kept: PairText
    similarity: float | None
    same_source: bool | None


@dataclass(frozen=True)
class Duplicates:
    """The duplicates of the pool.

    Attributes:
        exact: Occurrences that repeat a row to the letter.
        near: Distinct rows that are near-duplicates of an older one.
        same_source: Those of them whose representative is of the same source.
        other_source: Those of another; the rest name no source.
        similarity: Cosine similarity from which rows are near-duplicates.
        pairs: A seeded draw of the near ones.
    """

    exact: int = 0
    near: int = 0
    same_source: int = 0
    other_source: int = 0
    similarity: float | None = None
    pairs: tuple[DuplicatePair, ...] = ()


@dataclass(frozen=True)
class ScoreCuration:
    """All that the report shows of score curation beside T and the cut of quality.

    Attributes:
        threshold: Lowest rating that counts as high.
        calibration: Whether the posterior comes true.
        ratings: Observed and curated ratings.
        cells: The cells.
        duplicates: The duplicates.
    """

    threshold: int = 4
    calibration: Calibration = Calibration()
    ratings: CuratedRatings = CuratedRatings()
    cells: CellsFound = CellsFound()
    duplicates: Duplicates = Duplicates()
