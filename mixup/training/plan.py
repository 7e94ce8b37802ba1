"""What is trained at which optimizer step: a function of the seed, the lengths and the settings.

The world size decides only which rank takes which micro-batch of a step. So the position of a run
is its step, a run resumes on another number of workers, and every rank computes the plan by itself.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from blake3 import blake3

from mixup.errors import ConfigError, ShapeError
from mixup.records import content_key
from mixup.training.packing import best_fit

MicroBatch = list[list[int]]
"""Sequences, each the ids of the rows in it; an empty one is a rank's that has nothing to do."""

_VERSION = "plan-v1"
_PACK, _EPOCH, _BATCHES = 0, 1, 2  # what is drawn


@dataclass(frozen=True)
class PlanSettings:
    """What decides a plan besides the rows.

    Attributes:
        window: The longest sequence, in tokens.
        batch: Sequences of one optimizer step, over all ranks.
        micro: The most sequences of one forward pass of a rank.
        epochs: How often every row is trained; a fraction ends within an epoch.
        packing: Whether rows share sequences; if not, each row is one, grouped by length.
        max_steps: The plan ends after so many steps, if it is not shorter anyway.
        group_batches: Without packing, rows are sorted by length within so many batches.
        seed: Of the order.
    """

    window: int
    batch: int
    micro: int = 1
    epochs: float = 1.0
    packing: bool = False
    max_steps: int | None = None
    group_batches: int = 8
    seed: int = 42


