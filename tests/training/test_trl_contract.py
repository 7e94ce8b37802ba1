"""What the trainer relies on in TRL, and that a step's gradients are those of plain PyTorch.

In one process and without DeepSpeed: the rollouts, the rewards and the record are given by hand.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trl
from tiny_grpo import grpo_config

from mixup.models.chat import render_chat
from mixup.rewards.rubric import COMPONENTS
from mixup.training import worker
from mixup.training.checkpoints import CheckpointStore, Ranks
from mixup.training.grpo import arguments
from mixup.training.grpo.batches import PromptBatch
from mixup.training.grpo.engines import Rollout
from mixup.training.grpo.generation import EngineGeneration
from mixup.training.grpo.prompts import PromptRow
from mixup.training.grpo.rolling import Rolling
from mixup.training.grpo.rollouts import RewardPart
from mixup.training.grpo.scoring import AnswerRewards, Scored
from mixup.training.grpo.trainer import RolloutTrainer
from mixup.training.grpo.worker import plan_of
from mixup.training.models import find_base, load_model, load_tokenizer, lora_config
from mixup.workspace import Workspace

GROUP = 4
REWARDS = [
    *(0.9, 0.1, 0.4, math.nan),  # one is missing
    *(math.nan, math.nan, math.nan, 0.7),  # one is there, which says nothing
    *(0.5, 0.5, 0.5, 0.5),  # all equal
    *(0.2, 0.2, 0.21, 0.2),  # less apart than the floor
]
LENGTHS = [3, 11, 1, 6, 4, 4, 4, 4, 2, 9, 5, 7, 8, 1, 12, 3]


class GivenGeneration(EngineGeneration):
    """Rollouts of random tokens, drawn by nobody."""

    def __init__(self) -> None:
        super().__init__(None, None, None, None, Ranks())  # type: ignore[reportArgumentType]
        self.synced: list[int] = []
        self.prompts: list[list[int]] = []

    def sync_weights(self) -> None:
        self.synced.append(self._step())

    def complete(self, requests: Any, sampling: Any) -> list[Rollout]:
        self.prompts = [request.prompt_ids for request in requests]
        draw = np.random.default_rng(1)
        found = []
        for length, _ in zip(LENGTHS, requests, strict=True):
            logprobs = draw.uniform(-12, -9, length).tolist()
            tokens = draw.integers(10, 40_000, length).tolist()
            found.append(Rollout(tokens, logprobs, "length", 0))
        found[1].logprobs[2] = math.nan  # the engine gave none
        return found


class GivenRewards(AnswerRewards):
    def __init__(self) -> None:
        super().__init__(None, None, 1.0)  # type: ignore[reportArgumentType]

    def score(self, prompts: Sequence[PromptRow], texts: Sequence[str]) -> list[Scored]:
        found = []
        for value, _ in zip(REWARDS, prompts, strict=True):
            known = None if math.isnan(value) else value
            parts = tuple(RewardPart(name, known) for name in COMPONENTS)
            found.append(Scored(parts, known))
        return found


class Record:
    def __init__(self) -> None:
        self.rows: list[tuple] = []

    def write(self, step: int, *columns: Any) -> None:
        self.rows = list(zip(*columns, strict=True))


def prompts() -> list[PromptRow]:
    return [
        PromptRow(
            pair=f"{number:032x}",
            task="qa",
            messages=[
                {"role": "system", "content": "Merge." * (number + 1)},
                {"role": "user", "content": f"Q: {number}?"},
            ],
            items=("Q: a?",),
            target="Q: a?\nA: b.",
        )
        for number in range(len(REWARDS) // GROUP)
    ]


def trainer_of(
    distiller: Path, pairs: Path, place: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str
) -> Any:
    monkeypatch.setattr(worker, "deepspeed_config", lambda *given, **named: None)
    config = grpo_config(place / "w", distiller, pairs, "workers.count=1", *overrides)
    plan = plan_of(config, 20, "set")
    rolling = Rolling(
        plan=plan,
        rows=None,  # type: ignore[reportArgumentType]
        learning=arguments.learning_of(config),
        held_out=None,
        generation=GivenGeneration(),
        rewards=GivenRewards(),
        record=Record(),  # type: ignore[reportArgumentType]
        store=CheckpointStore(Workspace(str(place)), "t"),
        log=None,
        ranks=Ranks(),
        stage=0,
    )
    base = find_base(str(distiller))
    trainer = RolloutTrainer(
        rolling,
        model=load_model(base, bf16=False),
        args=arguments.trl_arguments(config, plan, place, {"use_cpu": True}, is_measured=False),
        processing_class=load_tokenizer(base, template="chat"),
        peft_config=None if config.lora is None else lora_config(config.lora),
    )
    trainer.create_optimizer_and_scheduler(num_training_steps=1)
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def test_the_version_is_the_one_that_was_read():
    assert trl.__version__.startswith("1.16.")


@pytest.mark.parametrize(
    "name",
    [
        *("get_train_dataloader", "training_step", "_generate_and_score_completions"),
        *("_calculate_rewards", "_prepare_inputs", "_compute_loss", "evaluate", "log"),
        *("get_batch_samples", "_save_checkpoint", "floating_point_ops"),
    ],
)
def test_what_is_overridden_is_there_with_the_same_arguments(name):
    theirs = inspect.signature(getattr(trl.GRPOTrainer, name)).parameters
    ours = inspect.signature(getattr(RolloutTrainer, name)).parameters
    taken = {one.kind for one in ours.values()}
    if inspect.Parameter.VAR_KEYWORD not in taken:
        assert list(theirs) == list(ours)


def test_trl_asks_our_engines_for_our_prompts(distiller, pairs, tmp_path, monkeypatch):
    trainer = trainer_of(distiller, pairs, tmp_path, monkeypatch)
    generation: Any = trainer.vllm_generation
    trainer.model.train()
    found = trainer._draw(PromptBatch(0, [prompts()]))
    assert generation.synced == [0]
    expected = [render_chat(str(distiller), row.messages) for row in prompts()]
    assert generation.prompts == [ids for ids in expected for _ in range(GROUP)]
    assert len(set(generation.seeds)) == len(REWARDS)
    assert found["completion_mask"].sum(1).tolist() == LENGTHS
    assert found["sampling_per_token_logps"].isnan().sum() == 1
    trainer._draw(PromptBatch(0, [prompts()]))
    assert generation.synced == [0]  # once a step


def test_advantages_and_reasons_are_ours(distiller, pairs, tmp_path, monkeypatch):
    trainer = trainer_of(distiller, pairs, tmp_path, monkeypatch)
    trainer.model.train()
    found = trainer._draw(PromptBatch(0, [prompts()]))
    std = np.std([0.9, 0.1, 0.4], ddof=1)
    first = [(0.9 - 0.46667) / std, (0.1 - 0.46667) / std, (0.4 - 0.46667) / std, 0.0]
    last = [-0.0025 / 0.05, -0.0025 / 0.05, 0.0075 / 0.05, -0.0025 / 0.05]
    expected = [*first, *[0.0] * 8, *last]
    assert found["advantages"].tolist() == pytest.approx(expected, abs=1e-4)
    assert found["kept"].tolist() == [1, 1, 1, 0, *[0] * 4, *[1] * 8]
    record: Any = trainer._rolling.record
    reasons = [row[-1] for row in record.rows]
    assert reasons == [*[None] * 3, "no_reward", *["no_reward"] * 3, "few_rewards", *[None] * 8]


def reference_logprobs(model: Any, found: dict[str, Any], place: int) -> torch.Tensor:
    """Of one completion, forwarded alone, without padding."""
    prompt = found["prompt_ids"][place][found["prompt_mask"][place] == 1]
    answer = found["completion_ids"][place][: LENGTHS[place]]
    ids = torch.cat([prompt, answer])[None]
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(1, answer[:, None])[:, 0]


@pytest.mark.parametrize(
    "aggregation",
    ["dapo", *(pytest.param(name, marks=pytest.mark.thorough) for name in ("grpo", "dr_grpo"))],
)
def test_gradients_are_those_of_plain_pytorch(distiller, pairs, tmp_path, monkeypatch, aggregation):
    trainer = trainer_of(
        distiller, pairs, tmp_path, monkeypatch, f"objective.variant={aggregation}"
    )
    trainer.args.max_grad_norm = 0.0
    plain: Any = load_model(find_base(str(distiller)), bf16=False)
    with torch.no_grad():  # so that the KL term is not 0
        for one in (trainer.model, plain):
            torch.manual_seed(1)
            for weights in one.parameters():
                weights.add_(torch.randn_like(weights) * 0.003)
    untouched: Any = load_model(find_base(str(distiller)), bf16=False)
    drawn: list[dict[str, Any]] = []
    draw = trainer._draw
    monkeypatch.setattr(trainer, "_draw", lambda batch: drawn.append(draw(batch)) or drawn[-1])
    loss = trainer.training_step(trainer.model, PromptBatch(1, [prompts()]))
    (found,) = drawn
    kept = [place for place in range(len(LENGTHS)) if found["kept"][place]]
    total = 0.0
    for place in kept:
        length = LENGTHS[place]
        logprobs = reference_logprobs(plain, found, place)
        with torch.no_grad():
            base = reference_logprobs(untouched, found, place)
        old, advantage = logprobs.detach(), found["advantages"][place]
        ratio = torch.exp(logprobs - old)
        objective = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.3) * advantage)
        sampled = found["sampling_per_token_logps"][place][:length]
        weight = torch.exp(torch.nan_to_num(old - sampled, nan=0.0)).clamp(max=2.0)
        kl = torch.exp(base - logprobs) - (base - logprobs) - 1
        each = -objective * weight + 0.01 * kl
        tokens = sum(LENGTHS[one] for one in kept)
        divisor = {"dapo": tokens, "grpo": len(kept) * length, "dr_grpo": len(kept) * 20}
        part = each.sum() / divisor[aggregation]
        part.backward()
        total += part.item()
    assert loss.item() == pytest.approx(total, abs=1e-5)
    expected = {name: weights.grad for name, weights in plain.named_parameters()}
    for name, weights in trainer.model.named_parameters():
        torch.testing.assert_close(weights.grad, expected[name], atol=2e-6, rtol=2e-3)
    assert max(float(grad.abs().max()) for grad in expected.values() if grad is not None) > 1e-3
