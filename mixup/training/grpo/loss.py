"""The loss of GRPO, pure: token-level and clipped, with a KL term, corrected for another sampler.

Every number here is a sum over tokens or rollouts, divided by a count of the whole global batch.
So the parts of ranks and of micro-batches add up to the loss of the batch, however it was split.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from mixup.errors import ConfigError, ShapeError

Aggregation = Literal["dapo", "dr_grpo", "grpo"]
"""As TRL names them. ``dapo``: the mean over all tokens of the batch. ``grpo``: the mean over
rollouts of each one's mean over its tokens. ``dr_grpo``: the sum over tokens by a constant length.
(TRL's ``bnpo`` is the mean over the tokens of one rank's micro-batch, and so depends on the split;
over the whole batch it is ``dapo``.)"""

Level = Literal["token", "sequence"]
"""Of what the ratio is taken: each token, or (GSPO) the rollout, as a mean over its tokens."""


@dataclass(frozen=True)
class LossSettings:
    """How the loss is made. GSPO is ``level="sequence"`` with ``aggregation="grpo"``.

    Attributes:
        aggregation: What the tokens' losses are divided by.
        level: Of what the ratio to the old policy is taken.
        clip_low: A ratio counts as at least 1 - this, where it lowers the objective.
        clip_high: A ratio counts as at most 1 + this.
        ratio_cap: The largest ratio of a rollout that is worse than its group (dual clip); None:
            no cap.
        beta: The weight of the KL term (k3); 0 needs no reference.
        correction_cap: The largest weight by which a token drawn by an engine is corrected to the
            trainer's distribution (``token_truncate``); None: no correction.
        max_tokens: The longest completion, by which ``dr_grpo`` divides.
    """

    aggregation: Aggregation = "dapo"
    level: Level = "token"
    clip_low: float = 0.2
    clip_high: float = 0.3
    ratio_cap: float | None = 3.0
    beta: float = 0.01
    correction_cap: float | None = 2.0
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.aggregation == "dr_grpo" and not self.max_tokens:
            raise ConfigError("dr_grpo divides by max_tokens; give it")
        if self.level == "sequence" and self.aggregation != "grpo":
            raise ConfigError(
                f"ratios of sequences (GSPO) go with aggregation grpo, not {self.aggregation}: one "
                "ratio would count once for every token"
            )

    def divisor(self, *, tokens: float, rollouts: int) -> float:
        """What the sums are divided by.

        Args:
            tokens: Tokens in the loss, of the whole global batch.
            rollouts: Rollouts in the loss, of the whole global batch.
        """
        if self.aggregation == "dapo":
            return max(tokens, 1.0)
        if self.aggregation == "grpo":
            return max(float(rollouts), 1.0)
        return max(float(rollouts), 1.0) * float(self.max_tokens or 1)


@dataclass(frozen=True)
class Loss:
    """A part of the batch's loss, and sums of what is worth watching.

    Attributes:
        value: To be added over micro-batches and ranks; carries the gradient.
        tokens: Tokens in this part.
        kl: The sum of the tokens' KL to the reference (k3).
        clipped_low: Tokens whose ratio was raised by the clip; all of a rollout's, where a ratio is
            that of a sequence.
        clipped_high: Those whose ratio was lowered.
        correction: The sum of the tokens' correction weights.
        truncated: Tokens whose weight was cut off at the cap.
        uncorrected: Tokens for which the engine gave no log-probability: their weight is 1.
    """

    value: torch.Tensor
    tokens: float
    kl: float
    clipped_low: float
    clipped_high: float
    correction: float
    truncated: float
    uncorrected: float


def grpo_loss(
    logprobs_BT: torch.Tensor,
    *,
    old_BT: torch.Tensor,
    advantages_B: torch.Tensor,
    mask_BT: torch.Tensor,
    settings: LossSettings,
    divisor: float,
    reference_BT: torch.Tensor | None = None,
    sampled_BT: torch.Tensor | None = None,
) -> Loss:
    """The loss of some rollouts.

    Source: TRL 1.16, ``GRPOTrainer._compute_loss`` (``loss_type`` dapo, dr_grpo, grpo;
    ``importance_sampling_level``; ``delta``; ``vllm_importance_sampling_mode="token_truncate"``).
    We depart in the divisor, which is a count of the global batch for every kind.

    Args:
        logprobs_BT: The policy's log-probabilities of the completions' tokens; carries gradients.
        old_BT: Those of the policy that the step began with, by the trainer.
        advantages_B: Each rollout's advantage.
        mask_BT: 1 for tokens in the loss; 0 for padding and for rollouts that are left out.
        settings: How the loss is made.
        divisor: ``settings.divisor`` of the global batch.
        reference_BT: The reference model's log-probabilities; needed with ``beta``.
        sampled_BT: The engine's, of the tokens it drew; needed with a correction. NaN where it gave
            none.

    Raises:
        ShapeError: If what is needed is missing or does not fit.
    """
    _check(logprobs_BT, old_BT, mask_BT, reference_BT, sampled_BT, settings)
    mask_BT = mask_BT.to(logprobs_BT.dtype)
    advantages_B1 = advantages_B[:, None]
    ratios = _ratios(logprobs_BT, old_BT, mask_BT, settings.level)
    losses = -_objective(ratios, advantages_B1, settings)
    weights_BT, truncated, uncorrected = _correction(old_BT, sampled_BT, mask_BT, settings)
    losses_BT = losses * weights_BT
    kl_BT = torch.zeros_like(logprobs_BT)
    if settings.beta and reference_BT is not None:
        kl_BT = k3(logprobs_BT, reference_BT)
        losses_BT = losses_BT + settings.beta * kl_BT
    value = _sum(losses_BT, mask_BT, settings) / divisor
    low = (ratios < 1 - settings.clip_low) & (advantages_B1 < 0)
    high = (ratios > 1 + settings.clip_high) & (advantages_B1 > 0)
    return Loss(
        value=value,
        tokens=_number(mask_BT),
        kl=_number(kl_BT.detach() * mask_BT),
        clipped_low=_number(low * mask_BT),
        clipped_high=_number(high * mask_BT),
        correction=_number(weights_BT * mask_BT),
        truncated=truncated,
        uncorrected=uncorrected,
    )


def k3(logprobs_BT: torch.Tensor, reference_BT: torch.Tensor) -> torch.Tensor:
    """Schulman's estimate of the KL to the reference: never negative, unbiased, of low variance."""
    difference_BT = reference_BT - logprobs_BT
    return torch.exp(difference_BT) - difference_BT - 1


