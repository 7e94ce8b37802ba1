"""Supervised fine-tuning in a worker: from the place in the workspace where the last one stopped.

The worker takes the last whole checkpoint, whether a worker of the same run wrote it or one of a
run that was killed, and trains to the end. All that it makes lies in the workspace.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixup.errors import TrainingError
from mixup.training.checkpoints import CheckpointStore, Ranks, check_resumable
from mixup.training.deepspeed import (
    check_deepspeed,
    deepspeed_config,
    device_name,
    expect_micro_batches,
    is_out_of_memory,
    set_up_worker,
)
from mixup.training.metrics import MetricsLog
from mixup.training.models import Base, load_model, load_tokenizer, lora_config
from mixup.training.plan import BatchPlan, PlanSettings, seeded_order
from mixup.training.tokens import TokenRows
from mixup.training_config import SftConfig
from mixup.workspace import Workspace

if TYPE_CHECKING:
    from mixup.training.held_out import HeldOut
    from mixup.training.trainer import PlannedTrainer, Training

logger = logging.getLogger(__name__)

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
    import ray.train
    import torch.distributed as dist
    from ray.train.collective import broadcast_from_rank_zero

    work: SftWork = given["work"]
    context = ray.train.get_context()
    ranks = Ranks(
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        local_rank=context.get_local_rank(),
        barrier=dist.barrier,
        agree=broadcast_from_rank_zero,
    )
    try:
        train(work, ranks, report=ray.train.report)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(_no_memory(work.config, error)) from error


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

    with tempfile.TemporaryDirectory(prefix="mixup-sft-") as scratch:
        if work.workspace.is_local:  # else in the scratch folder, which is deleted
            place = work.workspace.path(f"runs/{work.run}/tensorboard")
            os.environ.setdefault("TENSORBOARD_LOGGING_DIR", place)
        # DeepSpeed's config is in it: under ZeRO-3 it must be there before the weights are.
        arguments = _arguments(work, plan, Path(scratch), set_up)
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
        if last is None:
            trainer.train()
        else:
            logger.info("going on from step %d of %d", last.step, plan.steps)
            with store.opened(last, ranks) as folder:
                trainer.train(resume_from_checkpoint=str(folder))
        if log is not None:
            log.flush()


def _trainer(work: SftWork, training: Training, arguments: Any, tokenizer: Any) -> PlannedTrainer:
    from transformers import TrainerCallback

    from mixup.training.trainer import PlannedTrainer

    config, plan = work.config, training.plan

    class AsPlanned(TrainerCallback):
        """Checks what was set up once it is, and measures at the last step too."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
            check_deepspeed(trainer, config.zero.stage)

        def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
            if state.global_step >= plan.steps:
                control.should_log = True
                control.should_evaluate = training.held_out is not None

    trainer = PlannedTrainer(
        training,
        model=load_model(work.base, bf16=config.is_bf16, attention=config.attention),
        args=arguments,
        processing_class=tokenizer,
        peft_config=None if config.lora is None else lora_config(config.lora),
        callbacks=[AsPlanned()],
    )
    if config.lora is not None:  # not a place on this machine
        trainer.model.peft_config["default"].base_model_name_or_path = work.base.name  # type: ignore[reportIndexIssue, reportOptionalMemberAccess]
    passes = -(-config.optimizer.batch // config.optimizer.micro_batch)
    expect_micro_batches(trainer, -(-passes // training.ranks.world))
    return trainer


def _arguments(work: SftWork, plan: BatchPlan, scratch: Path, set_up: dict[str, Any]) -> Any:
    """TRL's config. What decides the result is set, whatever the library's defaults become."""
    from trl import SFTConfig as TrlConfig

    config, optimizer = work.config, work.config.optimizer
    schedule = {"constant": "constant_with_warmup"}.get(optimizer.schedule, optimizer.schedule)
    has_held_out = work.held_out is not None
    return TrlConfig(
        output_dir=str(scratch),
        # To the loop one optimizer step is one batch; the plan says what is in it.
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        max_steps=plan.steps,
        ignore_data_skip=True,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        max_length=None,
        packing=False,
        loss_type="nll",
        average_tokens_across_devices=True,
        learning_rate=optimizer.learning_rate,
        lr_scheduler_type=schedule,
        warmup_steps=math.ceil(optimizer.warmup * plan.steps),
        weight_decay=optimizer.weight_decay,
        adam_beta1=optimizer.betas[0],
        adam_beta2=optimizer.betas[1],
        adam_epsilon=optimizer.epsilon,
        max_grad_norm=optimizer.max_grad_norm,
        optim="adamw_torch",
        seed=config.seed,
        data_seed=config.seed,
        bf16=config.is_bf16,
        fp16=False,
        gradient_checkpointing=config.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        deepspeed=deepspeed_config(
            config.zero, optimizer, bf16=config.is_bf16, on_gpu=bool(config.workers.gpus)
        ),
        logging_steps=config.metrics.every_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if has_held_out else "no",
        eval_steps=config.held_out.every_steps,
        save_strategy="steps",
        save_steps=config.checkpoints.every_steps,
        metric_for_best_model="eval_loss" if has_held_out else None,
        greater_is_better=False if has_held_out else None,
        report_to=list(config.metrics.to) or "none",
        run_name=config.name,
        disable_tqdm=True,
        **set_up,
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


def _no_memory(config: SftConfig, error: BaseException) -> str:
    """What to do, the mildest first."""
    can = []
    if config.optimizer.micro_batch > 1:
        can.append(f"optimizer.micro_batch below {config.optimizer.micro_batch}")
    if not config.gradient_checkpointing:
        can.append("gradient_checkpointing=true")
    if config.zero.stage < 3 and config.workers.count > 1:
        can.append(f"zero.stage={config.zero.stage + 1} (starts again)")
    if config.workers.gpus and not config.zero.offload_optimizer and config.zero.stage:
        can.append("zero.offload_optimizer=true")
    if config.lora is None:
        can.append("lora={rank: 16} (another training)")
    can.append(f"examples.window below {config.examples.window} (leaves longer examples out)")
    said = " ".join(str(error).split())[:200]
    return f"a worker ran out of memory ({said}); try, in this order: {', '.join(can)}"
