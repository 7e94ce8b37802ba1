"""Float32 products by oneDNN, for models that run on a CPU."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

_PRIMITIVES = 64
"""Products that oneDNN keeps compiled, for one shape each and of half a megabyte; it reads the
variable at the first one. By default it is 1,024, and no two batches have the same shape."""


_PACKED_FOR = 2048
"""Rows of a product that packed weights are laid out for; with any other number they work too."""


def multiply_by_onednn(model: nn.Module, *, frozen: bool = False) -> int:
    """Have every linear layer multiply by oneDNN, and return how many there are.

    PyTorch leaves float32 products to MKL, which on processors other than Intel's does without
    AVX-512: 100 billion operations a second on a core of an AMD EPYC that has it, where oneDNN does
    twice as many. On one that has not, both do 60 to 70. ``tests/models/test_onednn.py`` holds the
    private operator to its word.

    A layer stays what it is, with its parameters, but for its class. Layers of a class of their own
    are left alone, and all are where this PyTorch was built without oneDNN.

    Args:
        model: The model.
        frozen: Its weights never change again and need no gradients. They are packed once, in a
            copy, as oneDNN otherwise does for each product.
    """
    import torch
    from torch import nn

    if not torch.backends.mkldnn.is_available():
        return 0
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(_PRIMITIVES))
    found = [layer for layer in model.modules() if type(layer) is nn.Linear]
    for layer in found:
        layer.__class__ = onednn_linear()
        if frozen and layer.weight.dtype == torch.float32:
            layer.packed_OI = torch.ops.mkldnn._reorder_linear_weight(
                layer.weight.detach(), _PACKED_FOR
            )
    return len(found)


@cache
def onednn_linear() -> type[nn.Linear]:
    """The class of ``nn.Linear`` whose products are oneDNN's, forward and backward.

    It is made when it is first asked for, since PyTorch is loaded only where a model runs.
    """
    import torch
    from torch import nn
    from torch.autograd.function import once_differentiable

    def product(
        x: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None = None
    ) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, weight_OI, bias_O, "none", [], "")

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, x: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None
        ) -> torch.Tensor:
            ctx.save_for_backward(x, weight_OI)
            return product(x, weight_OI, bias_O)

        @staticmethod
        @once_differentiable
        def backward(  # type: ignore[reportIncompatibleMethodOverride]  the hint is of any number
            ctx: Any, grad: torch.Tensor
        ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
            x, weight_OI = ctx.saved_tensors
            for_x, for_weight, for_bias = ctx.needs_input_grad
            grad_NO = grad.reshape(-1, grad.shape[-1])
            return (
                product(grad, weight_OI.t()) if for_x else None,
                product(grad_NO.t(), x.reshape(-1, x.shape[-1]).t()) if for_weight else None,
                grad_NO.sum(0) if for_bias else None,
            )

    class OneDnnLinear(nn.Linear):
        """``nn.Linear`` by oneDNN where all is float32, and by PyTorch where it is not."""

        packed_OI: torch.Tensor | None = None

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            """(..., in) → (..., out)."""
            is_float = input.dtype == self.weight.dtype == torch.float32
            if not is_float or not input.numel():
                return super().forward(input)
            if self.packed_OI is not None:
                return product(input, self.packed_OI, self.bias)
            return Product.apply(input, self.weight, self.bias)

    return OneDnnLinear
