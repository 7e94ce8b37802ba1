"""What a worker of every training does, whatever is trained.

It begins where the last one stopped, sets TRL's loop up as the job says, and explains memory that
does not suffice.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mixup.errors import TrainingError
from mixup.grpo_config import GrpoConfig
from mixup.training.checkpoints import CheckpointRecord, CheckpointStore, Ranks
from mixup.training.deepspeed import (
    check_deepspeed,
    deepspeed_config,
    expect_micro_batches,
    is_out_of_memory,
)
from mixup.training.models import Base
from mixup.training_config import SftConfig
from mixup.workspace import Workspace

logger = logging.getLogger(__name__)

AnyTraining = SftConfig | GrpoConfig


def run_rank(
    train: Callable[[Ranks, Any], object], config: AnyTraining, *, last_resort: str
) -> None:
    """Train as one rank of Ray Train's workers.

    Args:
        train: Takes the ranks, and what is called with the metrics of each checkpoint.
        config: The job's config.
        last_resort: What else takes less memory, when nothing milder does.

    Raises:
        TrainingError: If the training cannot go on; says what to change.
    """
    import ray.train
    import torch.distributed as dist
    from ray.train.collective import broadcast_from_rank_zero

    context = ray.train.get_context()
    ranks = Ranks(
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        local_rank=context.get_local_rank(),
        barrier=dist.barrier,
        agree=broadcast_from_rank_zero,
    )
    try:
        train(ranks, ray.train.report)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(_no_memory(config, error, last_resort)) from error


def _no_memory(config: AnyTraining, error: BaseException, last_resort: str) -> str:
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
    can.append(last_resort)
    said = " ".join(str(error).split())[:200]
    return f"a worker ran out of memory ({said}); try, in this order: {', '.join(can)}"


@contextmanager
def scratch_folder(workspace: Workspace, run: str) -> Iterator[Path]:
    """A folder for what the library writes, for the block; TensorBoard's events stay with the run.

    On an object store they would not, so ``check_plugins`` refuses TensorBoard there.
    """
    if workspace.is_local:
        place = workspace.path(f"runs/{run}/tensorboard")
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", place)
    with tempfile.TemporaryDirectory(prefix="mixup-training-") as scratch:
        yield Path(scratch)


def loop_arguments(
    config: AnyTraining, steps: int, scratch: Path, set_up: dict[str, Any], *, is_measured: bool
) -> dict[str, Any]:
    """The arguments of TRL's config that every training gives.

    What decides the result is set, whatever the library's defaults become.

    Args:
        config: The job's config.
        steps: The steps of the whole training.
        scratch: A folder that the library may write to.
        set_up: What the worker's set-up asks for.
        is_measured: Whether something is held out.
    """
    optimizer = config.optimizer
    return {
        "output_dir": str(scratch),
        # To the loop one step is one batch; the plan says what is in it.
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "max_steps": steps,
        "ignore_data_skip": True,
        "remove_unused_columns": False,
        "learning_rate": optimizer.learning_rate,
        "lr_scheduler_type": {"constant": "constant_with_warmup"}.get(
            optimizer.schedule, optimizer.schedule
        ),
        "warmup_steps": math.ceil(optimizer.warmup * steps),
        "weight_decay": optimizer.weight_decay,
        "adam_beta1": optimizer.betas[0],
        "adam_beta2": optimizer.betas[1],
        "adam_epsilon": optimizer.epsilon,
        "max_grad_norm": optimizer.max_grad_norm,
        "optim": "adamw_torch",
        "seed": config.seed,
        "data_seed": config.seed,
        "bf16": config.is_bf16,
        "fp16": False,
        "gradient_checkpointing": config.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "deepspeed": deepspeed_config(
            config.zero, optimizer, bf16=config.is_bf16, on_gpu=bool(config.workers.gpus)
        ),
        "logging_steps": config.metrics.every_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "eval_strategy": "steps" if is_measured else "no",
        "eval_steps": config.held_out.every_steps,
        "save_strategy": "steps",
        "save_steps": config.checkpoints.every_steps,
        "report_to": list(config.metrics.to) or "none",
        "run_name": config.name,
        "disable_tqdm": True,
        **set_up,
    }


def prepare(
    trainer: Any, config: AnyTraining, base: Base, *, steps: int, is_measured: bool, passes: int
) -> None:
    """Set up a trainer: how it multiplies, that it checks DeepSpeed, that it measures at the end.

    Args:
        trainer: A trainer of TRL.
        config: The job's config.
        base: The base model.
        steps: The steps of the whole training.
        is_measured: Whether something is held out.
        passes: The most backward passes of a rank in an update.
    """
    from transformers import TrainerCallback

    from mixup.models.onednn import multiply_by_onednn

    class AsPlanned(TrainerCallback):
        """Checks what was set up once it is, and measures at the last step too."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
            check_deepspeed(trainer, config.zero.stage)

        def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
            if state.global_step >= steps:
                control.should_log = True
                control.should_evaluate = is_measured

    trainer.add_callback(AsPlanned())
    if config.lora is not None:  # not a place on this machine
        trainer.model.peft_config["default"].base_model_name_or_path = base.name
    if not config.workers.gpus and config.zero.stage < 3:  # ZeRO-3 has its own linear layers
        multiply_by_onednn(trainer.model)
    expect_micro_batches(trainer, passes)


def train_from(
    trainer: Any, store: CheckpointStore, last: CheckpointRecord | None, ranks: Ranks
) -> None:
    """Train to the end, from a checkpoint or from the base model."""
    if last is None:
        trainer.train()
        return
    logger.info("going on from step %d of %d", last.step, last.steps)
    with store.opened(last, ranks) as folder:
        trainer.train(resume_from_checkpoint=str(folder))
