"""Products by oneDNN: the private operator of PyTorch does what ``nn.Linear`` does."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mixup.models.onednn import multiply_by_onednn, onednn_linear

SHAPES = [(1,), (7,), (3, 50), (2, 1024), (0,)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_products_and_gradients_are_those_of_a_linear_layer(shape: tuple[int, ...], bias: bool):
    torch.manual_seed(0)
    plain = nn.Linear(48, 80, bias=bias)
    ours = copy.deepcopy(plain)
    assert multiply_by_onednn(ours) == 1
    x = torch.randn(*shape, 48)
    pull = torch.randn(*shape, 80)
    found = []
    for layer in (plain, ours):
        given = x.clone().requires_grad_()
        out = layer(given)
        out.backward(pull)
        found.append([out, given.grad, *(each.grad for each in layer.parameters())])
    for wanted, got in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-4)


def test_what_is_frozen_gets_no_gradient_and_passes_one_on():
    torch.manual_seed(0)
    layer = nn.Linear(8, 8)
    multiply_by_onednn(layer)
    layer.weight.requires_grad_(False)
    x = torch.randn(3, 8, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    assert layer.bias.grad is not None
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(3, 8))
    with torch.inference_mode():
        layer(x)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_packed_weights_give_the_same_products(shape: tuple[int, ...], bias: bool):
    torch.manual_seed(0)
    plain = nn.Linear(48, 80, bias=bias)
    ours = copy.deepcopy(plain)
    multiply_by_onednn(ours, frozen=True)
    x = torch.randn(*shape, 48)
    with torch.inference_mode():
        if x.numel():
            ours.weight.zero_()  # the packed copy is what multiplies
        torch.testing.assert_close(ours(x), plain(x), rtol=1e-5, atol=1e-4)
        half = copy.deepcopy(plain).to(torch.bfloat16)
        multiply_by_onednn(half, frozen=True)
        assert half(x.to(torch.bfloat16)).dtype == torch.bfloat16


def test_layers_keep_their_parameters_and_other_classes_are_left_alone():
    class Special(nn.Linear):
        """A layer with a product of its own."""

    inner = nn.Linear(8, 4)
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Sequential(inner), Special(4, 4))
    before = dict(model.named_parameters())
    assert multiply_by_onednn(model) == 2
    after = dict(model.named_parameters())
    assert list(before) == list(after)
    assert all(before[name] is after[name] for name in before)
    assert type(model[0]) is type(inner) is onednn_linear()
    assert type(model[3]) is Special


def test_other_precisions_are_left_to_pytorch():
    layer = nn.Linear(8, 4).to(torch.bfloat16)
    multiply_by_onednn(layer)
    assert layer(torch.ones(2, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16
