"""TRL's `SFTTrainer`, with the plan's batches, checkpoints in the workspace, and a held-out loss.

The loop, the loss and DeepSpeed are the libraries'. To the loop one optimizer step is one batch:
the forward passes of a step are made inside of it, so that their number may differ from step to
step and a run can begin at any step. The loss of a step is the sum over all of its learned tokens,
on all ranks, divided by their number: so it does not depend on how they are divided.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from datasets import Dataset
from trl import SFTTrainer

from mixup.errors import TrainingError
from mixup.training.batches import Rows, StepBatch, StepLoader, tensors
from mixup.training.checkpoints import WEIGHTS, CheckpointRecord, CheckpointStore, Ranks
from mixup.training.export import write_weights
from mixup.training.metrics import FlopCount, MetricsLog, peak_flops
from mixup.training.plan import BatchPlan, PlanSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeldOut:
    """What the loss is measured on.

    Attributes:
        rows: The rows.
        window: The longest of them.
        micro: The most of one forward pass.
        generations: How many prompts are answered.
        max_tokens: The longest answer.
    """

    rows: Rows
    window: int
    micro: int
    generations: int
    max_tokens: int


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
        self._clock = _Clock()
        self._held_out_loss: float | None = None
        # TRL takes only data sets of its own kinds; what is trained comes from the plan.
        unused = Dataset.from_dict({"input_ids": [[0]], "labels": [[-100]]})
        held_out = None if training.held_out is None else unused
        super().__init__(train_dataset=unused, eval_dataset=held_out, **given)
        self._flops = _flop_count(self.model)

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
        self._clock.add(batch.lengths, self._flops)
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
        if self.model.training and not return_outputs:
            part = loss.detach()
            self._total = part if self._total is None else self._total + part
            if self._left == 0:
                self._check_finite(self._total)
        return loss

    def _check_finite(self, total: torch.Tensor) -> None:
        """Check the loss of a step on all ranks, so that all stop at the same step."""
        summed = total.clone()
        if dist.is_initialized():
            dist.all_reduce(summed)
        if not math.isfinite(summed.item()):
            raise TrainingError(self._not_finite("loss", summed.item()))

    def _not_finite(self, what: str, value: float) -> str:
        step = self.state.global_step
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

    def evaluate(self, *given: Any, **named: Any) -> dict[str, float]:
        """The held-out loss, the mean over its learned tokens, and a few answers."""
        held_out = self._training.held_out
        if held_out is None:
            return {}
        loss = self._loss_of(held_out)
        self._held_out_loss = loss
        metrics = {"eval_loss": loss}
        if self._training.log is not None:
            self._training.log.add("held_out", self.state.global_step, {"loss": loss})
        self.log(dict(metrics))
        self._generate(held_out)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _loss_of(self, held_out: HeldOut) -> float:
        ranks, size = self._training.ranks, len(held_out.rows.lengths_N)
        settings = PlanSettings(held_out.window, batch=size, micro=held_out.micro, seed=0)
        plan = BatchPlan(held_out.rows.lengths_N, settings)
        sums = torch.zeros(2, dtype=torch.float64)
        model = self.model_wrapped
        model.eval()
        for micro in plan.micro_batches(0, rank=ranks.rank, world=ranks.world):
            found = tensors(held_out.rows, micro, self._training.pad_id, flat=self._training.flat)
            with torch.no_grad():
                outputs = model(**self._prepare_inputs(found), use_cache=False, fused_lm_head=True)
            sums += torch.tensor([-outputs.log_probs.sum().item(), outputs.label_mask.sum().item()])
        sums = sums.to(self.args.device)
        if dist.is_initialized():
            dist.all_reduce(sums)
        return (sums[0] / sums[1].clamp(min=1)).item()

    def _generate(self, held_out: HeldOut) -> None:
        """Answer a few held-out prompts, greedily, so that no random number is drawn."""
        if not held_out.generations:
            return
        from trl.models import unwrap_model_for_generation

        with unwrap_model_for_generation(self.model_wrapped, self.accelerator) as model:
            if self._training.log is not None:
                for row in range(min(held_out.generations, len(held_out.rows.lengths_N))):
                    prompt, answer = _answered(self, model, held_out, row)
                    values = {"row": row, "prompt": prompt, "answer": answer}
                    self._training.log.add("generation", self.state.global_step, values)
        self._training.ranks.barrier()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write what was measured since the last time.

        Raises:
            TrainingError: If the gradient's norm is no number.
        """
        if "loss" not in logs or "learning_rate" not in logs:
            super().log(logs, start_time)
            return
        norm = float(logs.get("grad_norm", 0.0))
        if not math.isfinite(norm):
            raise TrainingError(self._not_finite("norm of the gradient", norm))
        logs["learning_rate"] = self._rate  # of the step; the scheduler has gone on
        logs.update(self._clock.read(self._training.device, self._training.ranks.world))
        step = self.state.global_step
        logs["epoch"] = step / self._training.plan.steps_per_epoch
        super().log(logs, start_time)
        if (log := self._training.log) is not None:
            log.add("train", step, {key: value for key, value in logs.items() if key != "step"})
            log.progress({**self._progress(logs), "step": step})

    def _progress(self, logs: dict[str, float]) -> dict[str, Any]:
        shown = ("loss", "tokens_per_second", "epoch")
        found = {key: logs[key] for key in shown if key in logs}
        held_out = self._held_out_loss
        return {"steps": self._training.plan.steps, "held_out_loss": held_out, **found}

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint into the workspace, all ranks together."""
        given, step = self._training, self.state.global_step
        at_end = step >= given.plan.steps
        loss = self._held_out_loss if self._was_measured(step) else None
        best = given.store.best() if given.choose_best else None
        is_best = given.choose_best and loss is not None and (best is None or loss < _loss(best))
        record = CheckpointRecord(
            step=step,
            steps=given.plan.steps,
            world=given.ranks.world,
            stage=given.stage,
            plan=given.plan.fingerprint,
            loss=loss,
            has_weights=at_end or is_best,
            run=given.store.run,
        )
        given.ranks.barrier()  # all have read which is the best before one writes another
        given.store.save(record, lambda folder: self._write(folder, record), given.ranks)
        if given.log is not None:
            given.log.flush()
        given.report({"step": step, "steps": record.steps, "held_out_loss": loss})

    def _was_measured(self, step: int) -> bool:
        every = self.args.eval_steps
        return bool(every) and (step % int(every) == 0 or step >= self._training.plan.steps)

    def _write(self, folder: Path, record: CheckpointRecord) -> None:
        """Write this rank's part of a checkpoint into a folder."""
        is_adapter = hasattr(self.model, "peft_config")
        self.model_wrapped.save_checkpoint(
            str(folder), tag=f"global_step{record.step}", exclude_frozen_parameters=is_adapter
        )
        self._save_rng_state(str(folder))
        if self._training.ranks.rank == 0:
            self.state.save_to_json(str(folder / "trainer_state.json"))
        if record.has_weights:
            write_weights(self, folder / WEIGHTS, is_writer=self._training.ranks.rank == 0)


