"""The vLLM engine with the bundled model: one continuous batch for all threads that ask."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch

from mixup.errors import EngineDied
from mixup.models import cpu_sampling
from mixup.models.generator import Generation, GenerationRequest, VllmGenerator
from mixup.refresh_config import DistillConfig

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def engine() -> VllmGenerator:
    config = DistillConfig(
        model="bundled:smollm2",
        temperature=0.7,
        max_tokens=12,
        context_tokens=256,
        engine_gpus=0,
        engine_cpus=2,
    )
    return VllmGenerator(config.model, config)


def requests(count: int, first: int = 0) -> list[GenerationRequest]:
    return [GenerationRequest([1, 100 + place, 200], seed=first + place) for place in range(count)]


def test_calls_at_the_same_time_get_what_they_would_get_alone(engine: VllmGenerator):
    calls = [requests(5), requests(3, first=50), requests(1, first=90)]
    alone = [engine.generate(call) for call in calls]
    with ThreadPoolExecutor(3) as threads:
        together = list(threads.map(engine.generate, calls))
    # A mean log-probability is rounded otherwise in a batch of another size.
    apart = [one.logprob for call in alone for one in call]
    assert [one.logprob for call in together for one in call] == pytest.approx(apart, abs=1e-5)
    said = [[replace(one, logprob=None) for one in call] for call in together]
    assert said == [[replace(one, logprob=None) for one in call] for call in alone]
    assert [len(found) for found in together] == [5, 3, 1]
    assert all(isinstance(one, Generation) and one.tokens <= 12 for one in together[0])
    assert engine.generate([]) == []


def test_tokens_are_drawn_by_inversion(engine: VllmGenerator, monkeypatch: pytest.MonkeyPatch):
    """The method of vLLM that does it is a private one; a release may move it."""
    draw, rows = cpu_sampling.drawn_tokens, []

    def noted(probabilities: torch.Tensor, generators: Any) -> torch.Tensor:
        rows.append((len(probabilities), len(generators)))
        return draw(probabilities, generators)

    monkeypatch.setattr(cpu_sampling, "drawn_tokens", noted)
    made = engine.generate(requests(3, first=20))
    assert sum(count for count, _ in rows) >= sum(one.tokens for one in made)
    assert all(count == seeds for count, seeds in rows)  # each draws from its own seed


def test_what_prompts_share_is_read_once(engine: VllmGenerator):
    """A task's prompts share little more than a hundred tokens: a block must be smaller."""
    shared = list(range(1000, 1070))
    asked = [GenerationRequest([*shared, last], seed=last) for last in (5, 6)]
    _, second = (
        engine._engine.complete([one.prompt_ids], [engine._sampling(one)])[0] for one in asked
    )
    assert second.num_cached_tokens == 64


def test_a_failed_engine_says_so_to_every_caller(engine: VllmGenerator):
    """The last test: the engine is gone after it."""
    too_long = [GenerationRequest([1] * 4000, seed=0)]
    with ThreadPoolExecutor(2) as threads:
        other = threads.submit(engine.generate, requests(4))
        with pytest.raises(EngineDied, match="the engine failed"):
            engine.generate(too_long)
        other.exception()
    with pytest.raises(EngineDied):
        engine.generate(requests(1))