def _check(
    logprobs_BT: torch.Tensor,
    old_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    reference_BT: torch.Tensor | None,
    sampled_BT: torch.Tensor | None,
    settings: LossSettings,
) -> None:
    if settings.beta and reference_BT is None:
        raise ShapeError(f"beta is {settings.beta}, but there are no reference log-probabilities")
    if settings.correction_cap is not None and sampled_BT is None:
        raise ShapeError("a correction needs the engine's log-probabilities; there are none")
    for name, one in (
        ("old", old_BT),
        ("mask", mask_BT),
        ("reference", reference_BT),
        ("sampled", sampled_BT),
    ):
        if one is not None and one.shape != logprobs_BT.shape:
            raise ShapeError(
                f"{name} has shape {tuple(one.shape)}, the policy's log-probabilities "
                f"{tuple(logprobs_BT.shape)}"
            )


def _ratios(
    logprobs_BT: torch.Tensor, old_BT: torch.Tensor, mask_BT: torch.Tensor, level: Level
) -> torch.Tensor:
    """The policy's ratio to the old one: (B, T), or (B, 1) of sequences."""
    differences_BT = (logprobs_BT - old_BT) * mask_BT
    if level == "token":
        return torch.exp(differences_BT)
    lengths_B1 = mask_BT.sum(1, keepdim=True).clamp(min=1.0)
    return torch.exp(differences_BT.sum(1, keepdim=True) / lengths_B1)


def _objective(
    ratios: torch.Tensor, advantages_B1: torch.Tensor, settings: LossSettings
) -> torch.Tensor:
    clipped = ratios.clamp(1 - settings.clip_low, 1 + settings.clip_high)
    capped = ratios if settings.ratio_cap is None else ratios.clamp(max=settings.ratio_cap)
    return torch.minimum(capped * advantages_B1, clipped * advantages_B1)


def _correction(
    old_BT: torch.Tensor,
    sampled_BT: torch.Tensor | None,
    mask_BT: torch.Tensor,
    settings: LossSettings,
) -> tuple[torch.Tensor, float, float]:
    """Each token's weight, how many were cut off, and how many could not be computed."""
    if settings.correction_cap is None or sampled_BT is None:
        return torch.ones_like(mask_BT), 0.0, 0.0
    unknown_BT = sampled_BT.isnan()
    differences_BT = torch.where(unknown_BT, 0.0, old_BT.detach() - sampled_BT) * mask_BT
    weights_BT = torch.exp(differences_BT)
    truncated = _number((weights_BT > settings.correction_cap) * mask_BT)
    uncorrected = _number(unknown_BT * mask_BT)
    return weights_BT.clamp(max=settings.correction_cap), truncated, uncorrected


def _sum(losses_BT: torch.Tensor, mask_BT: torch.Tensor, settings: LossSettings) -> torch.Tensor:
    sums_B = (losses_BT * mask_BT).sum(1)
    if settings.aggregation == "grpo":
        return (sums_B / mask_BT.sum(1).clamp(min=1.0)).sum()
    return sums_B.sum()


def _number(values: torch.Tensor) -> float:
    return float(values.sum())
