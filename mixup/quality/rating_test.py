"""The test of a cell's ratings: who is tested, against whom, and what becomes of the rating."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixup.errors import ShapeError
from mixup.quality.agreement import SKETCH_BINS, SuspicionSettings, suspicion_thresholds
from mixup.quality.neighbors import top_k
from mixup.quality.rating_noise import RatingNoise
from mixup.quality.suspicion import find_suspicions, suspicions
from mixup.quality.transition import RATING_CLASSES, UNRATED, Transition


@dataclass(frozen=True)
class RatingTest:
    """How ratings are tested; all of it is of the whole pool.

    Attributes:
        thresholds_C: From ``suspicion_thresholds``.
        epochs: T and p, to test as the reference does, which draws and searches anew in each
            epoch; None: test in bootstrap replicates, against the thresholds.
        settings: The numbers of the test.
    """

    thresholds_C: np.ndarray
    epochs: Transition | None = None
    settings: SuspicionSettings = SuspicionSettings()


@dataclass(frozen=True)
class PoolThresholds:
    """Up to where the ratings of a pool are not suspicious.

    Attributes:
        thresholds_C: The first suspicious bin of each of the six ratings; ``SKETCH_BINS``: none.
        reason: Why no rating can be suspicious, in words; None: ratings are tested.
    """

    thresholds_C: np.ndarray
    reason: str | None


def pool_thresholds(sketch_CB: np.ndarray, noise: RatingNoise) -> PoolThresholds:
    """The thresholds of a pool, if the errors of its rater are known well enough to have some.

    How many ratings are flagged is read from T, so a T that is not known flags none: one that was
    shrunk fits the counts of a small pool, and may be far from the rater.

    Args:
        sketch_CB: From ``suspicion_sketch``, added up over cells.
        noise: What is known of the rater.

    Raises:
        ShapeError: Not a sketch.
    """
    if noise.known is not None:
        return PoolThresholds(suspicion_thresholds(sketch_CB, noise.known), None)
    why = noise.detail or "all ratings are alike"
    return PoolThresholds(
        np.full(RATING_CLASSES, SKETCH_BINS), f"the errors of the rater are not known: {why}"
    )


@dataclass(frozen=True)
class RatingOutcome:
    """What became of the ratings of N rows, most of which may not have been tested.

    Attributes:
        misrated_N: float32 as ``Suspicion``; NaN where not tested.
        suspicious_N: bool.
        suggested_N: int8; -1 where not tested, or no test suggests a class.
        confidence_N: float32 of the suggestion; NaN where there is none.
        curated_N: int64 ratings, suspicious ones replaced; -1 for unrated.
    """

    misrated_N: np.ndarray
    suspicious_N: np.ndarray
    suggested_N: np.ndarray
    confidence_N: np.ndarray
    curated_N: np.ndarray

    @classmethod
    def untested(cls, ratings_N: np.ndarray) -> RatingOutcome:
        """No rating was tested: each stays."""
        rows = len(ratings_N)
        return cls(
            misrated_N=np.full(rows, np.nan, dtype=np.float32),
            suspicious_N=np.zeros(rows, dtype=bool),
            suggested_N=np.full(rows, UNRATED, dtype=np.int8),
            confidence_N=np.full(rows, np.nan, dtype=np.float32),
            curated_N=ratings_N.copy(),
        )


def ratings_after_test(
    vectors_ND: np.ndarray,
    ratings_N: np.ndarray,
    ids_N: np.ndarray,
    voters_V: np.ndarray,
    home_V: np.ndarray,
    test: RatingTest,
) -> RatingOutcome:
    """Test the ratings of those who vote in a cell and are at home in it.

    A rated near-duplicate of a voter is not tested: its neighbors are the voter's, and the two
    ratings are one observation each.

    Args:
        vectors_ND: Unit vectors.
        ratings_N: Observed ratings 0-5, -1 for unrated.
        ids_N: A distinct 64-bit integer a row.
        voters_V: The rated rows that stand for their near-duplicates.
        home_V: Which of these are at home; the others are neighbors only.
        test: How they are tested.

    Raises:
        ShapeError: A cell that has visitors, and ``epochs``.
    """
    vectors, ratings, ids = vectors_ND[voters_V], ratings_N[voters_V], ids_N[voters_V]
    own = np.flatnonzero(home_V)
    if test.epochs is None:
        near = top_k(vectors[own], vectors, test.settings.neighbors, own_M=own)
        found = suspicions(ratings, near, ids, test.thresholds_C, test.settings, rows_M=own)
    elif len(own) == len(voters_V):
        found = find_suspicions(ratings, vectors, ids, test.epochs, test.settings, faithful=True)
    else:
        raise ShapeError("epochs draw from all rated rows, so the pool must be one cell")
    outcome, rows = RatingOutcome.untested(ratings_N), voters_V[own]
    is_suggested = found.confidence_N > 0
    outcome.misrated_N[rows] = found.misrated_N
    outcome.suspicious_N[rows] = found.suspicious_N
    outcome.suggested_N[rows] = np.where(is_suggested, found.suggested_N, UNRATED)
    outcome.confidence_N[rows] = np.where(is_suggested, found.confidence_N, np.nan)
    outcome.curated_N[rows] = found.curated_N
    return outcome
