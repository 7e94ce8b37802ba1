"""TRL's `SFTTrainer`, with the plan's batches, checkpoints in the workspace, and a held-out loss.

The loop, the loss and DeepSpeed are the libraries'. To the loop one optimizer step is one batch:
the forward passes of a step are made inside of it, so that their number may differ from step to
step and a run can begin at any step. The loss of a step is the sum over all of its learned tokens,
on all ranks, divided by their number: so it does not depend on how they are divided.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed as dist
from datasets import Dataset
from trl import SFTTrainer

from mixup.errors import TrainingError
from mixup.training.batches import Rows, StepBatch, StepLoader
from mixup.training.checkpoints import CheckpointStore, Ranks
from mixup.training.deepspeed import bad_norm
from mixup.training.held_out import HeldOut, answers, held_out_loss
from mixup.training.metrics import MetricsLog
from mixup.training.pace import Pace, flop_count
from mixup.training.plan import BatchPlan
from mixup.training.saving import save_checkpoint, was_measured


@dataclass(frozen=True)
class Training:
    """What a trainer is given besides the model.

    Attributes:
        plan: What is trained at which step.
        rows: The rows of the plan.
        pad_id: The token of the padding.
        held_out: What the loss is measured on; None: nothing is.
        store: Where checkpoints go.
        log: Where metrics go; None on ranks other than 0.
        ranks: The processes that train.
        stage: The ZeRO stage.
        device: The GPU's name.
        report: Called by every rank after each checkpoint, with what was measured.
        choose_best: Whether the checkpoint of the lowest held-out loss is the one to export.
        flat: As ``collate`` takes it.
    """

    plan: BatchPlan
    rows: Rows
    pad_id: int
    held_out: HeldOut | None
    store: CheckpointStore
    log: MetricsLog | None
    ranks: Ranks
    stage: int
    report: Callable[[dict[str, Any]], object] = lambda metrics: None
    device: str = "cpu"
    choose_best: bool = False
    flat: bool = False


class PlannedTrainer(SFTTrainer):
    """The trainer of one rank; see the module."""

    def __init__(self, training: Training, **given: Any) -> None:
        self._training = training
        self._total: torch.Tensor | None = None
        self._left = 0
        self._rate = 0.0
        self._pace = Pace()
        self._held_out_loss: float | None = None
        self._shown: dict[str, Any] = {}
        # TRL takes only data sets of its own kinds; what is trained comes from the plan.
        unused = Dataset.from_dict({"input_ids": [[0]], "labels": [[-100]]})
        held_out = None if training.held_out is None else unused
        super().__init__(train_dataset=unused, eval_dataset=held_out, **given)
        self._flops = flop_count(self.model)

    def get_train_dataloader(self) -> Any:
        """The plan's batches, from the step on at which the training stands."""
        given = self._training
        return StepLoader(
            given.plan,
            given.rows,
            given.pad_id,
            rank=given.ranks.rank,
            world=given.ranks.world,
            start=lambda: self.state.global_step,
            flat=given.flat,
        )

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Forward and backward passes over all micro-batches of a step; its loss.

        Raises:
            TrainingError: If the loss is no number; the weights are then those of the step before.
        """
        batch: StepBatch = inputs
        self._rate = self._get_learning_rate()
        self._total, self._left = None, len(batch.micro_batches)
        learned = torch.tensor(max(batch.learned, 1), device=self.args.device)
        for tensors_of_pass in batch.micro_batches:
            self._left -= 1
            self.accelerator.gradient_state._set_sync_gradients(self._left == 0)
            super().training_step(model, dict(tensors_of_pass), learned)
        self._check_norm()
        self._pace.add(batch.lengths, self._flops)
        self._tell(batch.step + 1)
        assert self._total is not None  # every step has a micro-batch on every rank
        return self._total

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """TRL's loss; before the last backward pass, which takes the step, the sum is looked at."""
        loss = super().compute_loss(
            model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
        )
        if model.training and not return_outputs:
            total = loss.detach() if self._total is None else self._total + loss.detach()
            self._total = total
            if self._left == 0:
                self._check_finite(total)
        return loss

    def _check_finite(self, total: torch.Tensor) -> None:
        """Check the loss of a step on all ranks, so that all stop at the same step."""
        summed = total.clone()
        if dist.is_initialized():
            dist.all_reduce(summed)
        if not math.isfinite(summed.item()):
            raise TrainingError(self._not_finite("loss", summed.item(), self.state.global_step))

    def _check_norm(self) -> None:
        """Check the norm of the gradient of the step that was taken, which all ranks know."""
        if (norm := bad_norm(self.model_wrapped)) is not None:
            said = self._not_finite("norm of the gradient", norm, self.state.global_step)
            raise TrainingError(said)

    def _not_finite(self, what: str, value: float, step: int) -> str:
        """What is said of a step, from 0, that came to no number."""
        rows = self._training.plan.rows_of(step)[:8].tolist()
        last = self._training.store.last()
        kept = "there is no checkpoint yet" if last is None else f"step {last.step} is kept"
        return (
            f"the {what} is {value} at step {step + 1} (rows {rows} of the token set, ...); "
            f"{kept}. Lower optimizer.learning_rate, raise optimizer.warmup, or look at those "
            "examples"
        )

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """One step's batch; its tokens are known from the plan, so nothing is counted here."""
        found = next(epoch_iterator, None)
        return ([] if found is None else [found]), None

    def floating_point_ops(self, inputs: Any) -> int:
        """The operations of a step of this rank's share, for the trainer's own total."""
        return int(self._flops.of_step(inputs.lengths) / self._training.ranks.world)

    def evaluate(self, *unused: Any, **named: Any) -> dict[str, float]:
        """The held-out loss, the mean over its learned tokens, and a few answers."""
        held_out = self._training.held_out
        if held_out is None:
            return {}
        given, step = self._training, self.state.global_step
        loss = held_out_loss(self, held_out, given.ranks, given.pad_id, flat=given.flat)
        self._held_out_loss = loss
        metrics = {"eval_loss": loss}
        if given.log is not None:
            given.log.add("held_out", step, {"loss": loss})
        self.log(dict(metrics))
        for answer in answers(self, held_out, is_asked=given.log is not None):
            if given.log is not None:
                given.log.add("generation", step, asdict(answer))
        given.ranks.barrier()  # the others wait while rank 0 answers
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write what was measured since the last time."""
        if "loss" not in logs or "learning_rate" not in logs:
            super().log(logs, start_time)
            return
        logs["learning_rate"] = self._rate  # of the step; the scheduler has gone on
        logs.update(self._pace.read(self._training.device, self._training.ranks.world))
        step = self.state.global_step
        # To the loop the whole training is one epoch.
        self.state.epoch = step / self._training.plan.steps_per_epoch
        super().log(logs, start_time)
        if (log := self._training.log) is not None:
            log.add("train", step, {key: value for key, value in logs.items() if key != "step"})
            shown = ("loss", "tokens_per_second", "epoch")
            self._shown = {key: logs[key] for key in shown if key in logs}
            self._tell(step)

    def _tell(self, step: int) -> None:
        """Say how far the training is, for whoever watches."""
        given = self._training
        if given.log is not None:
            place = {"step": step, "steps": given.plan.steps}
            given.log.progress({**place, "held_out_loss": self._held_out_loss, **self._shown})

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint into the workspace, all ranks together."""
        given = self._training
        loss = self._held_out_loss if was_measured(self, given.plan.steps) else None
        save_checkpoint(self, given, loss, {"held_out_loss": loss})
