"""How benchmarks print what they measured: medians with their spread, and ratios pair by pair."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

import numpy as np

RESAMPLES = 2000


def spread(values: Sequence[float]) -> str:
    """The median, and the lowest and highest."""
    return f"{statistics.median(values):,.2f} ({min(values):,.2f} to {max(values):,.2f})"


def rate(name: str, unit: str, rates: Sequence[float]) -> None:
    """Print the rates of one contender."""
    print(f"  {name:42} {spread(rates):>32} {unit}")


def ratio(name: str, ours: Sequence[float], theirs: Sequence[float]) -> None:
    """Print the ratios of two contenders' rates, repeat by repeat."""
    found = [a / b for a, b in zip(ours, theirs, strict=True)]
    print(f"  {name:42} {spread(found):>32} x, {len(found)} repeats")


def bootstrap(
    statistic: Callable[..., float], *columns_N: np.ndarray
) -> tuple[float, float, float]:
    """A statistic of some columns, and its 95 % interval over resamples of their common rows.

    Rows that lack a value (NaN) in a column are left out of all.

    Args:
        statistic: Of as many columns.
        columns_N: Each of the same length.
    """
    there_N = np.all([np.isfinite(column) for column in columns_N], axis=0)
    columns = [column[there_N] for column in columns_N]
    count = len(columns[0])
    if not count:
        return math.nan, math.nan, math.nan
    drawn_RN = np.random.default_rng(0).integers(0, count, (RESAMPLES, count))
    found_R = [statistic(*(column[rows] for column in columns)) for rows in drawn_RN]
    low, high = np.quantile(found_R, [0.025, 0.975])
    return float(statistic(*columns)), float(low), float(high)


def exponent(sizes_and_seconds: Sequence[tuple[float, float]]) -> None:
    """Print how seconds grow from the first size to the last: 1 is in proportion."""
    (small, first), (large, last) = sizes_and_seconds[0], sizes_and_seconds[-1]
    print(f"  exponent {math.log(last / first) / math.log(large / small):.2f}")
