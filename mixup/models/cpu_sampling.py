"""Sampling of tokens on a CPU: one random number for each, where vLLM draws one a word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mixup.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


def sample_by_inversion() -> None:
    """Have vLLM's engines of this process sample on a CPU with ``drawn_tokens``, from now on.

    vLLM draws an exponential number for every word of the vocabulary and takes the word whose
    probability over its number is the largest; for a request with a seed of its own one thread
    does so, 49,152 times for each token of SmolLM2: a ninth of the engine's time. The replaced
    method is a private one; ``tests/ray/test_engine.py`` holds it to its word.
    """
    import torch
    from vllm.v1.sample.ops import topk_topp_sampler as vllm

    def forward_cpu(
        self: Any,
        logits: torch.Tensor,
        generators: Mapping[int, torch.Generator],
        k: torch.Tensor | None,
        p: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The tokens, (B,), and what of the logits vLLM was asked to give back; as the original."""
        kept_BV = vllm.apply_top_k_top_p(logits, k, p)
        returned = None
        if self.logprobs_mode == "processed_logits":
            returned = kept_BV
        elif self.logprobs_mode == "processed_logprobs":
            returned = kept_BV.log_softmax(dim=-1, dtype=torch.float32)
        probabilities_BV = kept_BV.softmax(dim=-1, dtype=torch.float32)
        return drawn_tokens(probabilities_BV, generators), returned

    vllm.TopKTopPSampler.forward_cpu = forward_cpu


def drawn_tokens(
    probabilities_BV: torch.Tensor, generators: Mapping[int, torch.Generator]
) -> torch.Tensor:
    """A token for each of B rows, drawn from its probabilities by inverting their running sum.

    A token of probability 0 is never drawn.

    Args:
        probabilities_BV: (B, V), float32, each row with a positive sum.
        generators: The random numbers of rows that have a seed of their own, by row; the others
            draw from PyTorch's.

    Returns:
        (B,), int64.

    Raises:
        ModelError: If a row's probabilities have no positive, finite sum, as those of a model with
            NaN among its weights: there is no token to draw.
    """
    import torch

    draws_B1 = torch.rand(len(probabilities_BV), 1, dtype=torch.float64)
    for row, generator in generators.items():
        draws_B1[row] = torch.rand(1, dtype=torch.float64, generator=generator)
    sums_BV = probabilities_BV.cumsum(dim=-1, dtype=torch.float64)
    total_B1 = sums_BV[:, -1:]
    if not bool(((total_B1 > 0) & total_B1.isfinite()).all()):
        raise ModelError(f"no token can be drawn: probabilities sum to {total_B1.squeeze(-1)}")
    below_total = torch.nextafter(total_B1, torch.zeros_like(total_B1))
    at_B1 = torch.minimum(draws_B1 * total_B1, below_total)
    return torch.searchsorted(sums_BV, at_B1, right=True).squeeze(-1)
