"""Cross-topic fusion: targets of one task that are similar but not the same become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixup.mixture.items import Item
from mixup.mixture.variants import Variants


@dataclass(frozen=True, slots=True)
class FusionSettings:
    """Which targets are fused.

    Attributes:
        share: About the share of targets that enter a fused pair.
        floor: The least cosine of two fused targets; calibrated per encoder.
        ceiling: The cosine from which two targets count as the same, and are not fused.
        most: The most targets of one fused pair.
    """

    share: float = 0.2
    floor: float = 0.5
    ceiling: float = 0.95
    most: int = 3


def fusion_groups(
    vectors_ND: np.ndarray,
    tasks: Sequence[str],
    splits: Sequence[str],
    keys: Sequence[str],
    *,
    seed: int,
    settings: FusionSettings,
) -> list[list[int]]:
    """Disjoint groups of 2 to ``most`` rows of one task and one split, to be fused.

    Args:
        vectors_ND: Unit vectors of the targets.
        tasks: Each target's task.
        splits: Each target's split: a fused pair may not join two.
        keys: Each target's uid.
        seed: The seed.
        settings: The shares and bounds.
    """
    raise NotImplementedError


def fused(items: Sequence[Item], *, seed: int) -> Item:
    """One target that holds what several of one task hold, joined by rule.

    Raises:
        RecordError: With the reason why they cannot be joined.
    """
    raise NotImplementedError


def joined(parts: Sequence[Variants], *, uid: str, seed: int, max_tokens: int) -> Variants:
    """The variants of a fused target: those of its parts, in a mixed order, at most 20."""
    raise NotImplementedError
