"""The numbers with which a pool is scored: those asked for, and those fitted."""

from __future__ import annotations

from dataclasses import dataclass

from mixup.quality.rater_errors import RaterErrors
from mixup.quality.threshold import PrecisionCurve

FALLBACK_VOTES = 4.0
"""The worth of the neighbors in independent votes where the ratings cannot tell it."""

FALLBACK_KEEP_AT = 0.5
"""The cut of quality where nothing was fitted from which one could be told."""


@dataclass(frozen=True)
class PoolScores:
    """The numbers of a pool, each with what there is to say of it.

    Attributes:
        predictor: What tells quality, in words.
        effective_votes: How many independent votes the neighbors are worth.
        votes_detail: Where that is from, in words.
        keep_at: Quality from which a row is high.
        margin: How far beyond it a row must come to change sides.
        keep_detail: Where they are from, in words.
        curve: Expected precision and rows by cut; None where nothing was fitted.
        untested: Why no rating is tested, in words; None: they are.
        rater: The errors of observed ratings.
        rater_detail: Where they are from, in words; empty in what an earlier version wrote.
    """

    predictor: str
    effective_votes: float
    votes_detail: str
    keep_at: float
    margin: float
    keep_detail: str
    curve: PrecisionCurve | None
    untested: str | None
    rater: RaterErrors = RaterErrors()
    rater_detail: str = ""
