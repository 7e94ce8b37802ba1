"""Advantages of groups of rollouts, pure: from rewards to how much each rollout is worth.

A reward that could not be computed is NaN. It is no number: it counts in no mean, its rollout is
left out of the loss, and a group with too few rewards says nothing about its others either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mixup.errors import ConfigError, ShapeError

Scale = Literal["group", "batch", "none"]

NO_REWARD = "no_reward"
FEW_REWARDS = "few_rewards"
ZERO_VARIANCE = "zero_variance"
"""The reasons for which a rollout is left out of the loss."""


@dataclass(frozen=True)
class Advantages:
    """What a batch of groups says.

    Attributes:
        values_N: The advantage of each rollout; 0 for those that are left out.
        kept_N: Which rollouts are in the loss.
        reasons: Why a rollout is left out; None for the others.
        groups: How many groups there are.
        few: How many of them have too few rewards.
        constant: How many of the others have rewards that are all equal.
        missing: How many rollouts have no reward.
    """

    values_N: np.ndarray
    kept_N: np.ndarray
    reasons: tuple[str | None, ...]
    groups: int
    few: int
    constant: int
    missing: int


def group_advantages(
    rewards_N: np.ndarray,
    group: int,
    *,
    scale: Scale = "group",
    floor: float,
    least: int = 2,
    drop_constant: bool = False,
) -> Advantages:
    """Each rollout's reward over the mean of its group, in deviations.

    All groups must be there: the rewards of all ranks, since groups may lie across ranks and the
    scale of a batch is of all of it. Each rank takes its part of the result.

    Source: GRPO, ``(r - mean) / std`` with the unbiased deviation. The deviation is floored, where
    the released code adds 1e-6 to it: a group whose rewards differ by rounding would otherwise get
    advantages as large as one that tells good from bad. Dr. GRPO is ``scale="none"``.

    Args:
        rewards_N: Rewards in the order of groups, ``group`` of each; NaN where there is none.
        group: Rollouts of each prompt.
        scale: Whose deviation advantages are divided by: the group's, all rollouts', or none.
        floor: The least deviation.
        least: The rewards that a group needs.
        drop_constant: Whether groups of equal rewards are left out of the loss; else they stay in
            it with advantages of 0, and still feel the KL term.

    Raises:
        ShapeError: If the rewards are not whole groups.
        ConfigError: If the floor or the least number cannot work.
    """
    _check(rewards_N, group, scale=scale, floor=floor, least=least)
    rewards_PG = np.asarray(rewards_N, np.float64).reshape(-1, group)
    there_PG = np.isfinite(rewards_PG)
    counts_P = there_PG.sum(1)
    enough_P = counts_P >= least
    filled_PG = np.where(there_PG, rewards_PG, 0.0)
    means_P = filled_PG.sum(1) / np.maximum(counts_P, 1)
    centered_PG = np.where(there_PG, rewards_PG - means_P[:, None], 0.0)
    highest_P = np.where(there_PG, rewards_PG, -np.inf).max(1)
    lowest_P = np.where(there_PG, rewards_PG, np.inf).min(1)
    constant_P = enough_P & (highest_P == lowest_P)
    centered_PG[constant_P] = 0.0  # not the rounding of a mean
    used_PG = there_PG & enough_P[:, None]
    values_PG = centered_PG / _deviations(rewards_PG, centered_PG, used_PG, scale, floor)[:, None]
    kept_PG = used_PG & ~constant_P[:, None] if drop_constant else used_PG
    return Advantages(
        values_N=np.where(kept_PG, values_PG, 0.0).reshape(-1),
        kept_N=kept_PG.reshape(-1),
        reasons=_reasons(there_PG, enough_P, kept_PG),
        groups=len(rewards_PG),
        few=int((~enough_P).sum()),
        constant=int(constant_P.sum()),
        missing=int((~there_PG).sum()),
    )


def _check(rewards_N: np.ndarray, group: int, *, scale: str, floor: float, least: int) -> None:
    if np.ndim(rewards_N) != 1 or group < 1 or len(rewards_N) % group:
        raise ShapeError(f"rewards of shape {np.shape(rewards_N)} are not whole groups of {group}")
    if scale not in ("group", "batch", "none"):
        raise ConfigError(f"scale {scale!r} is none of group, batch, none")
    if not floor > 0:
        raise ConfigError(f"the floor of the deviation is {floor}; it must be above 0")
    if not 2 <= least <= group:
        raise ConfigError(f"a group of {group} cannot need {least} rewards; give 2 to {group}")


def _deviations(
    rewards_PG: np.ndarray, centered_PG: np.ndarray, used_PG: np.ndarray, scale: str, floor: float
) -> np.ndarray:
    """What the centered rewards of each group are divided by."""
    ones_P = np.ones(len(rewards_PG))
    if scale == "none":
        return ones_P
    if scale == "batch":
        used = rewards_PG[used_PG]
        return ones_P * max(floor, float(used.std(ddof=1)) if used.size > 1 else 0.0)
    squares_P = (np.where(used_PG, centered_PG, 0.0) ** 2).sum(1)
    return np.maximum(floor, np.sqrt(squares_P / np.maximum(used_PG.sum(1) - 1, 1)))


def _reasons(
    there_PG: np.ndarray, enough_P: np.ndarray, kept_PG: np.ndarray
) -> tuple[str | None, ...]:
    reasons_PG = np.full(there_PG.shape, None, dtype=object)
    reasons_PG[~kept_PG] = ZERO_VARIANCE
    reasons_PG[~enough_P] = FEW_REWARDS
    reasons_PG[~there_PG] = NO_REWARD
    return tuple(reasons_PG.reshape(-1))
