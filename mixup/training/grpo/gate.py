"""The gate: after every push each engine must hold the trainer's weights, or the run stops.

A stale or wrong engine is nearly invisible from the loop: rewards look the same and importance
ratios stay near 1. So the gate has two steps. First the fingerprints of every tensor, which are
exact and name the tensor. Then the log-probabilities of the same tokens by the trainer's own
forward pass and by the engine, which also see what fingerprints cannot: a wrong scale of rotary
embeddings, an adapter that was not merged, a kernel that computes something else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from mixup.errors import ConfigError, ShapeError, WrongWeights
from mixup.training.grpo.fingerprints import check_fingerprints, trainer_fingerprints
from mixup.training.grpo.pool import EnginePool
from mixup.training.grpo.weights import named_weights

logger = logging.getLogger(__name__)

BOUNDS: Mapping[str, float] = {"float32": 1e-5, "bfloat16": 0.1}
"""The largest mean |difference| of log-probabilities, in nats, by the engine's dtype.

Measured on a CPU with SmolLM2-135M, its weights disturbed by 1 %, on some 600 tokens of text and of
its own samples: float32 4.7e-6 (all weights) and 5.8e-6 (LoRA), with single tokens up to 4.5e-5;
bfloat16 0.039, with single tokens up to 0.34. In bfloat16 this step sees coarse faults only; the
fingerprints are as exact as in float32.
"""


@dataclass(frozen=True)
class Gap:
    """How far an engine's log-probabilities are from the trainer's, in nats.

    Attributes:
        mean: Mean absolute difference; NaN without a token that both have.
        largest: The largest one.
        tokens: How many tokens were compared.
        missing: How many the engine gave no log-probability for.
    """

    mean: float
    largest: float
    tokens: int
    missing: int


def logprob_gap(trainer: Sequence[np.ndarray], engine: Sequence[Sequence[float]]) -> Gap:
    """The gap between two lists of sequences' log-probabilities.

    Raises:
        ShapeError: If they are not of the same tokens.
    """
    lengths = [len(one) for one in trainer], [len(one) for one in engine]
    if lengths[0] != lengths[1]:
        raise ShapeError(f"log-probabilities of {lengths[0]} and of {lengths[1]} tokens differ")
    ours_T = np.concatenate([np.asarray(one, np.float64) for one in trainer] or [np.empty(0)])
    theirs_T = np.concatenate([np.asarray(one, np.float64) for one in engine] or [np.empty(0)])
    there = np.isfinite(theirs_T)
    differences = np.abs(ours_T - theirs_T)[there]
    if not there.any():
        return Gap(float("nan"), float("nan"), 0, len(theirs_T))
    return Gap(
        float(differences.mean()),
        float(differences.max()),
        int(there.sum()),
        int((~there).sum()),
    )


def check_gap(gap: Gap, *, dtype: str, who: str, version: int) -> None:
    """Stop on a gap over the bound of a dtype, or on any token without a log-probability.

    Raises:
        WrongWeights: If it is.
    """
    if gap.missing or not gap.tokens:
        raise WrongWeights(
            f"{who} gave no log-probability for {gap.missing} of {gap.missing + gap.tokens} tokens "
            f"with version {version}; what is missing cannot be corrected, so the run stops"
        )
    if not gap.mean <= BOUNDS[dtype]:
        raise WrongWeights(
            f"{who} and the trainer differ with version {version} by {gap.mean:.3g} nats a token "
            f"(at most {gap.largest:.3g}), over the bound of {BOUNDS[dtype]:g} for {dtype}, though "
            "their tensors are equal: they do not compute the same model"
        )


def trainer_logprobs(model: nn.Module, sequences: Sequence[list[int]]) -> list[np.ndarray]:
    """The log-probability of each token but the first of some sequences, at temperature 1.

    One forward pass for each sequence, without padding; under ZeRO-3 every rank must call it with
    as many sequences.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return [_logprobs(model, tokens) for tokens in sequences]
    finally:
        model.train(was_training)


class Gate:
    """Checks all engines after each push."""

    def __init__(
        self, pool: EnginePool, sequences: Sequence[list[int]], *, is_sender: bool = True
    ) -> None:
        """Made on every rank.

        Args:
            pool: The engines.
            sequences: Token ids that are scored by both sides, each of at least two.
            is_sender: Whether this rank asks the engines; the others only help to gather.

        Raises:
            ConfigError: If there is no bound for the engines' dtype.
        """
        self._pool, self._sequences, self._is_sender = pool, list(sequences), is_sender
        self._dtype = pool.dtype()
        if self._dtype not in BOUNDS:
            raise ConfigError(
                f"engines compute in {self._dtype}, and no bound was measured for it; use one of "
                f"{', '.join(BOUNDS)}"
            )

    @property
    def dtype(self) -> torch.dtype:
        """What the engines compute in, and so what weights are pushed in."""
        return getattr(torch, self._dtype)

    def check(self, model: nn.Module, version: int) -> list[Gap]:
        """Compare every engine with the trained model; every rank must call it.

        Returns:
            The gap of each engine; none on the ranks that do not ask.

        Raises:
            WrongWeights: Naming the engine, and the tensor or the gap.
            StalledError: If an engine is stuck.
        """
        weights = named_weights(model, dtype=self.dtype)
        if not self._is_sender:
            for _ in weights:
                pass  # takes part in the gathering
            trainer_logprobs(model, self._sequences)
            return []
        ours = trainer_fingerprints(weights)
        scores = trainer_logprobs(model, self._sequences)
        for who, theirs in zip(self._pool.names, self._pool.fingerprints(version), strict=True):
            check_fingerprints(ours, theirs, who=who, version=version)
        self._pool.vouch(version, ours)
        gaps = [logprob_gap(scores, found) for found in self._pool.scores(self._sequences, version)]
        for who, gap in zip(self._pool.names, gaps, strict=True):
            check_gap(gap, dtype=self._dtype, who=who, version=version)
        return gaps


def _logprobs(model: Any, tokens: list[int]) -> np.ndarray:
    device = next(model.parameters()).device
    input_ids = torch.tensor([tokens], device=device)
    logits_TV = model(input_ids=input_ids, use_cache=False).logits[0, :-1].float()
    found = logits_TV.log_softmax(-1).gather(1, input_ids[0, 1:, None])
    return found[:, 0].cpu().numpy().astype(np.float64)
