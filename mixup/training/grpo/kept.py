"""What a GRPO trainer measures, says and keeps: held-out rewards, metrics, checkpoints."""

from __future__ import annotations

import math
import time
from typing import Any

from trl import GRPOTrainer

from mixup.errors import TrainingError
from mixup.training.deepspeed import bad_norm
from mixup.training.grpo.held_out import held_out_reward
from mixup.training.grpo.rolling import Rolling
from mixup.training.grpo.watch import StepWatch
from mixup.training.saving import save_checkpoint, was_measured


class KeptTrainer(GRPOTrainer):
    """The part of a rank's trainer that is not learning; see ``trainer.RolloutTrainer``."""

    def __init__(self, rolling: Rolling, **given: Any) -> None:
        self._rolling = rolling
        self._watch = StepWatch(rolling.ranks, rolling.log)
        self._rate = 0.0
        self._measured: dict[str, float] = {}
        super().__init__(**given)

    def _check_norm(self) -> None:
        """Check the norm of the gradient that an update took, which all ranks know."""
        if (norm := bad_norm(self.model_wrapped)) is not None:
            raise TrainingError(self._not_finite("norm of the gradient", norm))

    def _not_finite(self, what: str, value: float) -> str:
        last = self._rolling.store.last()
        kept = "there is no checkpoint yet" if last is None else f"step {last.step} is kept"
        return (
            f"the {what} is {value} at step {self.state.global_step} (from 0); {kept}. Lower "
            "optimizer.learning_rate, raise objective.beta, or look at the rollouts of that step "
            "in the table `rollouts`"
        )

    def evaluate(self, *given: Any, **named: Any) -> dict[str, float]:
        """The reward on held-out pairs."""
        if self._rolling.held_out is None:
            return {}
        metrics = self._measure()
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, {"eval_reward": metrics["reward"]}
        )
        return metrics

    def _measure(self) -> dict[str, float]:
        given, start = self._rolling, time.monotonic()
        if given.held_out is None:
            return {}
        given.generation.sync_weights()
        found = held_out_reward(
            given.held_out,
            given.generation,
            given.rewards,
            self.processing_class,
            given.ranks,
            device=self.accelerator.device,
        )
        self._measured = found
        if given.log is not None:
            seconds = time.monotonic() - start
            given.log.add("held_out", self.state.global_step, {**found, "seconds": seconds})
        return found

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write what was measured since the last time."""
        if "loss" not in logs or "learning_rate" not in logs:
            super().log(logs, start_time)
            return
        step = self.state.global_step
        # To the loop the whole training is one epoch.
        self.state.epoch = step / self._rolling.plan.steps_per_epoch
        logs["learning_rate"] = self._rate  # of the step; the scheduler has gone on
        self._metrics["train"].clear()  # of TRL's own loss and advantages, which are not in use
        logs.update(self._watch.read())
        super().log(logs, start_time)
        if (log := self._rolling.log) is not None:
            log.add("train", step, {key: value for key, value in logs.items() if key != "step"})
            self._tell(step)

    def _tell(self, step: int) -> None:
        """Say how far the training is, for whoever watches."""
        if (log := self._rolling.log) is not None:
            shown = {"reward": self._watch.reward, "epoch": self.state.epoch}
            place = {"step": step, "steps": self._rolling.plan.steps}
            log.progress({**place, **shown, "held_out_reward": self._measured.get("reward")})

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint into the workspace, all ranks together."""
        given = self._rolling
        given.record.settle()  # no step before a checkpoint is without its rollouts
        save_checkpoint(self, given, self._lost(), {"reward": self._watch.reward})

    def _lost(self) -> float | None:
        """What is lacking to a held-out reward of 1 at this step; None where it was not measured.

        The lowest is best, as of a loss.
        """
        measured = was_measured(self, self._rolling.plan.steps)
        reward = self._measured.get("reward", math.nan) if measured else math.nan
        return None if math.isnan(reward) else 1.0 - reward
