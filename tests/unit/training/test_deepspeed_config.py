import pytest

from mixup.training.deepspeed import deepspeed_config, threads_of, worker_environment
from mixup.training_config import OptimizerConfig, WorkersConfig, ZeroConfig


def config(zero: ZeroConfig, *, on_gpu: bool = False) -> dict:
    return deepspeed_config(zero, OptimizerConfig(), bf16=on_gpu, on_gpu=on_gpu)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_stage_is_the_one_that_is_asked_for(stage):
    found = config(ZeroConfig(stage=stage))
    assert found["zero_optimization"]["stage"] == stage
    assert found["optimizer"]["params"]["torch_adam"] is True
    assert found["bf16"]["enabled"] is False


def test_gradients_are_summed_in_float32():
    assert config(ZeroConfig(), on_gpu=True)["data_types"]["grad_accum_dtype"] == "fp32"


def test_offload_needs_to_be_asked_for():
    assert "offload_optimizer" not in config(ZeroConfig(stage=3), on_gpu=True)["zero_optimization"]
    given = ZeroConfig(stage=3, offload_optimizer=True, offload_weights=True)
    section = config(given, on_gpu=True)["zero_optimization"]
    assert section["offload_optimizer"]["device"] == section["offload_param"]["device"] == "cpu"


def test_a_worker_without_a_gpu_sees_none():
    found = worker_environment(WorkersConfig(cpus=1.5))
    assert found["CUDA_VISIBLE_DEVICES"] == ""
    assert found["DS_ACCELERATOR"] == "cpu"
    assert found["OMP_NUM_THREADS"] == "2"
    assert "CUDA_VISIBLE_DEVICES" not in worker_environment(WorkersConfig(gpus=1))
    assert threads_of(WorkersConfig(cpus=0.5)) == 1
