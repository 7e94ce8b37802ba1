"""What stands in TRL's place for vLLM: the pool of engines, fed with the trainer's weights.

TRL asks its ``vllm_generation`` for two things, ``sync_weights()`` before it generates at a new
step, and ``generate(...)``. Each rank asks the engines for its own prompts.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from mixup.errors import ShapeError
from mixup.training.checkpoints import Ranks
from mixup.training.grpo.engines import Rollout, RolloutRequest, Sampling
from mixup.training.grpo.gate import Gap, Gate
from mixup.training.grpo.pool import EnginePool
from mixup.training.grpo.weights import WeightPush, named_weights


class EngineGeneration:
    """The engines as one rank's trainer uses them.

    Attributes:
        seeds: Of the rollouts that are asked for next, one each.
        last: The rollouts that came last.
        gaps: What the gate measured last, by engine; on rank 0 only.
        seconds: What was spent since it was last emptied: ``push``, ``gate``, ``generate``.
    """

    def __init__(
        self, pool: EnginePool, push: WeightPush, gate: Gate, sampling: Sampling, ranks: Ranks
    ) -> None:
        """Made on every rank.

        Args:
            pool: The engines.
            push: The way of the weights.
            gate: What compares them.
            sampling: How rollouts are drawn.
            ranks: The ranks, which wait for each other around a push.
        """
        self._pool, self._push, self._gate = pool, push, gate
        self._sampling, self._ranks = sampling, ranks
        self._model: nn.Module | None = None
        self._step: Callable[[], int] = lambda: 0
        self._version: int | None = None
        self.seeds: list[int] = []
        self.last: list[Rollout] = []
        self.gaps: list[Gap] = []
        self.seconds: Counter[str] = Counter()

    def bind(self, model: nn.Module, step: Callable[[], int]) -> None:
        """Take the trained model, and where to ask for the step at which it stands.

        The version of weights is the step: the optimizer steps that made them.
        """
        self._model, self._step = model, step

    def sync_weights(self) -> None:
        """Have all engines hold the model as it is now, and prove it; every rank must call it.

        Raises:
            WrongWeights: If an engine does not hold it.
            StalledError: If an engine is stuck.
        """
        version = self._step()
        if version == self._version:
            return
        assert self._model is not None  # bound as the trainer is made
        start = time.monotonic()
        self._push.push(named_weights(self._model, dtype=self._gate.dtype), version)
        self._ranks.barrier()
        pushed = time.monotonic()
        self.gaps = self._gate.check(self._model, version)
        self._ranks.barrier()  # nobody generates before the gate is passed
        self._version = version
        self.seconds.update({"push": pushed - start, "gate": time.monotonic() - pushed})

    def generate(
        self, prompts: Sequence[list[int]], images: Any, num_generations: int, profiler: Any
    ) -> tuple[list[list[int]], list[list[int]], list[list[list[float]]], None]:
        """Rollouts of this rank's prompts, in TRL's form.

        Args:
            prompts: Token ids; a prompt is in it as often as it is to be answered.
            images: None.
            num_generations: Not looked at: see ``prompts``.
            profiler: TRL's, a context.

        Returns:
            The prompts; the completions; the log-probability of each token, in a list of one; None.

        Raises:
            ShapeError: If there are images, or not one seed for each prompt.
        """
        if images is not None or len(self.seeds) != len(prompts):
            raise ShapeError(
                f"{len(prompts)} prompts with {len(self.seeds)} seeds and "
                f"{'some' if images is not None else 'no'} images; expected a seed each, no images"
            )
        requests = [
            RolloutRequest(ids, seed) for ids, seed in zip(prompts, self.seeds, strict=True)
        ]
        with profiler:
            self.last = self.complete(requests, self._sampling)
        completions = [rollout.token_ids for rollout in self.last]
        logprobs = [[[one] for one in rollout.logprobs] for rollout in self.last]
        return list(prompts), completions, logprobs, None

    def complete(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[Rollout]:
        """Complete requests by the weights that were pushed last; results in their order.

        Raises:
            ShapeError: If none were pushed.
        """
        if self._version is None:
            raise ShapeError("no weights were pushed yet: call sync_weights() first")
        start = time.monotonic()
        found = self._pool.generate(requests, sampling, self._version, first=self._ranks.rank)
        self.seconds["generate"] += time.monotonic() - start  # type: ignore[reportArgumentType]
        return found
