"""The reward on held-out pairs, answered by the engines with the model as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from mixup.records import content_key
from mixup.rewards.rubric import COMPONENTS
from mixup.training.checkpoints import Ranks
from mixup.training.grpo.engines import Rollout, RolloutRequest, Sampling
from mixup.training.grpo.generation import EngineGeneration
from mixup.training.grpo.prompts import PromptRow, PromptRows
from mixup.training.grpo.scoring import AnswerRewards, Scored


@dataclass(frozen=True)
class HeldOutPairs:
    """What the reward is measured on.

    Attributes:
        rows: The rows of the set.
        chosen: The ids of those that are asked.
        samples: Answers to each.
        sampling: How they are drawn.
        seed: Of the draw: the same at each evaluation, so that two of them are a pair.
    """

    rows: PromptRows
    chosen: Sequence[int]
    samples: int
    sampling: Sampling
    seed: int


def seed_of(*parts: object) -> int:
    """A seed of 31 bits that the parts decide."""
    return int(content_key("seed", *parts)[:8], 16) & 0x7FFFFFFF


def held_out_reward(
    pairs: HeldOutPairs,
    generation: EngineGeneration,
    rewards: AnswerRewards,
    tokenizer: Any,
    ranks: Ranks,
    *,
    device: torch.device,
) -> dict[str, float]:
    """The mean reward and each component's, over all answers that have it; called by every rank.

    Returns:
        ``reward`` and its standard error over pairs, ``reward/COMPONENT``, how many answers there
        are, have no reward, and were cut off, and their mean length in tokens.
    """
    asked = [pairs.rows[row] for row in pairs.chosen[ranks.rank :: ranks.world]]
    prompts = [prompt for prompt in asked for _ in range(pairs.samples)]
    requests = [
        RolloutRequest(
            rendered(tokenizer, prompt),
            seed_of(pairs.seed, prompt.pair, place % pairs.samples),
        )
        for place, prompt in enumerate(prompts)
    ]
    found = generation.complete(requests, pairs.sampling) if requests else []
    scored = rewards.score(prompts, rewards.texts([one.token_ids for one in found]))
    sums = torch.tensor(_sums(found, scored, pairs.samples), dtype=torch.float64, device=device)
    if dist.is_initialized():
        dist.all_reduce(sums)
    return _metrics(dict(zip(_NAMES, sums.tolist(), strict=True)))


def rendered(tokenizer: Any, prompt: PromptRow) -> list[int]:
    """The token ids of a prompt and of the opening of its answer, as distillation renders them."""
    return tokenizer.apply_chat_template(
        prompt.messages, add_generation_prompt=True, tokenize=True, return_dict=False
    )


_NAMES = (
    *("answers", "tokens", "cut", "reward", "rewarded", "pairs", "pair", "squares"),
    *(f"{what}/{name}" for name in COMPONENTS for what in ("sum", "count")),
)


def _sums(found: Sequence[Rollout], scored: Sequence[Scored], samples: int) -> list[float]:
    values_N = np.array([np.nan if one.value is None else one.value for one in scored])
    by_pair_PS = values_N.reshape(-1, samples)
    there_P = np.isfinite(by_pair_PS).any(1)
    means_P = np.nanmean(by_pair_PS[there_P], axis=1)
    parts = [
        [part.value for one in scored for part in one.parts if part.component == name]
        for name in COMPONENTS
    ]
    have = [[value for value in values if value is not None] for values in parts]
    return [
        float(len(found)),
        float(sum(len(one.token_ids) for one in found)),
        float(sum(one.finish == "length" for one in found)),
        float(np.nansum(values_N)),
        float(np.isfinite(values_N).sum()),
        float(len(means_P)),
        float(means_P.sum()),
        float((means_P**2).sum()),
        *(number for values in have for number in (float(sum(values)), float(len(values)))),
    ]


def _metrics(sums: Mapping[str, float]) -> dict[str, float]:
    count = sums["pairs"]
    metrics = {
        "reward": sums["reward"] / sums["rewarded"] if sums["rewarded"] else float("nan"),
        "answers": sums["answers"],
        "without_reward": sums["answers"] - sums["rewarded"],
        "cut_off": sums["cut"],
        "mean_tokens": sums["tokens"] / max(sums["answers"], 1.0),
    }
    if count > 1:
        variance = max(0.0, (sums["squares"] - sums["pair"] ** 2 / count) / (count - 1))
        metrics["standard_error"] = (variance / count) ** 0.5
    for name in COMPONENTS:
        if have := sums[f"count/{name}"]:
            metrics[f"reward/{name}"] = sums[f"sum/{name}"] / have
    return metrics
