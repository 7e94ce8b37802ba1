"""Which targets are fused: rows of one task and split that are similar but not the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixup.errors import ConfigError, ShapeError
from mixup.mixture.items import generator_of
from mixup.quality.neighbors import rounded, top_k, unit_vectors

_LOOKED_AT = 32
_PAIRED_TASKS = ("tfq", "mcq")
"""Tasks of which no more than two targets are fused: three statements make no statement."""


@dataclass(frozen=True, slots=True)
class FusionSettings:
    """Which targets are fused.

    Attributes:
        share: About the share of targets that enter a fused pair, where all have neighbors.
        floor: The least cosine of two fused targets; calibrated per encoder.
        ceiling: The cosine from which two targets count as the same, and are not fused.
        most: The most targets of one fused pair.
    """

    share: float = 0.2
    floor: float = 0.5
    ceiling: float = 0.95
    most: int = 3

    def __post_init__(self) -> None:
        """Refuses bounds that contradict each other.

        Raises:
            ConfigError: A bound or the share is out of its range.
        """
        if not 0 <= self.share <= 1 or not -1 <= self.floor < self.ceiling or self.most < 2:
            raise ConfigError(
                f"fusion: share {self.share}, floor {self.floor}, ceiling {self.ceiling}, most "
                f"{self.most}; expected a share of 0 to 1, floor < ceiling, most 2 or more"
            )


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

    Some rows are drawn by their keys; each takes the nearest rows that are free, similar enough to
    it and not the same as one taken. The groups do not depend on the order of the rows.

    Args:
        vectors_ND: Unit vectors of the targets.
        tasks: Each target's task.
        splits: Each target's split: a fused pair may not join two.
        keys: Each target's uid, distinct.
        seed: The seed.
        settings: The shares and bounds.

    Raises:
        ShapeError: The vectors are no unit vectors, or lengths differ.
    """
    vectors = unit_vectors(vectors_ND)
    if not len(vectors) == len(tasks) == len(splits) == len(keys):
        raise ShapeError(f"{len(vectors)} vectors, {len(tasks)} tasks, {len(keys)} keys")
    rows_of: dict[tuple[str, str], list[int]] = {}
    for row in sorted(range(len(keys)), key=keys.__getitem__):
        rows_of.setdefault((tasks[row], splits[row]), []).append(row)
    groups: list[list[int]] = []
    for (task, _), rows in sorted(rows_of.items()):
        most = 2 if task in _PAIRED_TASKS else settings.most
        groups += _groups_of(vectors[rows], rows, keys, seed, replace(settings, most=most))
    return groups


def _groups_of(
    vectors_ND: np.ndarray,
    rows: Sequence[int],
    keys: Sequence[str],
    seed: int,
    settings: FusionSettings,
) -> list[list[int]]:
    """The groups of the rows of one task and split, as rows of the whole."""
    draws = [generator_of("fusion", keys[row], seed) for row in rows]
    sizes = [draw.randint(2, settings.most) for draw in draws]
    chance = settings.share / (1 + settings.most / 2)  # a seed takes (2 + most) / 2 rows
    ranks = [draw.random() for draw in draws]
    seeds = sorted((at for at in range(len(rows)) if ranks[at] < chance), key=ranks.__getitem__)
    if not seeds or len(rows) < 2:
        return []
    near = top_k(vectors_ND[seeds], vectors_ND, _LOOKED_AT, own_M=np.array(seeds))
    taken: set[int] = set()
    groups = []
    for place, first in enumerate(seeds):
        if first in taken:
            continue
        group = [first]
        for at, cosine in zip(near.indices_MK[place], near.similarities_MK[place], strict=True):
            if cosine < settings.floor or len(group) == sizes[first]:
                break
            if int(at) not in taken and _is_apart(vectors_ND, int(at), group, settings.ceiling):
                group.append(int(at))
        if len(group) > 1:
            taken.update(group)
            groups.append([rows[at] for at in group])
    return groups


def _is_apart(vectors_ND: np.ndarray, at: int, group: list[int], ceiling: float) -> bool:
    return bool((rounded(vectors_ND[group] @ vectors_ND[at]) < ceiling).all())
