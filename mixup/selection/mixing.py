"""Ranking of candidates, and how many distilled and original rows a release takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mixup.errors import ConfigError, ShapeError
from mixup.records import content_key

QUALITY_STEPS = 100
"""Quality is ranked in steps of 1 / this, so that the long-tail score decides near-ties."""


def rank(quality_N: np.ndarray, long_tail_N: np.ndarray, keys: Sequence[str]) -> np.ndarray:
    """The rows from best to worst, int64: quality, then long-tail score, then key.

    Quality is compared after rounding to two decimals: a posterior is not more exact than that,
    and among equally good rows the rarer one teaches more. A row without a long-tail score (NaN)
    comes after those of the same quality that have one.

    Raises:
        ShapeError: Lengths differ, or a quality is NaN: rows of unknown quality are not ranked.

    Source: spec/lm-mixup.md, section 4.2 step 8 and section 9, decision 10.
    """
    quality = np.asarray(quality_N, dtype=np.float64)
    long_tail = np.asarray(long_tail_N, dtype=np.float64)
    if quality.shape != (len(keys),) or long_tail.shape != (len(keys),):
        raise ShapeError(f"{len(keys)} keys, quality {quality.shape}, long tail {long_tail.shape}")
    if np.isnan(quality).any():
        raise ShapeError("quality is NaN in some rows; leave out rows of unknown quality")
    names = np.asarray(keys, dtype=np.str_)
    return np.lexsort((names, -long_tail, -np.rint(quality * QUALITY_STEPS)))


@dataclass(frozen=True)
class MixSizes:
    """How many rows of each part a release takes.

    Attributes:
        distilled: Distilled rows taken.
        originals: Original rows taken.
        wanted_distilled: The target of the distilled part.
        wanted_originals: The target of the original part.
        short: Rows missing to the size asked for.
    """

    distilled: int
    originals: int
    wanted_distilled: int
    wanted_originals: int
    short: int


def mix(
    n_distilled: int,
    n_originals: int,
    *,
    size: int,
    distilled_share: float,
    policy: Literal["shrink", "fill", "fail"],
) -> MixSizes:
    """The sizes of both parts of a release.

    The distilled target is size x share, halves rounded up; the originals have the rest. Each
    part takes what it has, up to its target. With ``fill`` a part that is short is made up by the
    other, so the share may be missed. ``fail`` gives the sizes of ``shrink``; the caller refuses
    a release where ``short`` is above 0.

    Raises:
        ConfigError: A negative number, a share outside 0 to 1, or an unknown policy.
    """
    if min(n_distilled, n_originals, size) < 0 or not 0 <= distilled_share <= 1:
        raise ConfigError(
            f"{n_distilled} distilled, {n_originals} originals, size {size}, share "
            f"{distilled_share}: expected no negative number and a share from 0 to 1"
        )
    if policy not in ("shrink", "fill", "fail"):
        raise ConfigError(f"shortfall policy {policy!r}; expected shrink, fill or fail")
    wanted_distilled = math.floor(size * distilled_share + 0.5)
    wanted_originals = size - wanted_distilled
    distilled = min(n_distilled, wanted_distilled)
    originals = min(n_originals, wanted_originals)
    if policy == "fill":
        distilled = min(n_distilled, size - originals)
        originals = min(n_originals, size - distilled)
    short = size - distilled - originals
    return MixSizes(distilled, originals, wanted_distilled, wanted_originals, short)


def seeded_order(keys: Sequence[str], seed: int) -> list[int]:
    """The rows in an order that looks random and depends only on their keys and the seed.

    Rows that are added or taken away leave the relative order of the others as it was.
    """
    return sorted(range(len(keys)), key=lambda row: (content_key(seed, keys[row]), keys[row]))


@dataclass(frozen=True)
class Ranked:
    """Candidates from best to worst."""

    keys: list[str]
    quality_N: np.ndarray
    long_tail_N: np.ndarray


class TopRanked:
    """The best ``limit`` of a stream of candidates, by ``rank``, in any order of arrival.

    Holds at most 2 x limit candidates and one batch. Keys must be distinct over all batches.
    """

    def __init__(self, limit: int) -> None:
        """An empty accumulator.

        Raises:
            ConfigError: The limit is negative.
        """
        if limit < 0:
            raise ConfigError(f"limit is {limit}; expected 0 or more")
        self.limit = limit
        self._best = _ranked([], np.empty(0), np.empty(0), limit)

    def add(self, keys: Sequence[str], quality_N: np.ndarray, long_tail_N: np.ndarray) -> None:
        """Takes in a batch.

        Raises:
            ShapeError: As ``rank``.
        """
        batch = _ranked(list(keys), np.asarray(quality_N), np.asarray(long_tail_N), self.limit)
        self._best = _ranked(
            self._best.keys + batch.keys,
            np.concatenate([self._best.quality_N, batch.quality_N]),
            np.concatenate([self._best.long_tail_N, batch.long_tail_N]),
            self.limit,
        )

    def result(self) -> Ranked:
        """The best so far, best first."""
        return self._best


def _ranked(keys: list[str], quality: np.ndarray, long_tail: np.ndarray, limit: int) -> Ranked:
    best = rank(quality, long_tail, keys)[:limit]
    return Ranked([keys[row] for row in best], quality[best], long_tail[best])
