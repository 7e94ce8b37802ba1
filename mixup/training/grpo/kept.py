"""What a GRPO trainer measures, says and keeps: held-out rewards, metrics, checkpoints."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from trl import GRPOTrainer

from mixup.errors import TrainingError
from mixup.training.checkpoints import WEIGHTS, CheckpointRecord
from mixup.training.deepspeed import bad_norm
from mixup.training.export import write_weights
from mixup.training.grpo.held_out import held_out_reward
from mixup.training.grpo.rolling import Rolling
from mixup.training.grpo.watch import StepWatch


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
        given, step = self._rolling, self.state.global_step
        at_end = step >= given.plan.steps
        lost = self._lost(step)
        best = given.ranks.agree(given.store.best() if given.choose_best else None)
        is_best = (
            given.choose_best
            and lost is not None
            and (best is None or best.loss is None or lost < best.loss)
        )
        record = CheckpointRecord(
            step=step,
            steps=given.plan.steps,
            world=given.ranks.world,
            stage=given.stage,
            plan=given.plan.fingerprint,
            loss=lost,
            has_weights=at_end or is_best,
            run=given.store.run,
        )
        given.record.settle()  # no step before a checkpoint is without its rollouts
        given.ranks.barrier()
        given.store.save(record, lambda folder: self._write_part(folder, record), given.ranks)
        if given.log is not None:
            given.log.flush()
        given.report({"step": step, "steps": record.steps, "reward": self._watch.reward})

    def _lost(self, step: int) -> float | None:
        """What is lacking to a held-out reward of 1 at this step; None where it was not measured.

        The lowest is best, as of a loss.
        """
        every = self.args.eval_steps
        was_measured = bool(every) and (step % int(every) == 0 or step >= self._rolling.plan.steps)
        reward = self._measured.get("reward", math.nan) if was_measured else math.nan
        return None if math.isnan(reward) else 1.0 - reward

    def _write_part(self, folder: Path, record: CheckpointRecord) -> None:
        """Write this rank's part of a checkpoint into a folder."""
        is_adapter, engine = hasattr(self.model, "peft_config"), self.model_wrapped
        engine.save_checkpoint(  # type: ignore[reportCallIssue, reportOptionalMemberAccess]
            str(folder), tag=f"global_step{record.step}", exclude_frozen_parameters=is_adapter
        )
        self._save_rng_state(str(folder))
        if self._rolling.ranks.rank == 0:
            self.state.save_to_json(str(folder / "trainer_state.json"))
        if record.has_weights:
            write_weights(self, folder / WEIGHTS, is_writer=self._rolling.ranks.rank == 0)
