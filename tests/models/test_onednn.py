"""Products by oneDNN: the private operators of PyTorch do what ``nn.Linear`` does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mixup.models.onednn import OneDnnLinear, multiply_by_onednn


@pytest.mark.parametrize("rows", [(1,), (7,), (3, 50), (2, 1024)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_gives_the_same_products(rows: tuple[int, ...], bias: bool):
    torch.manual_seed(0)
    linear = nn.Linear(48, 80, bias=bias)
    x = torch.randn(*rows, 48)
    with torch.inference_mode():
        torch.testing.assert_close(OneDnnLinear(linear)(x), linear(x), rtol=1e-5, atol=1e-5)


def test_every_linear_layer_is_replaced_and_nothing_else():
    class Special(nn.Linear):
        """A layer with a product of its own."""

    half = nn.Linear(4, 4).half()
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Sequential(nn.Linear(8, 4)), half)
    model.append(Special(4, 4))
    assert multiply_by_onednn(model) == 2
    kinds = [type(layer) for layer in model.modules()]
    assert kinds.count(OneDnnLinear) == 2
    assert model[3] is half
    assert isinstance(model[4], Special)
