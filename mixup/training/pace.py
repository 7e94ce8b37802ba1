"""How fast a model is trained: tokens a second, and the share of what its GPUs could compute."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from mixup.training.metrics import FlopCount, peak_flops


class Pace:
    """Counts tokens and operations from one reading to the next."""

    def __init__(self) -> None:
        self._start, self._tokens, self._flops = time.monotonic(), 0, 0.0

    def add(self, lengths: Sequence[int], flops: FlopCount) -> None:
        """Count a step over rows of some lengths."""
        self._tokens += sum(lengths)
        self._flops += flops.of_step(lengths)

    def read(self, device: str, world: int) -> dict[str, float]:
        """The rates since the last reading; begins anew.

        Args:
            device: The name of the GPU, or ``cpu``.
            world: How many there are.

        Returns:
            ``tokens_per_second`` and, where the GPU's peak is known, ``mfu``, in 0 to 1.
        """
        seconds = max(time.monotonic() - self._start, 1e-9)
        found = {"tokens_per_second": self._tokens / seconds}
        if (peak := peak_flops(device)) is not None:
            found["mfu"] = self._flops / seconds / (peak * world)
        self._start, self._tokens, self._flops = time.monotonic(), 0, 0.0
        return found


def flop_count(model: Any) -> FlopCount:
    """The arithmetic of a language model of transformers, with adapters or without."""
    config = model.config.get_text_config()
    sizes = [(_size(weights), weights.requires_grad) for weights in model.parameters()]
    weights = sum(size for size, _ in sizes)
    if not config.tie_word_embeddings:  # the embedding is looked up, not multiplied
        weights -= config.vocab_size * config.hidden_size
    trained = sum(size for size, is_trained in sizes if is_trained)
    layers, hidden = config.num_hidden_layers, config.hidden_size
    return FlopCount(weights, min(trained, weights), layers, hidden)


def _size(weights: Any) -> int:
    """The elements of a weight, of which a worker under ZeRO-3 has only a part."""
    return int(getattr(weights, "ds_numel", weights.numel()))
