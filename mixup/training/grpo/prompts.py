"""The rows of a prompt set, and which of them are asked at which step."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from mixup.errors import ConfigError, TableError
from mixup.records import PROMPT_ROWS, PROMPT_SETS, content_key
from mixup.training.plan import seeded_order
from mixup.workspace import Workspace

_VERSION = "rollouts-v1"
_KEPT_GROUPS = 64


@dataclass(frozen=True)
class PromptRow:
    """A prompt and what its answers are held against.

    Attributes:
        pair: The pair's key.
        task: Its task.
        messages: A system and a user message.
        items: What an answer should cover.
        target: The gold answer.
    """

    pair: str
    task: str
    messages: list[dict[str, str]]
    items: tuple[str, ...]
    target: str

    @property
    def question(self) -> str:
        """What is asked."""
        return self.messages[-1]["content"]


class PromptRows:
    """The rows of a prompt set, a map-style data set that holds the row groups read last.

    Args:
        workspace: Where the set is.
        name: The set's name.

    Raises:
        TableError: If there is no such set.
    """

    def __init__(self, workspace: Workspace, name: str) -> None:
        self._place = (workspace, name)
        filesystem, root = workspace.filesystem()
        folder = f"{PROMPT_SETS}/{name}"
        parts = [part for part in workspace.list(folder) if part.endswith(".parquet")]
        if not parts:
            raise TableError(f"no prompt set {name!r} in {workspace.uri}; run the job again")
        self._files = [
            pq.ParquetFile(f"{root}/{folder}/{part}", filesystem=filesystem) for part in parts
        ]
        self._groups = [
            (place, group)
            for place, file in enumerate(self._files)
            for group in range(file.num_row_groups)
        ]
        counts = [self._files[place].metadata.row_group(g).num_rows for place, g in self._groups]
        self._ends = np.cumsum(counts)
        self._read: OrderedDict[int, list[dict[str, Any]]] = OrderedDict()

    def __len__(self) -> int:
        """The rows of the set."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, row: int) -> PromptRow:
        """The row of an id, from 0.

        Raises:
            IndexError: If there is no such row.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        group = int(np.searchsorted(self._ends, row, side="right"))
        start = int(self._ends[group - 1]) if group else 0
        found = self._group(group)[row - start]
        return PromptRow(
            pair=found["pair"],
            task=found["task"],
            messages=[
                {"role": "system", "content": found["system"]},
                {"role": "user", "content": found["user"]},
            ],
            items=tuple(found["items"]),
            target=found["target"],
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """The place of the set; what was read is read again."""
        return PromptRows, self._place

    def _group(self, group: int) -> list[dict[str, Any]]:
        if group in self._read:
            self._read.move_to_end(group)
            return self._read[group]
        place, number = self._groups[group]
        rows = self._files[place].read_row_group(number, columns=PROMPT_ROWS.names)
        found = self._read[group] = rows.to_pylist()
        if len(self._read) > _KEPT_GROUPS:
            self._read.popitem(last=False)
        return found


@dataclass(frozen=True)
class RolloutPlan:
    """Which prompts are asked at which step: a function of the seed and the settings alone.

    Every epoch takes its rows in an order of its own; a rest that fills no step is left for the
    next epoch's order. The world size decides only which rank asks which of a step's prompts.

    Attributes:
        rows: The rows of the set.
        prompts: Prompts of one step, over all ranks.
        minibatches: Optimizer updates of one step.
        seed: Of the order.
        set: The name of the prompt set.
        epochs: How often every row is asked.
        max_steps: The plan ends after so many steps, if it is not shorter anyway.
        max_rows: At most so many rows are asked, drawn by the seed.
    """

    rows: int
    prompts: int
    minibatches: int
    seed: int
    set: str
    epochs: float = 1.0
    max_steps: int | None = None
    max_rows: int | None = None

    def __post_init__(self) -> None:
        """Refuses what cannot be planned.

        Raises:
            ConfigError: If there are fewer rows than one step asks, or the minibatches do not come
                out even.
        """
        if self.chosen < self.prompts:
            raise ConfigError(
                f"there are {self.chosen} prompts, and one step asks {self.prompts} "
                "(rollouts.prompts); give more, or lower it"
            )
        if self.prompts % self.minibatches:
            raise ConfigError(
                f"{self.prompts} prompts do not come out even in {self.minibatches} minibatches"
            )

    @property
    def chosen(self) -> int:
        """The rows that are asked."""
        return min(self.rows, self.max_rows or self.rows)

    @property
    def steps_per_epoch(self) -> int:
        """The steps of an epoch."""
        return self.chosen // self.prompts

    @property
    def steps(self) -> int:
        """The steps of the whole training."""
        steps = max(1, math.ceil(self.steps_per_epoch * self.epochs - 1e-9))
        return steps if self.max_steps is None else min(steps, self.max_steps)

    @property
    def fingerprint(self) -> str:
        """A key of what decides the prompts of each step."""
        decides = [self.rows, self.prompts, self.minibatches, self.seed, self.set, self.max_rows]
        return content_key(_VERSION, decides, self.epochs, self.max_steps)

    def minibatches_of(self, step: int, *, rank: int, world: int) -> list[list[int]]:
        """The rows that a rank asks at a step, by the update that learns from them.

        Raises:
            ConfigError: If the step or the rank is out of range, or an update's prompts do not come
                out even among the ranks.
        """
        if not (0 <= rank < world and 0 <= step < self.steps):
            raise ConfigError(f"step {step} of {self.steps}, rank {rank} of {world}: out of range")
        each = self.prompts // self.minibatches
        if each % world:
            raise ConfigError(f"{each} prompts of an update do not come out even for {world} ranks")
        epoch, place = divmod(step, self.steps_per_epoch)
        drawn = seeded_order(self.rows, self.seed, _DRAWN)[: self.chosen]
        ordered = drawn[seeded_order(self.chosen, self.seed, _EPOCH, epoch)]
        rows = ordered[place * self.prompts : (place + 1) * self.prompts]
        own = rows.reshape(self.minibatches, world, each // world)[:, rank]
        return own.tolist()


_DRAWN, _EPOCH = 11, 12  # apart from what a plan of fine-tuning draws