def _loss(record: CheckpointRecord) -> float:
    return math.inf if record.loss is None else record.loss


class _Clock:
    """Counts tokens and operations between two lines of the log."""

    def __init__(self) -> None:
        self._start, self._tokens, self._flops = time.monotonic(), 0, 0.0

    def add(self, lengths: Sequence[int], flops: FlopCount) -> None:
        self._tokens += sum(lengths)
        self._flops += flops.of_step(lengths)

    def read(self, device: str, world: int) -> dict[str, float]:
        """The rates since the last reading; begins anew."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        found = {"tokens_per_second": self._tokens / seconds}
        if (peak := peak_flops(device)) is not None:
            found["mfu"] = self._flops / seconds / (peak * world)
        self._start, self._tokens, self._flops = time.monotonic(), 0, 0.0
        return found


def _flop_count(model: Any) -> FlopCount:
    config = model.config.get_text_config()
    sizes = [(_size(weights), weights.requires_grad) for weights in model.parameters()]
    weights = sum(size for size, _ in sizes)
    if not config.tie_word_embeddings:  # the embedding is looked up, not multiplied
        weights -= config.vocab_size * config.hidden_size
    trained = sum(size for size, is_trained in sizes if is_trained)
    return FlopCount(weights, min(trained, weights), config.num_hidden_layers, config.hidden_size)


def _size(weights: torch.Tensor) -> int:
    """The elements of a weight, of which a worker under ZeRO-3 has only a part."""
    return int(getattr(weights, "ds_numel", weights.numel()))


def _answered(trainer: PlannedTrainer, model: Any, held_out: HeldOut, row: int) -> tuple[str, str]:
    """The prompt of a held-out row, and what the model answers to it."""
    found = held_out.rows[row]
    start = int(found.loss_mask.argmax())
    ids = torch.tensor([found.input_ids[:start].tolist()], device=trainer.args.device)
    with torch.no_grad():
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=held_out.max_tokens,
            do_sample=False,
        )
    tokenizer: Any = trainer.processing_class
    return tokenizer.decode(ids[0]), tokenizer.decode(output[0, start:])
