"""Hashes of the windows of a sequence of word ids, and looking many of them up at once.

A window's hash is a polynomial of its words modulo 2^64, taken from running sums, so that it costs
the same however long the window is and depends on the window's words alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

_BASE = 0x9E3779B97F4A7C15 | 1
_INVERSE = pow(_BASE, -1, 1 << 64)


@dataclass(frozen=True)
class Hashes:
    """Hashes in ascending order, each with what it stands for."""

    hashes_M: np.ndarray
    questions_M: np.ndarray
    starts_M: np.ndarray

    @classmethod
    def of(cls, hashes: np.ndarray, questions: np.ndarray, starts: np.ndarray) -> Hashes:
        """Sort hashes; equal ones keep the order in which they are given."""
        order = np.argsort(hashes, kind="stable")
        return cls(hashes[order], questions[order], starts[order])

    def only(self, kept: np.ndarray) -> Hashes:
        """The rows under a mask."""
        return Hashes(self.hashes_M[kept], self.questions_M[kept], self.starts_M[kept])

    def small(self) -> Hashes:
        """The same in 32 bits, which hold the places of two billion words."""
        return Hashes(
            self.hashes_M, self.questions_M.astype(np.int32), self.starts_M.astype(np.int32)
        )

    def present(self, hashes: np.ndarray) -> np.ndarray:
        """The places in ``hashes`` of those that are held."""
        if not len(self.hashes_M):
            return np.empty(0, np.int64)
        at = np.searchsorted(self.hashes_M, hashes)
        return np.flatnonzero(self.hashes_M[np.minimum(at, len(self.hashes_M) - 1)] == hashes)

    def held(self, value: Any) -> range:
        """The rows of one hash, in the order of the questions."""
        first = int(np.searchsorted(self.hashes_M, value, side="left"))
        return range(first, int(np.searchsorted(self.hashes_M, value, side="right")))


@dataclass
class _Powers:
    """Powers of the base and of its inverse modulo 2^64, made longer as texts need it."""

    powers: np.ndarray = field(default_factory=lambda: np.ones(1, np.uint64))
    inverses: np.ndarray = field(default_factory=lambda: np.ones(1, np.uint64))

    def upto(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        if length > len(self.powers):
            size = max(length, 2 * len(self.powers), 4096)
            self.powers, self.inverses = _geometric(_BASE, size), _geometric(_INVERSE, size)
        return self.powers[:length], self.inverses[:length]


def _geometric(base: int, size: int) -> np.ndarray:
    values = np.ones(1, np.uint64)
    while len(values) < size:
        values = np.concatenate([values, values * np.uint64(pow(base, len(values), 1 << 64))])
    return values


def _mixed(ids: np.ndarray) -> np.ndarray:
    """A 64-bit hash of each word id (splitmix64)."""
    mixed = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


_POWERS = _Powers()


class Text:
    """A sequence of word ids with hashes of any of its windows, and lengths counted in units."""

    def __init__(self, ids: np.ndarray, units: np.ndarray) -> None:
        powers, self._inverses = _POWERS.upto(len(ids) + 1)
        self.ids = ids
        self._sums = np.zeros(len(ids) + 1, np.uint64)
        np.cumsum(_mixed(ids) * powers[:-1], out=self._sums[1:])
        self._units = np.zeros(len(ids) + 1, np.int64)
        np.cumsum(units[ids], out=self._units[1:])

    def hashes(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Hashes of the windows [start, end): equal for equal words, wherever they stand."""
        lengths = (ends - starts).astype(np.uint64)  # so that a window is no prefix of another
        return (self._sums[ends] - self._sums[starts]) * self._inverses[starts] + lengths

    def units(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Units of the windows [start, end)."""
        return self._units[ends] - self._units[starts]

    def windows(self, units: int) -> tuple[np.ndarray, np.ndarray]:
        """Starts and ends of the shortest windows of at least some units; one for each start."""
        ends = np.searchsorted(self._units, self._units[:-1] + units)
        starts = np.flatnonzero(ends < len(self._units))
        return starts, ends[starts]
