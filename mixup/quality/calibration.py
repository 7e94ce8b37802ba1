"""Calibration: whether the probability of a high rating comes true among the ratings observed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mixup.errors import ShapeError
from mixup.quality.posterior import at_least
from mixup.quality.transition import GIVEN_RATING, Transition

CALIBRATION_BINS = 10  # of equal width, the usual number

_MILLION = 1_000_000
_Z = 1.959964  # 95 %


def predicted_at_least(q_MC: np.ndarray, transition: Transition, threshold: int) -> np.ndarray:
    """P(the rating that will be observed >= threshold) of each of M rows, 0-1.

    What q says depends on the transition with which the votes were read.

    - Where T holds the rater's errors, q is over true classes, and the rating that is observed is
      one more draw of the rater: sum_i q_i sum_{j >= threshold} T_ij.
    - Where T is of co-occurrence, its rows already are "a neighbor's rating given the own
      *rating*": q is over the row's own observed rating, its noise included, and the probability
      is that of q alone. Multiplied by T it would count the noise twice, and would be the
      prediction of a further neighbor's rating.

    The own rating must not have entered q.

    Args:
        q_MC: P(class | votes of the neighbors).
        transition: T with which the votes were read.
        threshold: Lowest rating, 0-5, that counts as high.

    Raises:
        ShapeError: The posterior does not fit the transition.
    """
    q = np.asarray(q_MC, dtype=np.float64)
    if q.ndim != 2 or q.shape[1] != len(transition.classes):
        raise ShapeError(f"posterior {q.shape} for {len(transition.classes)} classes")
    observed = q if transition.given == GIVEN_RATING else q @ transition.matrix_CC
    return np.clip(at_least(observed, transition.classes, threshold), 0.0, 1.0)


@dataclass(frozen=True)
class CalibrationCounts:
    """Rows by what was predicted of them; counts of parts are added up, in any order.

    Attributes:
        rows_B: Rows of each of ``CALIBRATION_BINS`` equal bins of the prediction.
        millionths_B: The sum of their predictions, in whole millionths: such sums do not depend on
            the order.
        high_B: Rows of them whose observed rating is high.
    """

    rows_B: np.ndarray
    millionths_B: np.ndarray
    high_B: np.ndarray

    @classmethod
    def none(cls) -> CalibrationCounts:
        """No row."""
        return cls(*(np.zeros(CALIBRATION_BINS, np.int64) for _ in range(3)))

    def __add__(self, other: CalibrationCounts) -> CalibrationCounts:
        """The counts of both parts."""
        return CalibrationCounts(
            self.rows_B + other.rows_B,
            self.millionths_B + other.millionths_B,
            self.high_B + other.high_B,
        )

    @property
    def predicted_B(self) -> np.ndarray:
        """The sum of the predictions of each bin."""
        return self.millionths_B / _MILLION


def calibration_counts(predicted_N: np.ndarray, high_N: np.ndarray) -> CalibrationCounts:
    """Count rows by their prediction; a row without one (NaN) is not counted.

    Args:
        predicted_N: P(the observed rating is high), 0-1 or NaN.
        high_N: Whether it is.

    Raises:
        ShapeError: The two do not fit, or a prediction is not from 0 to 1.
    """
    predicted, high = np.asarray(predicted_N, dtype=np.float64), np.asarray(high_N, dtype=bool)
    if predicted.ndim != 1 or predicted.shape != high.shape:
        raise ShapeError(f"{predicted.shape} predictions of {high.shape} ratings")
    known = ~np.isnan(predicted)
    predicted, high = predicted[known], high[known]
    if not ((predicted >= 0) & (predicted <= 1)).all():
        raise ShapeError(f"predictions from {predicted.min()} to {predicted.max()}; expected 0-1")
    at = np.minimum((predicted * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    millionths = np.zeros(CALIBRATION_BINS, np.int64)
    np.add.at(millionths, at, np.rint(predicted * _MILLION).astype(np.int64))
    return CalibrationCounts(
        np.bincount(at, minlength=CALIBRATION_BINS),
        millionths,
        np.bincount(at[high], minlength=CALIBRATION_BINS),
    )


def expected_calibration_error(
    rows_B: ArrayLike, predicted_B: ArrayLike, high_B: ArrayLike
) -> float | None:
    """The mean distance of prediction and frequency over all rows, bin by bin; None without rows.

    sum_b n_b / N * |mean prediction_b - frequency_b| = sum_b |predictions_b - highs_b| / N.

    Args:
        rows_B: Rows of each bin.
        predicted_B: The sum of their predictions.
        high_B: Rows of them whose observed rating is high.

    Source: Naeini et al. 2015, Guo et al. 2017.
    """
    total = int(np.sum(rows_B))
    return float(np.abs(np.subtract(predicted_B, high_B)).sum() / total) if total else None


def wilson_interval(count: int, total: int) -> tuple[float, float] | None:
    """The 95 % Wilson interval of the share ``count / total``, within 0-1; None of no trials."""
    if total == 0:
        return None
    n, p = total, count / total
    center, scale = p + _Z * _Z / (2 * n), 1 + _Z * _Z / n
    half = _Z * math.sqrt(p * (1 - p) / n + _Z * _Z / (4 * n * n))
    return max(0.0, (center - half) / scale), min(1.0, (center + half) / scale)
