"""Which sample may enter a release: a verdict with one reason for each that may not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mixup.rewards.rubric import Combined

REJECTIONS = (
    "cut_off",
    "unscored",
    "copied_input",
    "repetitive",
    "lost_content",
    "low_quality",
    "low_alignment",
    "low_coverage",
    "low_reward",
    "contaminated",
)
"""Reasons besides those of the parser, in the order in which they are looked for."""
CONTAMINATED = REJECTIONS[-1]
"""Holds an evaluation question: looked for last, in samples that pass everything else."""


@dataclass(frozen=True)
class AcceptanceRules:
    """What an accepted sample needs.

    Attributes:
        min_quality: Least quality.
        min_alignment: Least alignment.
        min_coverage: Least coverage.
        min_combined: Least combined reward.
        max_copied: Largest share of the answer found in one single input.
        max_repetition: Largest share of repeated 4-grams.
        max_lost: Largest share of the inputs' content words that the answer may lack.
    """

    min_quality: float
    min_alignment: float
    min_coverage: float
    min_combined: float
    max_copied: float
    max_repetition: float
    max_lost: float


@dataclass(frozen=True)
class Facts:
    """What is known of a sample.

    Attributes:
        reason: Why it has no parsed answer, or None.
        is_cut: Whether the output was cut off, at the token limit or within a field.
        values: Component to its value, None where it could not be computed.
        combined: The rubric's outcome.
        copied: Highest share of the answer found in one single input.
        repetition: Share of repeated 4-grams.
        lost: Share of the inputs' content words that the answer lacks.
    """

    reason: str | None
    is_cut: bool
    values: Mapping[str, float | None]
    combined: Combined
    copied: float
    repetition: float
    lost: float


def rejection(facts: Facts, rules: AcceptanceRules) -> str | None:
    """Why a sample is rejected, or None if it is accepted.

    A component that could not be computed rejects the sample as ``unscored``: what is not known to
    be good does not pass as good.
    """
    if facts.reason:
        return facts.reason
    quality, alignment, coverage = (
        facts.values.get(name) for name in ("quality", "alignment", "coverage")
    )
    reward = facts.combined.value
    if facts.is_cut:
        return "cut_off"
    if quality is None or alignment is None or coverage is None or reward is None:
        return "unscored"
    if math.isnan(quality + alignment + coverage + reward):  # compares as neither low nor high
        return "unscored"
    checks = {
        "copied_input": facts.copied > rules.max_copied,
        "repetitive": facts.repetition > rules.max_repetition,
        "lost_content": facts.lost > rules.max_lost,
        "low_quality": quality < rules.min_quality,
        "low_alignment": alignment < rules.min_alignment,
        "low_coverage": coverage < rules.min_coverage,
        "low_reward": reward < rules.min_combined,
    }
    return next((name for name, found in checks.items() if found), None)
