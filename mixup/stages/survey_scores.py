"""The survey of scores: what the curation of some buckets says of ratings, cells and duplicates.

All of it adds up over buckets, and the driver holds of it a number a cell and a draw of pairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import nsmallest

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixup.quality.calibration import CalibrationCounts, calibration_counts
from mixup.quality.transition import RATING_CLASSES, UNRATED
from mixup.records import content_key
from mixup.stages.pool_rows import rows_of_uids

PAIRS_SHOWN = 20


@dataclass(frozen=True)
class RowPair:
    """A near-duplicate and the row that represents it.

    Attributes:
        uid: The near-duplicate.
        duplicate_of: Its representative.
        similarity: Their cosine similarity; None where an earlier version did not keep it.
        same_source: Whether their sources are the same; None where one names none.
    """

    uid: str
    duplicate_of: str
    similarity: float | None
    same_source: bool | None


def _no_ratings() -> np.ndarray:
    return np.zeros((RATING_CLASSES, RATING_CLASSES), np.int64)


@dataclass
class ScoreSurvey:
    """What the curation of some buckets says; adds up in any order.

    Attributes:
        counts: ``rated`` rows; those of them ``tested``, ``suspicious`` and ``replaced``;
            ``near_duplicates``, of the ``same_source`` as their representative or of an
            ``other_source``; ``placed`` rows, and their ``visits`` to other cells.
        calibration: Rated rows by what their neighbors predict of them.
        curated_CC: Rated rows by observed rating (down) and curated rating.
        cells: Rows by cell.
        pairs: A draw of the near-duplicates, which depends on their uids only.
    """

    counts: Counter[str] = field(default_factory=Counter)
    calibration: CalibrationCounts = field(default_factory=CalibrationCounts.none)
    curated_CC: np.ndarray = field(default_factory=_no_ratings)
    cells: Counter[int] = field(default_factory=Counter)
    pairs: list[RowPair] = field(default_factory=list)

    def merge(self, other: ScoreSurvey) -> None:
        """Take in the survey of other buckets."""
        self.counts.update(other.counts)
        self.calibration += other.calibration
        self.curated_CC = self.curated_CC + other.curated_CC
        self.cells.update(other.cells)
        self.pairs = _drawn([*self.pairs, *other.pairs])


def _drawn(pairs: Iterable[RowPair]) -> list[RowPair]:
    return nsmallest(PAIRS_SHOWN, pairs, key=lambda pair: content_key("duplicate", pair.uid))


def survey_scores(
    curation: pa.Table, ratings: pa.Table, places: pa.Table, threshold: int
) -> ScoreSurvey:
    """What the curation of one bucket says.

    Args:
        curation: Its rows of the table ``curation``.
        ratings: The uids and observed ratings, by the rater in use, of its records.
        places: Its rows of the table ``places``.
        threshold: Lowest rating that counts as high.
    """
    at = rows_of_uids(curation["uid"].combine_chunks(), ratings)
    observed = _integers(ratings["rating"].combine_chunks().take(at))
    survey = ScoreSurvey()
    _survey_ratings(survey, curation, observed, threshold)
    _survey_cells(survey, curation, places)
    _survey_duplicates(survey, curation)
    return survey


def _survey_ratings(
    survey: ScoreSurvey, curation: pa.Table, observed: np.ndarray, threshold: int
) -> None:
    rated, curated = observed != UNRATED, _integers(curation["curated_rating"])
    predicted = pc.fill_null(curation["predicted"], np.nan).to_numpy()
    survey.calibration = calibration_counts(predicted[rated], observed[rated] >= threshold)
    known = rated & (curated != UNRATED)  # a row without a vector has none
    np.add.at(survey.curated_CC, (observed[known], curated[known]), 1)
    tested = curation["suspicious"]
    replaced = pc.equal(curation["rating_origin"], "neighbors")
    survey.counts.update(
        rated=int(rated.sum()),
        tested=tested.length() - tested.null_count,
        suspicious=_count(tested),
        replaced=_count(replaced),
    )


def _survey_cells(survey: ScoreSurvey, curation: pa.Table, places: pa.Table) -> None:
    counted = pc.value_counts(curation["cell"].drop_null()).to_pylist()
    survey.cells.update({found["values"]: found["counts"] for found in counted})
    placed = places.filter(pc.is_in(places["uid"], curation["uid"].combine_chunks()))
    visits = pc.sum(pc.list_value_length(placed["visits"])).as_py() or 0
    survey.counts.update(placed=placed.num_rows, visits=visits)


def _survey_duplicates(survey: ScoreSurvey, curation: pa.Table) -> None:
    found = curation.filter(pc.is_valid(curation["duplicate_of"]))
    same = found["same_source"]
    survey.counts.update(
        near_duplicates=found.num_rows,
        same_source=_count(same),
        other_source=_count(pc.invert(same)),
    )
    columns = ("uid", "duplicate_of", "duplicate_similarity", "same_source")
    rows = zip(*(found[name].to_pylist() for name in columns), strict=True)
    survey.pairs = _drawn(RowPair(*row) for row in rows)


def _integers(ratings: pa.Array | pa.ChunkedArray) -> np.ndarray:
    return pc.fill_null(ratings, UNRATED).to_numpy(zero_copy_only=False).astype(np.int64)


def _count(flags: pa.ChunkedArray) -> int:
    return int(pc.sum(flags).as_py() or 0)
