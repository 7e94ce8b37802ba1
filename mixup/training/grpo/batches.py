"""What a rank asks at a step, and how its rollouts go through the model in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mixup.training.grpo.prompts import PromptRow, PromptRows, RolloutPlan

_LOSS = ("old_per_token_logps", "ref_per_token_logps", "sampling_per_token_logps")


@dataclass(frozen=True)
class PromptBatch:
    """What a rank asks at a step.

    Attributes:
        step: The step, from 0.
        minibatches: The prompts, by the update that learns from them; every rank has as many.
    """

    step: int
    minibatches: Sequence[Sequence[PromptRow]]


class PromptLoader:
    """The prompts of a rank from a step on, as the trainer asks for them.

    Args:
        plan: Which prompts are asked at which step.
        rows: The rows that its ids name.
        rank: The rank, from 0.
        world: How many ranks there are.
        start: The step to begin with, asked when the first batch is.
    """

    def __init__(
        self,
        plan: RolloutPlan,
        rows: PromptRows,
        *,
        rank: int,
        world: int,
        start: Callable[[], int],
    ) -> None:
        self._plan, self._rows, self._start = plan, rows, start
        self._rank, self._world = rank, world

    def __len__(self) -> int:
        """The steps of the whole training."""
        return self._plan.steps

    def __iter__(self) -> Iterator[PromptBatch]:
        """The batches of the steps that are left."""
        for step in range(self._start(), len(self)):
            found = self._plan.minibatches_of(step, rank=self._rank, world=self._world)
            yield PromptBatch(step, [[self._rows[row] for row in rows] for rows in found])


def in_parts(
    rollouts: dict[str, Any], places: Sequence[int], most: int
) -> list[dict[str, torch.Tensor]]:
    """Some rollouts in the parts that go through the model at once, those of like length together.

    Args:
        rollouts: Tensors of one row a rollout, as TRL makes them: prompts padded on the left,
            completions on the right; ``kept``, which of them are in the loss.
        places: The rows that are meant.
        most: The most rollouts of a part.
    """
    lengths_B = rollouts["prompt_mask"].sum(1) + rollouts["completion_mask"].sum(1)
    ordered = sorted(places, key=lambda place: (-int(lengths_B[place]), place))
    parts = [ordered[start : start + most] for start in range(0, len(ordered), most)]
    return [_part(rollouts, part) for part in parts]


def _part(rollouts: dict[str, Any], places: list[int]) -> dict[str, torch.Tensor]:
    """Some rows, without the padding that all of them have."""
    rows = torch.tensor(places, device=rollouts["prompt_ids"].device)
    before = int(rollouts["prompt_mask"][rows].sum(1).max())
    after = int(rollouts["completion_mask"][rows].sum(1).max())
    found = {
        **{name: rollouts[name][rows][:, -before:] for name in ("prompt_ids", "prompt_mask")},
        **{
            name: rollouts[name][rows][:, :after]
            for name in ("completion_ids", "completion_mask", *_LOSS)
            if name in rollouts
        },
        "advantages": rollouts["advantages"][rows],
    }
    found["loss_mask"] = found["completion_mask"] * rollouts["kept"][rows][:, None]
    return found
