"""What is worth watching of a step: sums over all ranks, and the seconds of its phases."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from mixup.rewards.rubric import COMPONENTS
from mixup.training.checkpoints import Ranks
from mixup.training.grpo.advantages import Advantages
from mixup.training.grpo.generation import EngineGeneration
from mixup.training.grpo.loss import Loss
from mixup.training.grpo.scoring import AnswerRewards, Scored
from mixup.training.metrics import MetricsLog

BINS = 10
"""Of the histogram of each reward, from 0 to 1."""

_PARTS = (
    *("tokens", "kl", "clipped_low", "clipped_high", "correction", "truncated", "uncorrected"),
    "entropy",
)
_ROLLOUTS = ("rollouts", "length", "cut", "reward", "squares", "rewarded", "no_logprob")


class StepWatch:
    """Gathers what a rank sees of a step.

    Attributes:
        reward: The mean reward of the last step; None where no rollout had one.
    """

    def __init__(self, ranks: Ranks, log: MetricsLog | None) -> None:
        self._ranks, self._log = ranks, log
        self._sums: dict[str, float] = {}
        self._groups: dict[str, float] = {}
        self._scored: list[Scored] = []
        self._started = self._drawn = 0.0
        self._last: dict[str, float] = {}
        self.reward: float | None = None

    def begin(self, generation: EngineGeneration) -> None:
        """A step begins; a push that was made for held-out pairs counts as its own."""
        generation.seconds.pop("generate", None)
        self._sums = dict.fromkeys(_PARTS, 0.0)
        self._started = time.monotonic()

    def groups(self, advantages: Advantages, scored: Sequence[Scored]) -> None:
        """The rollouts are there, with what the whole step's groups say."""
        self._groups = {
            "groups": float(advantages.groups),
            "groups_without_rewards": float(advantages.few),
            "groups_of_equal_rewards": float(advantages.constant),
            "rollouts_left_out": float((~advantages.kept_N).sum()),
        }
        self._scored, self._drawn = list(scored), time.monotonic()

    def part(self, loss: Loss, entropies_BT: torch.Tensor, mask_BT: torch.Tensor) -> None:
        """A part of an update went through the model."""
        for name in _PARTS[:-1]:
            self._sums[name] += float(getattr(loss, name))
        self._sums["entropy"] += float((entropies_BT * mask_BT).sum())

    def end(self, step: int, generation: EngineGeneration, rewards: AnswerRewards) -> None:
        """A step ends: sum over the ranks, and keep what it came to."""
        ended, rollouts = time.monotonic(), generation.last
        values_N = np.array([np.nan if one.value is None else one.value for one in self._scored])
        own = {
            **self._sums,
            "rollouts": float(len(rollouts)),
            "length": float(sum(len(one.token_ids) for one in rollouts)),
            "cut": float(sum(one.finish == "length" for one in rollouts)),
            "reward": float(np.nansum(values_N)),
            "squares": float(np.nansum(values_N**2)),
            "rewarded": float(np.isfinite(values_N).sum()),
            "no_logprob": float(sum(np.isnan(one.logprobs).sum() for one in rollouts)),
        }
        histograms = {name: _histogram(self._scored, name) for name in COMPONENTS}
        summed = self._summed([*own.values(), *np.concatenate([*histograms.values()])])
        totals = dict(zip(own, summed, strict=False))
        per = np.array(summed[len(own) :]).reshape(len(COMPONENTS), BINS + 3)
        self._last = {
            **_means(totals),
            **self._groups,
            **{f"reward/{name}": _mean(row) for name, row in zip(COMPONENTS, per, strict=True)},
            **_gap(generation),
            **self._seconds(ended, generation, rewards),
        }
        self.reward = self._last.get("reward")
        if self._log is not None:
            self._log.add("rewards", step, _reward_line(per, rewards))
        generation.seconds.clear()

    def read(self) -> dict[str, float]:
        """What the last step came to."""
        return {name: value for name, value in self._last.items() if value is not None}

    def _seconds(
        self, ended: float, generation: EngineGeneration, rewards: AnswerRewards
    ) -> dict[str, float]:
        """The seconds of each phase; ``others`` are the policy's and the reference's passes."""
        spent = {name: float(value) for name, value in generation.seconds.items()}
        reward = _span(rewards.spans)
        drawn = self._drawn - self._started
        phases = {name: spent.get(name, 0.0) for name in ("push", "gate", "generate")}
        known = sum(phases.values()) + reward
        found = {**phases, "reward": reward, "others": max(0.0, drawn - known)}
        found |= {"train": ended - self._drawn, "step": ended - self._started}
        return {f"seconds/{name}": value for name, value in found.items()}

    def _summed(self, values: Sequence[float]) -> list[float]:
        sums = torch.tensor(values, dtype=torch.float64)
        if dist.is_initialized():
            device = "cuda" if dist.get_backend() == "nccl" else "cpu"
            sums = sums.to(device)
            dist.all_reduce(sums)
        return sums.tolist()


