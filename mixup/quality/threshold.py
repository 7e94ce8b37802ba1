"""Where high quality begins: the cut that reaches a stated precision, and the tiers it makes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixup.errors import ConfigError, ShapeError

QUALITY_BINS = 1_000
"""Bins of quality on [0, 1]: cuts are their lower edges."""


@dataclass(frozen=True)
class PrecisionCurve:
    """What keeping all rows from a quality on is expected to give, by rising cut.

    Quality is P(truly high), so the expected share of truly high rows among those kept is the mean
    of their qualities. It is as right as the posterior is calibrated.

    Attributes:
        cuts: K cuts, those only from which on the kept rows differ.
        rows: Rows of at least that quality.
        precision: The mean of their qualities, rising.
        total: All rows with a quality.
    """

    cuts: tuple[float, ...]
    rows: tuple[int, ...]
    precision: tuple[float, ...]
    total: int


def precision_curve(quality_B: np.ndarray, rows_B: np.ndarray) -> PrecisionCurve:
    """The curve of rows whose qualities are known.

    Args:
        quality_B: Qualities, 0-1.
        rows_B: How many rows have each.

    Raises:
        ShapeError: They do not fit, or a quality is not from 0 to 1.
    """
    quality, rows = np.asarray(quality_B, dtype=np.float64), np.asarray(rows_B)
    if quality.shape != rows.shape or not ((quality >= 0) & (quality <= 1 + 1e-9)).all():
        raise ShapeError(f"qualities {quality.shape} and counts {rows.shape}; expected 0 to 1")
    place = np.minimum((quality * QUALITY_BINS).astype(np.int64), QUALITY_BINS - 1)
    count = np.bincount(place, weights=rows, minlength=QUALITY_BINS)
    total = np.bincount(place, weights=rows * quality, minlength=QUALITY_BINS)
    kept, held = count[::-1].cumsum()[::-1], total[::-1].cumsum()[::-1]
    at = np.flatnonzero(count)
    return PrecisionCurve(
        cuts=tuple((at / QUALITY_BINS).tolist()),
        rows=tuple(kept[at].astype(np.int64).tolist()),
        precision=tuple((held[at] / kept[at]).tolist()),
        total=int(count.sum()),
    )


def cut_of(curve: PrecisionCurve, precision: float) -> float:
    """The lowest cut whose rows reach a precision: it keeps most.

    Raises:
        ConfigError: Not even the surest rows reach it, or there is none.
    """
    if not curve.cuts:
        raise ConfigError(f"a precision of {precision} cannot be reached: no row has a quality")
    for cut, reached in zip(curve.cuts, curve.precision, strict=True):
        if reached >= precision:
            return cut
    raise ConfigError(
        f"a precision of {precision} cannot be reached: the {curve.rows[-1]:,} surest rows are "
        f"expected to be truly high for {curve.precision[-1]:.3f} of them; ask for less"
    )


def margin_at(keep_at: float, margin: float) -> float:
    """The margin around a fitted cut: at most half of what is left beside it, so that it is met."""
    return min(margin, keep_at / 2, (1 - keep_at) / 2)


def tiers(
    quality_N: np.ndarray, previous_N: np.ndarray | None, *, keep_at: float, margin: float
) -> np.ndarray:
    """``high``, ``low``, or ``unrated`` where quality is NaN.

    A row that was high stays so until quality < keep_at - margin, a low one until quality > keep_at
    + margin. Any other previous tier, or none, leaves high = quality >= keep_at.
    """
    high = quality_N >= keep_at
    if previous_N is not None:
        high = np.where(previous_N == "high", quality_N >= keep_at - margin, high)
        high = np.where(previous_N == "low", quality_N > keep_at + margin, high)
    found = np.where(high, "high", "low").astype(object)
    found[np.isnan(quality_N)] = "unrated"
    return found
