"""What is pushed: all tensors by their checkpoint's names, LoRA merged, and what they hash to."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tiny_llama import load_tiny_llama, save_tiny_llama, train_a_little, with_lora

from mixup.errors import ConfigError, WrongWeights
from mixup.training.grpo.fingerprints import (
    check_fingerprints,
    tensor_fingerprint,
    trainer_fingerprints,
)
from mixup.training.grpo.weights import buckets, named_weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tied"), tied=True)


def test_a_tied_head_is_named_too(folder: Path):
    model = load_tiny_llama(folder)
    found = dict(named_weights(model))
    assert found.keys() == model.state_dict().keys()
    assert "lm_head.weight" in found
    assert found["lm_head.weight"].data_ptr() == found["model.embed_tokens.weight"].data_ptr()
    assert "lm_head.weight" not in dict(model.named_parameters())  # why this is worth a test


def test_lora_is_merged_as_peft_merges_it_and_the_model_is_left_alone(folder: Path):
    adapted = with_lora(load_tiny_llama(folder))
    before = {name: value.clone() for name, value in adapted.state_dict().items()}
    found = dict(named_weights(adapted))
    assert all(torch.equal(before[name], value) for name, value in adapted.state_dict().items())
    merged = adapted.merge_and_unload().state_dict()
    assert found.keys() == merged.keys()
    assert all(torch.equal(found[name], value) for name, value in merged.items())
    assert not torch.equal(
        found["model.layers.0.mlp.up_proj.weight"],
        load_tiny_llama(folder).state_dict()["model.layers.0.mlp.up_proj.weight"],
    )


def test_an_adapter_that_is_not_plain_lora_is_refused(folder: Path):
    from peft import LoraConfig, get_peft_model

    dora = get_peft_model(
        load_tiny_llama(folder), LoraConfig(r=2, target_modules=["q_proj"], use_dora=True)
    )
    with pytest.raises(ConfigError, match="plain LoRA"):
        dict(named_weights(dora))


def test_nothing_is_gathered_any_more_when_a_tensor_is_given(folder: Path):
    """Under ZeRO-3: parameters are whole inside the block only, and so is each LoRA layer."""
    adapted = with_lora(load_tiny_llama(folder))
    held: list[int] = []

    @contextmanager
    def gather(parameters):
        held.append(len(parameters))
        yield
        held.append(-len(parameters))

    for _ in named_weights(adapted, gather=gather):
        assert sum(held) == 0
    assert max(held) == 3  # a projection's own weight, A and B


def test_buckets_bring_every_dtype_back_bit_by_bit():
    tensors = {
        "a": torch.randn(5, 3).to(torch.bfloat16),
        "b": torch.randn(4),
        "c": torch.randn(2, 2).T,
        "d": torch.tensor(3.0),
    }
    made = list(buckets(tensors.items(), most_bytes=40))
    assert [list(bucket.arrays) for bucket in made] == [["a"], ["b", "c", "d"]]  # 30, 36 bytes
    found = {name: tensor for bucket in made for name, tensor in bucket.tensors()}
    assert list(found) == list(tensors)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert all(found[name].dtype == tensor.dtype for name, tensor in tensors.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_fingerprint_sees_any_bit_the_place_the_shape_and_the_dtype(dtype: torch.dtype):
    tensor = torch.randn(130, 70).to(dtype)
    own = tensor_fingerprint(tensor)
    assert tensor_fingerprint(tensor.clone()) == own
    other = tensor.clone()
    other[129, 69] = torch.nextafter(other[129, 69], torch.tensor(9.0, dtype=dtype))
    swapped = tensor.clone()
    swapped[[0, 1]] = swapped[[1, 0]]
    different = [other, swapped, tensor.T, tensor.reshape(70, 130), tensor.reshape(-1)]
    assert own not in {tensor_fingerprint(one) for one in different}
    assert tensor_fingerprint(tensor.double()) != own
    zeros = torch.zeros(3, dtype=dtype)
    assert tensor_fingerprint(zeros) == tensor_fingerprint(-zeros)


def test_a_wrong_tensor_is_named(folder: Path):
    model = load_tiny_llama(folder)
    ours = trainer_fingerprints(named_weights(model))
    check_fingerprints(ours, dict(ours), who="engine 0", version=3)
    train_a_little(model.model.layers[1].mlp.up_proj, seed=0)
    theirs = trainer_fingerprints(named_weights(model))
    del theirs["model.norm.weight"]
    with pytest.raises(WrongWeights) as caught:
        check_fingerprints(ours, {**theirs, "rope": ""}, who="engine 0", version=3)
    said = str(caught.value)
    assert "engine 0 does not hold the trainer's weights of version 3" in said
    assert "1 of 21 tensors differ: model.layers.1.mlp.up_proj.weight;" in said
    assert "are not in the engine: model.norm.weight;" in said
    assert "are in the engine only: rope." in said
