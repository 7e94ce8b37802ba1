"""A trainer's checkpoint: every rank writes its part, and the best one keeps weights to export."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from mixup.training.checkpoints import WEIGHTS, CheckpointRecord, CheckpointStore, Ranks
from mixup.training.export import write_weights
from mixup.training.metrics import MetricsLog


class _Plan(Protocol):
    @property
    def steps(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...


class Kept(Protocol):
    """What is known of a training whose checkpoints are kept."""

    @property
    def plan(self) -> _Plan:
        """What is learned at which step."""
        ...

    @property
    def store(self) -> CheckpointStore:
        """Where checkpoints go."""
        ...

    @property
    def ranks(self) -> Ranks:
        """The processes that train."""
        ...

    @property
    def stage(self) -> int:
        """The ZeRO stage."""
        ...

    @property
    def log(self) -> MetricsLog | None:
        """Where metrics go; None on ranks other than 0."""
        ...

    @property
    def report(self) -> Callable[[dict[str, Any]], object]:
        """Called by every rank after each checkpoint, with what was measured."""
        ...

    @property
    def choose_best(self) -> bool:
        """Whether the checkpoint of the lowest loss is the one to export."""
        ...


def was_measured(trainer: Any, steps: int) -> bool:
    """Whether something held out was measured at the step where a trainer stands."""
    every, step = trainer.args.eval_steps, trainer.state.global_step
    return bool(every) and (step % int(every) == 0 or step >= steps)


def save_checkpoint(trainer: Any, kept: Kept, loss: float | None, told: dict[str, Any]) -> None:
    """Write a checkpoint into the workspace; called by all ranks together.

    Args:
        trainer: A trainer whose model DeepSpeed has wrapped.
        kept: What is known of the training.
        loss: What was measured at this step, the lower the better; None: nothing was.
        told: What is reported besides the steps.
    """
    step, ranks = trainer.state.global_step, kept.ranks
    best = ranks.agree(kept.store.best() if kept.choose_best else None)
    least = math.inf if best is None or best.loss is None else best.loss
    is_best = kept.choose_best and loss is not None and (best is None or loss < least)
    record = CheckpointRecord(
        step=step,
        steps=kept.plan.steps,
        world=ranks.world,
        stage=kept.stage,
        plan=kept.plan.fingerprint,
        loss=loss,
        has_weights=step >= kept.plan.steps or is_best,
        run=kept.store.run,
    )
    ranks.barrier()  # all know which is the best before one writes another
    kept.store.save(record, lambda folder: _write(trainer, folder, record, ranks), ranks)
    if kept.log is not None:
        kept.log.flush()
    kept.report({"step": step, "steps": record.steps, **told})


def _write(trainer: Any, folder: Path, record: CheckpointRecord, ranks: Ranks) -> None:
    """Write a rank's part of a checkpoint into a folder."""
    trainer.model_wrapped.save_checkpoint(
        str(folder),
        tag=f"global_step{record.step}",
        exclude_frozen_parameters=hasattr(trainer.model, "peft_config"),
    )
    trainer._save_rng_state(str(folder))
    if ranks.rank == 0:
        trainer.state.save_to_json(str(folder / "trainer_state.json"))
    if record.has_weights:
        write_weights(trainer, folder / WEIGHTS, is_writer=ranks.rank == 0)
