"""How benchmarks print what they measured: medians with their spread, and ratios pair by pair."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


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
