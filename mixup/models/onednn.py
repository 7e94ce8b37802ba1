"""Float32 products by oneDNN, for models that are only read, on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class OneDnnLinear(nn.Module):
    """``nn.Linear`` without gradients, its weight in the order that oneDNN multiplies fastest.

    PyTorch leaves float32 products to MKL, which on processors other than Intel's does without
    their widest instructions: 100 billion operations a second on a core of an AMD EPYC, where
    oneDNN does 225. ``tests/models/test_onednn.py`` holds the private operators to their word.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        operators: Any = torch.ops.mkldnn
        self._apply_linear = operators._linear_pointwise
        self._weight = operators._reorder_linear_weight(linear.weight.detach(), _ROWS)
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) → (..., out), float32."""
        return self._apply_linear(x, self._weight, self._bias, "none", [], "")


_ROWS = 1024  # rows of a product for which oneDNN chooses the order; any other number works as well


def multiply_by_onednn(model: nn.Module) -> int:
    """Put ``OneDnnLinear`` in the place of every linear layer, and return how many there were.

    Does nothing where this PyTorch was built without oneDNN.

    Args:
        model: In float32, on the CPU. It can be read but not trained afterwards.
    """
    if not torch.backends.mkldnn.is_available():
        return 0
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and child.weight.dtype == torch.float32
    ]
    for parent, name, child in found:
        setattr(parent, name, OneDnnLinear(child))
    return len(found)