class BatchPlan:
    """The micro-batches of every step, rank and world size.

    Every epoch has every row once. Its last step has the rest, which may be fewer sequences than
    the others. Packing is done once, in a seeded order; the sequences then come in another order in
    each epoch, so that all epochs have the same number of steps.

    Args:
        lengths_N: The tokens of each row.
        settings: What else decides the plan.
        rows_N: The ids of the rows that are trained; all of them without it.

    Raises:
        ConfigError: If a setting is out of range, or there are no rows.
        ShapeError: If a row is empty or longer than the window.
    """

    def __init__(
        self, lengths_N: np.ndarray, settings: PlanSettings, rows_N: np.ndarray | None = None
    ) -> None:
        _check(settings)
        rows = np.arange(len(lengths_N)) if rows_N is None else np.asarray(rows_N, dtype=np.int64)
        lengths = np.asarray(lengths_N, dtype=np.int64)[rows]
        _check_lengths(lengths, settings.window)
        self.settings = settings
        decides = {name: value for name, value in asdict(settings).items() if name != "micro"}
        self._key = content_key(
            *(_VERSION, decides),
            *(blake3(part.tobytes()).hexdigest(length=16) for part in (rows, lengths)),
        )
        sequence_N = np.arange(len(rows))
        if settings.packing:
            order = seeded_order(len(rows), settings.seed, _PACK)
            sequence_N = best_fit(lengths, order, settings.window)
        by_sequence = np.argsort(sequence_N, kind="stable")
        counts_S = np.bincount(sequence_N)
        self._rows = rows[by_sequence]
        self._starts = np.concatenate([[0], np.cumsum(counts_S)])
        self._tokens_S = np.bincount(sequence_N, weights=lengths).astype(np.int64)
        self._epoch: tuple[int, np.ndarray] | None = None

    @property
    def fingerprint(self) -> str:
        """A key of what decides the rows of each step: a run resumes under the same one only.

        How many sequences go through one forward pass is not among it.
        """
        return self._key

    @property
    def sequences(self) -> int:
        """The sequences of an epoch."""
        return len(self._tokens_S)

    @property
    def tokens(self) -> int:
        """The tokens of an epoch, without padding."""
        return int(self._tokens_S.sum())

    @property
    def fill(self) -> float:
        """The share of the sequences' windows that holds tokens, in 0 to 1."""
        return self.tokens / (self.sequences * self.settings.window)

    @property
    def steps_per_epoch(self) -> int:
        """The optimizer steps of an epoch."""
        return -(-self.sequences // self.settings.batch)

    @property
    def steps(self) -> int:
        """The optimizer steps of the whole run."""
        steps = max(1, math.ceil(self.steps_per_epoch * self.settings.epochs - 1e-9))
        return steps if self.settings.max_steps is None else min(steps, self.settings.max_steps)

    def epoch_of(self, step: int) -> int:
        """The epoch, from 0, that a step belongs to."""
        return step // self.steps_per_epoch

    def rows_of(self, step: int) -> np.ndarray:
        """The ids of the rows of a step, over all ranks, int64."""
        return np.array(
            [row for sequence in self._batch(step) for row in self._in(sequence)], dtype=np.int64
        )

    def micro_batches(self, step: int, *, rank: int, world: int) -> list[MicroBatch]:
        """What one rank trains at a step.

        Every rank gets the same number of micro-batches, since all must take part in each forward
        pass of a sharded model. Where they do not come out even the last ones are empty:
        ``collate`` makes of an empty one a row of padding that weighs nothing in the loss.

        Args:
            step: From 0 to ``steps`` - 1.
            rank: From 0 to ``world`` - 1.
            world: How many ranks there are.

        Raises:
            ConfigError: If the step or the rank is out of range.
        """
        if not 0 <= rank < world:
            raise ConfigError(f"rank {rank} of {world}: expected 0 to {world - 1}")
        batch, micro = self._batch(step), self.settings.micro
        micros = [batch[start : start + micro] for start in range(0, len(batch), micro)]
        costs = [int(self._tokens_S[found].max()) * len(found) for found in micros]
        own = [micros[place] for place in _dealt(costs, rank, world)]
        most = -(-len(micros) // world)
        filled = [[self._in(sequence) for sequence in found] for found in own]
        return [*filled, *([] for _ in range(most - len(own)))]

    def _in(self, sequence: int) -> list[int]:
        return self._rows[self._starts[sequence] : self._starts[sequence + 1]].tolist()

    def _batch(self, step: int) -> np.ndarray:
        """The sequences of a step."""
        if not 0 <= step < self.steps:
            raise ConfigError(f"step {step}: expected 0 to {self.steps - 1}")
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = (epoch, self._ordered(epoch))
        start = place * self.settings.batch
        return self._epoch[1][start : start + self.settings.batch]

    def _ordered(self, epoch: int) -> np.ndarray:
        """The sequences in the order in which an epoch takes them."""
        seed, size = self.settings.seed, self.settings.batch
        order = seeded_order(self.sequences, seed, _EPOCH, epoch)
        if self.settings.packing:
            return order
        # The rest is drawn before anything is sorted, or the shortest rows would always be last.
        whole = len(order) - len(order) % size
        reach = self.settings.group_batches * size
        groups = [order[start : min(start + reach, whole)] for start in range(0, whole, reach)]
        by_length = [part[np.argsort(-self._tokens_S[part], kind="stable")] for part in groups]
        batches = np.concatenate([*by_length, order[:0]]).reshape(-1, size)
        shuffled = batches[seeded_order(len(batches), seed, _BATCHES, epoch)].reshape(-1)
        rest = order[whole:]
        return np.concatenate([shuffled, rest[np.argsort(-self._tokens_S[rest], kind="stable")]])


def seeded_order(count: int, *seeds: int) -> np.ndarray:
    """A permutation of ``count`` places, int64, that only the seeds decide.

    The places are sorted by a 64-bit mix of the seeds and the place (the finalizer of splitmix64):
    NumPy promises the streams of its generators for no later version.
    """
    state = np.uint64(0)
    for seed in seeds:
        state = _mixed(state ^ np.uint64(seed % 2**64))
    return np.argsort(_mixed(_mixed(np.arange(count, dtype=np.uint64)) ^ state), kind="stable")


def _mixed(value: np.ndarray | np.uint64) -> np.ndarray:
    with np.errstate(over="ignore"):
        mixed = np.asarray(value, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


def _dealt(costs: list[int], rank: int, world: int) -> list[int]:
    """The places that a rank gets when they are dealt out, dearest first, to and fro."""
    dearest = sorted(range(len(costs)), key=lambda place: (-costs[place], place))
    rounds = [dearest[start : start + world] for start in range(0, len(dearest), world)]
    turns = [rank if number % 2 == 0 else world - 1 - rank for number in range(len(rounds))]
    return [places[turn] for places, turn in zip(rounds, turns, strict=True) if turn < len(places)]


def _check(settings: PlanSettings) -> None:
    for name in ("window", "batch", "micro", "group_batches"):
        if (value := getattr(settings, name)) < 1:
            raise ConfigError(f"{name} {value}: expected 1 or more")
    if not settings.epochs > 0:
        raise ConfigError(f"epochs {settings.epochs}: expected more than 0")
    if settings.max_steps is not None and settings.max_steps < 1:
        raise ConfigError(f"max_steps {settings.max_steps}: expected 1 or more, or null")


def _check_lengths(lengths: np.ndarray, window: int) -> None:
    if not len(lengths):
        raise ConfigError("there are no rows to train on; see what was left out, and why")
    if lengths.min() < 1 or lengths.max() > window:
        raise ShapeError(
            f"rows of {lengths.min()} to {lengths.max()} tokens; expected 1 to the window, {window}"
        )
