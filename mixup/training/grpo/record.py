"""Rollouts written down by a rank: a file of the table a step, which the driver commits."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixup.errors import StalledError
from mixup.training.grpo.engines import Rollout
from mixup.training.grpo.rollouts import RolloutRow, write_rollouts
from mixup.training.grpo.scoring import Scored
from mixup.workspace import Workspace

_POLL_S = 0.1


class RolloutRecord:
    """Writes one rank's rollouts.

    Args:
        workspace: The workspace.
        training: The training that they belong to.
        attempt: The attempt.
        sink: The ``RolloutSink``.
        timeout_s: How long the driver may take to commit.
    """

    def __init__(
        self, workspace: Workspace, training: str, attempt: int, sink: Any, timeout_s: float
    ) -> None:
        self._workspace, self._training = workspace, training
        self._attempt, self._sink, self._timeout_s = attempt, sink, timeout_s

    def write(
        self,
        step: int,
        asked: Sequence[Mapping[str, Any]],
        rollouts: Sequence[Rollout],
        texts: Sequence[str],
        scored: Sequence[Scored],
        advantages_N: np.ndarray,
        reasons: Sequence[str | None],
    ) -> None:
        """Write this rank's rollouts of a step, one of each argument a rollout."""
        import ray

        rows = [
            _row(step, *found)
            for found in zip(asked, rollouts, texts, scored, advantages_N, reasons, strict=True)
        ]
        file = write_rollouts(self._workspace, self._training, self._attempt, rows)
        ray.get(self._sink.add.remote(file), timeout=self._timeout_s)

    def settle(self) -> None:
        """Wait until the driver has committed what was written.

        Raises:
            StalledError: If it does not in time.
        """
        import ray

        deadline = time.monotonic() + self._timeout_s
        while not ray.get(self._sink.is_settled.remote(), timeout=self._timeout_s):
            if time.monotonic() > deadline:
                raise StalledError(
                    f"the driver did not commit the rollouts within {self._timeout_s:g} s"
                )
            time.sleep(_POLL_S)


def _row(
    step: int,
    asked: Mapping[str, Any],
    rollout: Rollout,
    text: str,
    scored: Scored,
    advantage: float,
    reason: str | None,
) -> RolloutRow:
    prompt, logprob = asked["row"], float(np.mean(rollout.logprobs)) if rollout.logprobs else None
    return RolloutRow(
        step=step,
        prompt=prompt.pair,
        index=asked["index"],
        version=rollout.version,
        task=prompt.task,
        question=prompt.question,
        text=text,
        tokens=len(rollout.token_ids),
        finish=rollout.finish,
        seed=asked["seed"],
        logprob=None if logprob is None or math.isnan(logprob) else logprob,
        rewards=scored.parts,
        reward=scored.value,
        advantage=None if reason is not None else float(advantage),
        reason=reason,
    )
