"""DeepSpeed under a worker of Ray Train, on a GPU and on a CPU alike.

Nothing here knows what is trained. On a CPU, transformers falls back to plain data parallelism
without a word unless the environment is set before it is loaded; so the worker checks what it got.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mixup.errors import TrainingError
from mixup.models.memory import keep_freed_memory
from mixup.training_config import AdamConfig, WorkersConfig, ZeroConfig

if TYPE_CHECKING:
    from transformers import Trainer

# Elements of a bucket of gradients. DeepSpeed's own 5e8 takes 2 GB of memory in float32.
_BUCKET_ON_CPU, _BUCKET_ON_GPU = 20_000_000, 200_000_000


def worker_environment(workers: WorkersConfig) -> dict[str, str]:
    """The variables that a worker's process must have from its start."""
    common = {"TOKENIZERS_PARALLELISM": "false"}
    if workers.gpus:
        return common
    return {
        **common,
        # A worker without a GPU must not see those of its machine.
        "CUDA_VISIBLE_DEVICES": "",
        "DS_ACCELERATOR": "cpu",
        "ACCELERATE_USE_DEEPSPEED": "true",
        "OMP_NUM_THREADS": str(threads_of(workers)),
    }


def threads_of(workers: WorkersConfig) -> int:
    """The threads that a worker computes with on a CPU; a started CPU counts as one."""
    return max(1, math.ceil(workers.cpus))


def set_up_worker(workers: WorkersConfig) -> dict[str, Any]:
    """Prepare a worker's process; call it before any transformers or TRL config is made.

    Returns:
        Arguments that the trainer's config must have.
    """
    import torch

    if workers.gpus:
        return {"use_cpu": False, "ddp_timeout": int(workers.timeout_s)}
    keep_freed_memory()
    torch.set_num_threads(threads_of(workers))
    from accelerate import PartialState

    PartialState(backend="gloo")
    return {
        # With use_cpu=True transformers takes plain data parallelism in place of DeepSpeed.
        "use_cpu": False,
        "accelerator_config": {"use_configured_state": True},
        "ddp_timeout": int(workers.timeout_s),
    }


def deepspeed_config(
    zero: ZeroConfig, optimizer: AdamConfig, *, bf16: bool, on_gpu: bool
) -> dict[str, Any]:
    """The DeepSpeed config; transformers fills in the values that are ``auto``."""
    bucket = _BUCKET_ON_GPU if on_gpu else _BUCKET_ON_CPU
    config: dict[str, Any] = {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": optimizer.max_grad_norm,
        "bf16": {"enabled": bf16},
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": optimizer.learning_rate,
                "betas": list(optimizer.betas),
                "eps": optimizer.epsilon,
                "weight_decay": optimizer.weight_decay,
                # PyTorch's own: DeepSpeed's are compiled at first use, for two minutes on a CPU.
                "torch_adam": True,
            },
        },
        "zero_optimization": _zero(zero, bucket),
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1_000_000_000,
    }
    if bf16:
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    return config


def _zero(zero: ZeroConfig, bucket: int) -> dict[str, Any]:
    section: dict[str, Any] = {
        "stage": zero.stage,
        "contiguous_gradients": True,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
    }
    if zero.stage == 3:
        section["stage3_gather_16bit_weights_on_model_save"] = True
    if zero.offload_optimizer:
        section["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if zero.offload_weights:
        section["offload_param"] = {"device": "cpu", "pin_memory": True}
    return section


def expect_micro_batches(trainer: Trainer, most: int) -> None:
    """Tell DeepSpeed that a step may have several backward passes; call it before training.

    The trainer's own loop sees one batch a step, and tells DeepSpeed where each step ends. The
    number itself divides nothing, but with an offloaded optimizer DeepSpeed reads the gradient's
    norm from another place when it is 1.
    """
    plugin = trainer.accelerator.state.deepspeed_plugin
    if plugin is None:
        raise TrainingError(_NOT_ON)
    config = plugin.deepspeed_config
    config["gradient_accumulation_steps"] = most
    config["train_batch_size"] = most * trainer.args.world_size * _micro(config)


def _micro(config: Mapping[str, Any]) -> int:
    found = config["train_micro_batch_size_per_gpu"]
    return 1 if found == "auto" else int(found)


_NOT_ON = (
    "DeepSpeed is not on in this worker, though the job asks for it: another package may have set "
    "up accelerate before the job did; start the job in an environment of its own"
)


def check_deepspeed(trainer: Trainer, stage: int) -> None:
    """Check, once the model is wrapped, that DeepSpeed runs it and at what stage.

    Raises:
        TrainingError: If it does not, or at another stage.
    """
    from deepspeed import DeepSpeedEngine

    engine = trainer.model_wrapped
    if not trainer.is_deepspeed_enabled or not isinstance(engine, DeepSpeedEngine):
        raise TrainingError(_NOT_ON)
    if (found := engine.zero_optimization_stage()) != stage:
        raise TrainingError(f"DeepSpeed runs at ZeRO stage {found}; expected {stage}")


def bad_norm(engine: Any) -> float | None:
    """The norm of the gradient of DeepSpeed's last step if it is no number; None if it is one.

    At a norm that is none DeepSpeed leaves the step out in silence (stages 1 and 2), or takes it.
    It may stand there as infinity, NaN, or -1.
    """
    asked = getattr(engine, "get_global_grad_norm", None)  # `check_deepspeed` sees to DeepSpeed
    norm = None if asked is None else asked()
    return None if norm is None or 0.0 <= float(norm) < math.inf else float(norm)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device or the host is out of memory."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _NO_MEMORY)


_NO_MEMORY = ("can't allocate memory", "not enough memory", "CUDA out of memory")


def device_name() -> str:
    """The name of the GPU that the process uses, or ``cpu``."""
    import torch

    on_gpu = bool(os.environ.get("CUDA_VISIBLE_DEVICES", "0")) and torch.cuda.is_available()
    return torch.cuda.get_device_name() if on_gpu else "cpu"
