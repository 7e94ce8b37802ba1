"""Supervised fine-tuning in a worker: from the place in the workspace where the last one stopped.

The worker takes the last whole checkpoint, whether a worker of the same run wrote it or one of a
run that was killed, and trains to the end. All that it makes lies in the workspace.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixup.training.checkpoints import CheckpointStore, Ranks, check_resumable
from mixup.training.deepspeed import (
    device_name,
    set_up_worker,
)
from mixup.training.metrics import MetricsLog
from mixup.training.models import Base, load_model, load_tokenizer, lora_config
from mixup.training.plan import BatchPlan, PlanSettings, seeded_order
from mixup.training.tokens import TokenRows
from mixup.training.worker import (
    loop_arguments,
    prepare,
    run_rank,
    scratch_folder,
    train_from,
)
from mixup.training_config import SftConfig
from mixup.workspace import Workspace

if TYPE_CHECKING:
    from mixup.training.held_out import HeldOut
    from mixup.training.trainer import PlannedTrainer, Training

_DRAW = 3  # apart from what a plan draws


@dataclass(frozen=True)
class SftWork:
    """What a worker is given.

    Attributes:
        config: The job's config.
        workspace: Where everything is.
        run: The run.
        token: Its fencing token.
        base: The base model.
        training: The name of the training's folder: a key of all that decides the weights.
        tokens: The token set to learn.
        held_out: The token set to measure the loss on; None: nothing is measured.
    """

    config: SftConfig
    workspace: Workspace
    run: str
    token: int
    base: Base
    training: str
    tokens: str
    held_out: str | None

    @property
    def store(self) -> CheckpointStore:
        """The training's checkpoints."""
        return CheckpointStore(self.workspace, self.training, self.run, self.token)

    def plan(self) -> tuple[BatchPlan, TokenRows]:
        """What is learned at which step, and the rows that it names.

        Raises:
            ConfigError: If there is nothing to learn.
        """
        rows, config = TokenRows(self.workspace, self.tokens), self.config
        settings = PlanSettings(
            window=config.examples.window,
            batch=config.optimizer.batch,
            micro=config.optimizer.micro_batch,
            epochs=config.optimizer.epochs,
            packing=config.examples.packing,
            max_steps=config.optimizer.max_steps,
            seed=config.seed,
        )
        drawn = seeded_order(len(rows), config.seed, _DRAW)[: config.examples.max_rows]
        return BatchPlan(rows.lengths_N, settings, drawn), rows


def train_worker(given: dict[str, Any]) -> None:
    """Train in one worker of Ray Train; ``given["work"]`` is an `SftWork`.

    Raises:
        TrainingError: If the training cannot go on; says what to change.
    """
    work: SftWork = given["work"]
    window = work.config.examples.window
    run_rank(
        lambda ranks, report: train(work, ranks, report=report),
        work.config,
        last_resort=f"examples.window below {window} (leaves longer examples out)",
    )


def train(work: SftWork, ranks: Ranks, *, report: Any) -> None:
    """Train from the last checkpoint to the end, as one of some processes."""
    set_up = set_up_worker(work.config.workers)
    config, store = work.config, work.store
    last = ranks.agree(store.last())
    plan, rows = work.plan()
    if last is not None:
        check_resumable(last, plan=plan.fingerprint, world=ranks.world, stage=config.zero.stage)
        if last.is_final:
            return
    from mixup.training.trainer import Training

    with scratch_folder(work.workspace, work.run) as scratch:
        # DeepSpeed's config is in it: under ZeRO-3 it must be there before the weights are.
        arguments = _arguments(work, plan, scratch, set_up)
        tokenizer = load_tokenizer(work.base, template=config.examples.template)
        log = None
        if ranks.rank == 0:
            log = MetricsLog(work.workspace, store.folder, after=last.step if last else 0)
        pad_id = tokenizer.pad_token_id
        assert isinstance(pad_id, int)  # load_tokenizer sees to it
        training = Training(
            plan=plan,
            rows=rows,
            pad_id=pad_id,
            held_out=_held_out(work),
            store=store,
            log=log,
            ranks=ranks,
            stage=config.zero.stage,
            report=report,
            device=device_name(),
            choose_best=config.export.choose == "best",
            flat=config.attention == "flash_attention_2",
        )
        trainer = _trainer(work, training, arguments, tokenizer)
        train_from(trainer, store, last, ranks)
        if log is not None:
            log.flush()


def _trainer(work: SftWork, training: Training, arguments: Any, tokenizer: Any) -> PlannedTrainer:
    from mixup.training.trainer import PlannedTrainer

    config = work.config
    trainer = PlannedTrainer(
        training,
        model=load_model(work.base, bf16=config.is_bf16, attention=config.attention),
        args=arguments,
        processing_class=tokenizer,
        peft_config=None if config.lora is None else lora_config(config.lora),
    )
    passes = -(-config.optimizer.batch // config.optimizer.micro_batch)
    prepare(
        trainer,
        config,
        work.base,
        steps=training.plan.steps,
        is_measured=training.held_out is not None,
        passes=-(-passes // training.ranks.world),
    )
    return trainer


def _arguments(work: SftWork, plan: BatchPlan, scratch: Path, set_up: dict[str, Any]) -> Any:
    """TRL's config."""
    from trl import SFTConfig as TrlConfig

    is_measured = work.held_out is not None
    return TrlConfig(
        **loop_arguments(work.config, plan.steps, scratch, set_up, is_measured=is_measured),
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        packing=False,
        loss_type="nll",
        average_tokens_across_devices=True,
        metric_for_best_model="eval_loss" if is_measured else None,
        greater_is_better=False if is_measured else None,
    )


def _held_out(work: SftWork) -> HeldOut | None:
    from mixup.training.batches import SomeRows
    from mixup.training.held_out import HeldOut

    config = work.config
    if work.held_out is None:
        return None
    rows = TokenRows(work.workspace, work.held_out)
    drawn = seeded_order(len(rows), config.seed, _DRAW)[: config.held_out.max_rows]
    return HeldOut(
        rows=SomeRows(rows, drawn),
        window=config.examples.window,
        micro=config.optimizer.micro_batch,
        generations=config.held_out.generations,
        max_tokens=config.held_out.max_tokens,
    )
