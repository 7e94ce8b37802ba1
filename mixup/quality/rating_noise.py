"""What is known of the errors of a pool's rater, and how it is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mixup.quality.rater_errors import RaterErrors
from mixup.quality.shrinkage import ChosenTransition
from mixup.quality.transition import Transition

KNOWN = ("stated", "consensus", "regression")
"""Sources by which ratings are tested and truth is told from them."""

_PRIOR_STEPS = 1_000
_FLOOR = 1e-12
_SUREST = 0.99  # no rater is always right: nothing but its ratings could then be heard


@dataclass(frozen=True)
class RatingNoise:
    """The rater's errors as far as they are known.

    Attributes:
        source: How T was found: one of ``KNOWN``, or of ``shrinkage.SOURCES``. ``stated``: by the
            config; ``consensus``: by the ratings of neighbors; ``regression``: by how well ratings
            are predicted if the rater is right so often (``tell_reliability``).
        detail: Why the consensus alone does not tell it, in words; empty where that is not asked.
        samples: Rated rows that told it, near-duplicates left out.
        classes: The C rating classes.
        matrix: C rows of P(rating | true class); empty where nothing could be told.
        low: Lower ends of its intervals of 90 %; null where there are none.
        high: Upper ends.
        prior: The share of each true class.
        decay: Of the rater's errors, where T is of two numbers; else None.
    """

    source: str
    detail: str
    samples: int
    classes: tuple[int, ...] = ()
    matrix: tuple[tuple[float, ...], ...] = ()
    low: tuple[tuple[float | None, ...], ...] = ()
    high: tuple[tuple[float | None, ...], ...] = ()
    prior: tuple[float, ...] = ()
    decay: float | None = None

    @property
    def transition(self) -> Transition | None:
        """T and p; None where nothing could be told."""
        if not self.matrix:
            return None
        return Transition(np.array(self.classes), np.array(self.matrix), np.array(self.prior))

    @property
    def known(self) -> Transition | None:
        """T and p, if they are sure enough to judge ratings by."""
        return self.transition if self.source in KNOWN else None

    @property
    def rater(self) -> RaterErrors | None:
        """The errors in two numbers, the first a mean over the true classes; None: not known."""
        found = self.known
        if found is None:
            return None
        if self.decay is not None:
            return RaterErrors(self.matrix[0][0], self.decay)
        right = float(found.prior_C @ np.diag(found.matrix_CC))
        return RaterErrors(min(right, _SUREST))


def rating_noise(chosen: ChosenTransition) -> RatingNoise:
    """What the ratings of neighbors tell of the rater."""
    found, consensus = chosen.transition, chosen.consensus
    samples = consensus.samples if consensus else 0
    if found is None or consensus is None:
        return RatingNoise(chosen.source, chosen.detail, samples)
    return RatingNoise(
        source=chosen.source,
        detail=chosen.detail,
        samples=samples,
        classes=tuple(found.classes.tolist()),
        matrix=_rows(found.matrix_CC),
        low=_rows(consensus.low_CC),
        high=_rows(consensus.high_CC),
        prior=tuple(found.prior_C.tolist()),
    )


def noise_of(
    rater: RaterErrors,
    ratings_C: np.ndarray,
    *,
    source: str,
    detail: str = "",
    ends: tuple[float, float] | None = None,
    samples: int | None = None,
) -> RatingNoise:
    """The errors of a rater whose two numbers are known, over the classes that it gave.

    Args:
        rater: The two numbers.
        ratings_C: How many rows have each of the six ratings, two of them at least.
        source: Of ``KNOWN``.
        detail: As in ``RatingNoise``.
        ends: Of the interval of the reliability.
        samples: How many rows told it; None: all that are counted.
    """
    classes = np.flatnonzero(ratings_C)
    matrix = rater.matrix(classes)
    unknown = np.full(matrix.shape, np.nan)
    low, high = (
        np.where(np.eye(len(classes), dtype=bool), end, unknown) for end in ends or (np.nan, np.nan)
    )
    return RatingNoise(
        source=source,
        detail=detail,
        samples=int(ratings_C.sum()) if samples is None else samples,
        classes=tuple(classes.tolist()),
        matrix=_rows(matrix),
        low=_rows(low),
        high=_rows(high),
        prior=tuple(true_shares(ratings_C[classes], matrix).tolist()),
        decay=rater.decay,
    )


def true_shares(ratings_C: np.ndarray, errors_CC: np.ndarray) -> np.ndarray:
    """The likeliest shares of the true classes behind observed ratings, float64 of shape (C,).

    By expectation maximization of sum_j n_j log (p T)_j, from even shares on.

    Args:
        ratings_C: How many rows have each of the C ratings; at least one row.
        errors_CC: T, P(rating = column | true class = row).
    """
    shares = np.asarray(ratings_C, dtype=np.float64) / np.sum(ratings_C)
    prior = np.full(len(shares), 1 / len(shares))
    for _ in range(_PRIOR_STEPS):
        prior = prior * (errors_CC @ (shares / np.maximum(prior @ errors_CC, _FLOOR)))
    return prior / prior.sum()


def _rows(matrix: np.ndarray) -> tuple[tuple[Any, ...], ...]:
    """A matrix as JSON data, null for NaN."""
    return tuple(tuple(None if x != x else x for x in row) for row in matrix.tolist())
