"""The batches of a rank, step after step, each made while the one before is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from mixup.training.collate import collate
from mixup.training.plan import BatchPlan, MicroBatch
from mixup.training.tokens import TokenRow


class Rows(Protocol):
    """Rows of tokens by their ids."""

    lengths_N: np.ndarray
    learned_N: np.ndarray

    def __getitem__(self, row: int) -> TokenRow:
        """The row of an id."""
        ...


class SomeRows:
    """Some of the rows of a set, by ids of their own from 0."""

    def __init__(self, rows: Rows, chosen_N: np.ndarray) -> None:
        self._rows, self._chosen_N = rows, chosen_N
        self.lengths_N, self.learned_N = rows.lengths_N[chosen_N], rows.learned_N[chosen_N]

    def __getitem__(self, row: int) -> TokenRow:
        """The row of an id."""
        return self._rows[int(self._chosen_N[row])]


@dataclass(frozen=True)
class StepBatch:
    """What a rank trains at one optimizer step.

    Attributes:
        step: The step, from 0.
        micro_batches: The tensors of each forward pass; every rank has the same number of them.
        learned: The tokens in the loss, over all ranks, which the summed loss is divided by.
        lengths: The tokens of each row of the step, over all ranks.
    """

    step: int
    micro_batches: Sequence[dict[str, torch.Tensor]]
    learned: int
    lengths: Sequence[int]


class StepLoader:
    """The batches of a rank from a step on, as the trainer asks for them.

    Args:
        plan: What is trained at which step.
        rows: The rows that its ids name.
        pad_id: The token of the padding.
        rank: The rank, from 0.
        world: How many ranks there are.
        start: The step to begin with, asked when the first batch is.
        flat: As ``collate`` takes it: for FlashAttention.
    """

    def __init__(
        self,
        plan: BatchPlan,
        rows: Rows,
        pad_id: int,
        *,
        rank: int,
        world: int,
        start: Callable[[], int],
        flat: bool = False,
    ) -> None:
        self._plan, self._rows, self._pad_id = plan, rows, pad_id
        self._rank, self._world, self._start, self._flat = rank, world, start, flat

    def __len__(self) -> int:
        """The steps of the whole training."""
        return self._plan.steps

    def __iter__(self) -> Iterator[StepBatch]:
        """The batches of the steps that are left."""
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
            steps = range(self._start(), len(self))
            coming = thread.submit(self.batch, steps[0]) if steps else None
            for step in steps:
                assert coming is not None  # as long as there are steps there is a next one
                found = coming.result()
                coming = thread.submit(self.batch, step + 1) if step + 1 < len(self) else None
                yield found

    def batch(self, step: int) -> StepBatch:
        """The batch of a step."""
        found = self._plan.micro_batches(step, rank=self._rank, world=self._world)
        micro_batches = [
            tensors(self._rows, micro, self._pad_id, flat=self._flat) for micro in found
        ]
        rows = self._plan.rows_of(step)
        learned, lengths = self._rows.learned_N[rows].sum(), self._rows.lengths_N[rows]
        return StepBatch(step, micro_batches, int(learned), lengths.tolist())


def tensors(
    rows: Rows, micro: MicroBatch, pad_id: int, *, flat: bool = False
) -> dict[str, torch.Tensor]:
    """The tensors of one forward pass."""
    return collate([[rows[row] for row in found] for found in micro], pad_id, flat=flat)
