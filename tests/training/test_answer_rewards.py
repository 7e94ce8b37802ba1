"""Answers scored by the reward actors, as the trainer asks for it; and actors that are stuck."""

from __future__ import annotations

import time

import psutil
import pytest
from planted_waits import one_by_one, waiting_pools

from mixup.actors.reward_settings import RewardSettings
from mixup.actors.rewards import RewardPools
from mixup.config import EmbedConfig
from mixup.errors import StalledError
from mixup.models.encoder import similarity_of
from mixup.refresh_config import ScoringConfig
from mixup.rewards.rubric import Rubric
from mixup.training.grpo.prompts import PromptRow
from mixup.training.grpo.scoring import AnswerRewards, _request

pytestmark = [pytest.mark.slow]

MODEL = "bundled:minilm"
GOLD = "Q: What makes bread rise?\nA: Yeast eats sugar in the dough."
WITHOUT_QUALITY = {"quality": 0.0, "alignment": 0.6, "format": 0.2, "coverage": 0.2}


def prompt(number: int) -> PromptRow:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    return PromptRow(f"{number:032x}", "qa", messages, ("Q: Why?\nA: Yeast.",), GOLD)


def written(answer: str) -> str:
    return f"<think>\nBoth say this.\n</think>\n\n<answer>\n{answer}\n</answer>"


@pytest.fixture(scope="module")
def pools(ray_cluster: None) -> RewardPools:
    settings = RewardSettings(
        mode="soft",
        similarity=similarity_of(MODEL, None),
        threshold=4,
        neighbors=16,
        effective_votes=4.0,
        encoder="e",
        library=None,
    )
    config = ScoringConfig(actors=2, actor_cpus=0.05, encoder_cpus=0.25)
    return RewardPools.start(config, EmbedConfig(model=MODEL), settings, None)


def test_answers_get_what_they_are_worth(pools):
    rewards = AnswerRewards(pools, Rubric(WITHOUT_QUALITY), 120.0)
    texts = [written(GOLD), written("Q: What is a violin?\nA: A thing of wood."), GOLD, ""]
    scored = rewards.score([prompt(number) for number in range(4)], texts)
    values = [{part.component: part.value for part in one.parts} for one in scored]
    assert values[0]["alignment"] == values[0]["format"] == 1.0
    assert scored[0].value is not None
    assert scored[0].value > 0.8
    assert values[1]["alignment"] == 0.0
    assert values[2]["format"] == 0.0
    assert values[2]["alignment"] == 1.0  # scored whole, as in the paper's code
    assert scored[3].value == 0.0  # nothing was said: that is known, not missing
    assert all(value["quality"] is None for value in values[:3])  # there is no library
    assert {span[0] for span in rewards.spans} >= {"encode", "format", "alignment"}


def test_a_missing_component_with_weight_makes_the_reward_missing(pools):
    scored = AnswerRewards(pools, Rubric(), 120.0).score([prompt(1)], [written(GOLD)])
    assert scored[0].value is None
    assert {part.component: part.reason for part in scored[0].parts}["quality"] == (
        "no_reference_library"
    )


def test_actors_that_are_stuck_are_named(pools):
    rewards = AnswerRewards(pools, Rubric(WITHOUT_QUALITY), 120.0)
    rewards.score([prompt(1)], [written(GOLD)])  # all are there
    encoders = [
        child
        for child in psutil.Process().children(recursive=True)
        if "_EncoderActor" in " ".join(child.cmdline())
    ]
    impatient = AnswerRewards(pools, Rubric(WITHOUT_QUALITY), 2.0)
    start = time.monotonic()
    for one in encoders:
        one.suspend()
    try:
        with pytest.raises(StalledError, match="the reward's encoder did not score 1 answers"):
            impatient.score([prompt(2)], [written("Q: b?\nA: c.")])
    finally:
        for one in encoders:
            one.resume()
    assert time.monotonic() - start < 20


WAITS_S = {"quality": 0.6, "alignment": 0.5, "format": 0.5, "coverage": 0.4}


def test_components_are_awaited_together(ray_cluster):
    """Where components wait for somebody else, all of them take as long as the slowest."""
    pools = waiting_pools(WAITS_S, actors=2)
    slowest, all_of_them = max(WAITS_S.values()), sum(WAITS_S.values())
    requests = [_request(prompt(number), written(GOLD)) for number in range(8)]

    def seconds(some: RewardPools) -> float:
        start = time.monotonic()
        scores, _ = some.score(requests, timeout_s=60.0)
        assert all(score.value is not None for found in scores.values() for score in found)
        return time.monotonic() - start

    seconds(pools)  # all are there
    together = seconds(pools)
    apart = sum(seconds(one) for one in one_by_one(pools))
    assert slowest <= together < slowest + 0.5
    assert apart >= all_of_them
    assert together / apart < 0.6  # max / sum is 0.3

    # Nor do batches wait for one another: there are two, and two actors of each component.
    start = time.monotonic()
    AnswerRewards(pools, Rubric(), 60.0).score([prompt(1)] * 8, [written(GOLD)] * 8)
    assert slowest <= time.monotonic() - start < slowest + 0.5