def _histogram(scored: Sequence[Scored], component: str) -> np.ndarray:
    """A component's counts by bin, then its sum, how many have it, and how many do not."""
    values = [part.value for one in scored for part in one.parts if part.component == component]
    there = [value for value in values if value is not None]
    counts, _ = np.histogram(there, bins=BINS, range=(0.0, 1.0))
    rest = [float(sum(there)), float(len(there)), float(len(values) - len(there))]
    return np.concatenate([counts.astype(float), rest])


def _mean(row: np.ndarray) -> Any:
    return float(row[BINS] / row[BINS + 1]) if row[BINS + 1] else None


def _means(totals: Mapping[str, float]) -> dict[str, Any]:
    tokens, rollouts = max(totals["tokens"], 1.0), max(totals["rollouts"], 1.0)
    rewarded = totals["rewarded"]
    mean = totals["reward"] / rewarded if rewarded else None
    spread = None
    if mean is not None and rewarded > 1:
        spread = max(0.0, (totals["squares"] - rewarded * mean**2) / (rewarded - 1)) ** 0.5
    return {
        "reward": mean,
        "reward_deviation": spread,
        "rollouts_without_reward": totals["rollouts"] - rewarded,
        "tokens_learned": totals["tokens"],
        "mean_length": totals["length"] / rollouts,
        "cut_off": totals["cut"] / rollouts,
        "tokens_without_logprob": totals["no_logprob"],
        **{name: totals[name] / tokens for name in ("kl", "entropy", "correction")},
        **{name: totals[name] / tokens for name in ("clipped_low", "clipped_high")},
        **{name: totals[name] for name in ("truncated", "uncorrected")},
    }


def _gap(generation: EngineGeneration) -> dict[str, float]:
    """The largest of the engines' gaps after the last push; rank 0 has them."""
    if not generation.gaps:
        return {}
    return {
        "gap_mean": max(gap.mean for gap in generation.gaps),
        "gap_largest": max(gap.largest for gap in generation.gaps),
    }


def _span(spans: Sequence[tuple[str, float, float]]) -> float:
    """From when the first began to when the last ended, in seconds."""
    if not spans:
        return 0.0
    return max(end for _, _, end in spans) - min(start for _, start, _ in spans)


def _reward_line(per: np.ndarray, rewards: AnswerRewards) -> dict[str, Any]:
    """Each component's mean, failures and histogram over all ranks; seconds are rank 0's."""
    found: dict[str, Any] = {}
    for name, row in zip(COMPONENTS, per, strict=True):
        found[name] = {
            "mean": _mean(row),
            "missing": int(row[BINS + 2]),
            "histogram": [int(count) for count in row[:BINS]],
        }
    seconds = {
        name: sum(end - start for who, start, end in rewards.spans if who == name)
        for name in ("encode", *COMPONENTS)
    }
    return {**found, "seconds": seconds, "wall_seconds": _span(rewards.spans)}
