"""Engines as Ray actors on a tiny Llama: what passes the gate, and all that must not.

Every negative control is a fault that raises nothing by itself: no push, a stale head, one tensor
a hundredth off, an engine one version behind, a forward pass that is not the same.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray import cloudpickle
from tiny_llama import load_tiny_llama, save_tiny_llama, train_a_little, with_lora

from mixup.errors import StalledError, WrongWeights
from mixup.rater_config import EngineConfig
from mixup.training.grpo.engines import EngineActor, RolloutRequest, Sampling
from mixup.training.grpo.gate import BOUNDS, Gate, logprob_gap, trainer_logprobs
from mixup.training.grpo.pool import EnginePool, ObjectStorePush, Patience
from mixup.training.grpo.weights import named_weights

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SEQUENCES = [[1, *range(10, 40)], [1, 200, 299, 3, 77], [5, 6]]
SAMPLING = Sampling(temperature=0.7, top_p=1.0, max_tokens=12)
PATIENCE = Patience(start_s=200, push_s=60, generate_s=60)


class Engine(EngineActor):
    """An engine that says which process it is."""

    def process(self) -> int:
        return os.getpid()


def pool_of(folder: Path, engines: int, patience: Patience = PATIENCE) -> EnginePool:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    settings = EngineConfig(
        model=str(folder),
        engines=engines,
        engine_cpus=0.5,
        engine_gpus=0,
        engine_memory_gb=1.0,
        context_tokens=64,
        max_tokens=12,
    )
    return EnginePool.start(str(folder), settings, patience, actor=Engine)


@pytest.fixture(scope="module")
def tied(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tied"), tied=True)


@pytest.fixture(scope="module")
def pool(tied: Path) -> Iterator[EnginePool]:
    found = pool_of(tied, 1)
    yield found
    for engine in found.handles:
        ray.kill(engine)


def process_of(engine: Any) -> Any:
    return ray.get(engine.process.remote())


def requests(count: int) -> list[RolloutRequest]:
    return [RolloutRequest([1, 10 + place, 20], seed=place) for place in range(count)]


def pushed(pool: EnginePool, model: Any, version: int) -> Gate:
    gate = Gate(pool, SEQUENCES)
    ObjectStorePush(pool).push(named_weights(model, dtype=gate.dtype), version)
    return gate


def test_full_weights_of_a_tied_model_pass(pool: EnginePool, tied: Path):
    model = load_tiny_llama(tied)
    for version in (1, 2):
        train_a_little(model, seed=version)
        [gap] = pushed(pool, model, version).check(model, version)
        assert gap.mean < BOUNDS["float32"] == 1e-5
        assert (gap.tokens, gap.missing) == (30 + 4 + 1, 0)


def test_lora_weights_of_a_tied_model_pass_and_the_adapter_matters(pool: EnginePool, tied: Path):
    model = with_lora(load_tiny_llama(tied))
    gate = pushed(pool, model, 3)
    [gap] = gate.check(model, 3)
    assert gap.mean < 1e-5
    with model.disable_adapter():
        apart = logprob_gap(trainer_logprobs(model, SEQUENCES), pool.scores(SEQUENCES, 3)[0])
    assert apart.mean > 1e-2


def test_what_is_drawn_comes_with_the_log_probabilities_it_was_drawn_with(
    pool: EnginePool, tied: Path
):
    model = load_tiny_llama(tied)
    pushed(pool, model, 4)
    found = pool.generate(requests(6), SAMPLING, 4)
    assert found == pool.generate(requests(6), SAMPLING, 4)  # by their seeds
    assert len({tuple(one.token_ids) for one in found}) > 1
    for request, one in zip(requests(6), found, strict=True):
        tokens = request.prompt_ids + one.token_ids
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokens])).logits[0, 2:-1] / SAMPLING.temperature
        own = logits.log_softmax(-1).gather(1, torch.tensor(one.token_ids)[:, None])[:, 0]
        assert np.abs(own.numpy() - np.array(one.logprobs)).max() < 1e-4
        assert (one.version, one.finish in ("stop", "length")) == (4, True)
        assert one.finish == "length" or one.token_ids[-1] == 2


def test_without_a_push_the_version_stops_the_run(pool: EnginePool, tied: Path):
    model = load_tiny_llama(tied)
    gate = pushed(pool, model, 10)
    train_a_little(model, seed=1)
    with pytest.raises(WrongWeights, match="engine 0 holds version 10 and was .* version 11"):
        gate.check(model, 11)
    with pytest.raises(WrongWeights, match="holds version 10 and was asked for version 11"):
        pool.generate(requests(2), SAMPLING, 11)
    with pytest.raises(WrongWeights, match="holds version 10 and was asked for version 9"):
        pool.generate(requests(2), SAMPLING, 9)


def test_a_push_that_did_not_happen_is_seen_under_any_version(pool: EnginePool, tied: Path):
    model = load_tiny_llama(tied)
    gate = pushed(pool, model, 12)
    train_a_little(model, seed=1)
    with pytest.raises(WrongWeights, match="21 of 21 tensors differ: lm_head.weight, "):
        gate.check(model, 12)


def test_a_stale_head_is_named(pool: EnginePool, tied: Path):
    """What vLLM does on a CPU with a tied head that is not named in the push: nothing, silently."""
    model = load_tiny_llama(tied)
    gate = pushed(pool, model, 20)
    train_a_little(model, seed=2)
    without = [(name, one) for name, one in named_weights(model) if name != "lm_head.weight"]
    pool.push(without, 21)
    with pytest.raises(WrongWeights, match=r"1 of 21 tensors differ: lm_head.weight\."):
        gate.check(model, 21)


@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.1.self_attn.k_proj.weight"])
def test_one_tensor_a_hundredth_off_is_named(pool: EnginePool, tied: Path, name: str):
    model = load_tiny_llama(tied)
    gate = Gate(pool, SEQUENCES)
    pool.push([(one, w + 0.01 * (one == name)) for one, w in named_weights(model)], 30)
    with pytest.raises(WrongWeights, match=rf"1 of 21 tensors differ: {name}\."):
        gate.check(model, 30)


def test_the_second_step_sees_what_tensors_do_not_show(pool: EnginePool, tied: Path):
    model = load_tiny_llama(tied)
    gate = pushed(pool, model, 40)
    model.model.rotary_emb.inv_freq *= 1.01  # no tensor of a checkpoint
    with pytest.raises(WrongWeights, match="they do not compute the same model"):
        gate.check(model, 40)


def test_an_engine_that_dies_is_replaced_loaded_and_its_work_redone(pool: EnginePool, tied: Path):
    model = load_tiny_llama(tied)
    train_a_little(model, seed=5)
    gate = pushed(pool, model, 50)
    gate.check(model, 50)
    expected = pool.generate(requests(4), SAMPLING, 50)
    [engine] = pool.handles
    before = process_of(engine)
    os.kill(before, signal.SIGKILL)
    assert pool.generate(requests(4), SAMPLING, 50) == expected
    assert process_of(engine) != before
    [gap] = gate.check(model, 50)
    assert gap.mean < 1e-5


def test_a_stuck_engine_is_named(pool: EnginePool, tied: Path):
    pushed(pool, load_tiny_llama(tied), 60)
    [engine] = pool.handles
    process = process_of(engine)
    impatient = EnginePool(pool.handles, pool._store, Patience(5, 3, 2))
    os.kill(process, signal.SIGSTOP)
    try:
        start = time.monotonic()
        with pytest.raises(
            StalledError, match="engine 0 did not complete 3 prompts with version 60"
        ):
            impatient.generate(requests(3), SAMPLING, 60)
        with pytest.raises(StalledError, match="engine 0 did not load version 61 within 3 s"):
            impatient.push(named_weights(load_tiny_llama(tied)), 61)
        assert time.monotonic() - start < 20
    finally:
        os.kill(process, signal.SIGCONT)


def test_two_engines_of_an_untied_model_share_the_work_and_one_behind_stops_it(
    ray_cluster: None, tmp_path: Path
):
    folder = save_tiny_llama(tmp_path / "untied", tied=False)
    pool = pool_of(folder, 2)
    model = load_tiny_llama(folder)
    train_a_little(model, seed=1)
    gaps = pushed(pool, model, 1).check(model, 1)
    assert len(gaps) == 2
    assert max(gap.mean for gap in gaps) < 1e-5
    adapted = with_lora(load_tiny_llama(folder))
    gate = pushed(pool, adapted, 2)
    assert max(gap.mean for gap in gate.check(adapted, 2)) < 1e-5
    found = pool.generate(requests(5), SAMPLING, 2)
    assert found == pool.generate(requests(5), SAMPLING, 2, first=1)
    # The second engine misses a push.
    one = EnginePool(pool.handles[:1], pool._store, PATIENCE)
    ObjectStorePush(one).push(named_weights(adapted), 3)
    with pytest.raises(WrongWeights, match="engine 1 holds version 2 and was asked for version 3"):
        pool.generate(requests(4), SAMPLING, 3)
    with pytest.raises(WrongWeights, match="engine 1 holds version 2 and was asked for version 3"):
        gate.check(adapted, 3)
    for engine in pool.handles:
        ray.kill(engine)


def test_the_source_of_the_native_way_agrees_with_itself(tied: Path):
    """vLLM's sender checks names, order, dtypes and shapes; this is its own check."""
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerWeightTransferEngine

    from mixup.training.grpo.native import Source

    source = Source()
    source.weights = list(named_weights(load_tiny_llama(tied), dtype=torch.bfloat16))
    sent = NCCLTrainerWeightTransferEngine._checked_iter(source, source.metadata())
    assert [name for name, _ in sent] == [meta.name for meta in source.metadata()]
    assert "lm_head.weight" in {meta.name for meta in source.metadata()}
    assert {meta.dtype for meta in source.metadata()} == {torch.bfloat16}
