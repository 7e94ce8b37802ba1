"""Tensors of a micro-batch, shown with a tiny random Llama: what is learned, and what sees what."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mixup.training.collate import UNLEARNED, collate
from mixup.training.tokens import TokenRow

PAD = 0


def row(*ids: int, learned: int) -> TokenRow:
    """A row whose last so many tokens are learned."""
    mask = np.arange(len(ids)) >= len(ids) - learned
    return TokenRow(np.array(ids, np.int32), mask)


A, B, C = row(5, 6, 7, 8, learned=2), row(9, 10, 11, learned=1), row(12, 13, learned=1)


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def model(request) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    config._attn_implementation = request.param
    return LlamaForCausalLM(config).eval()


def logits(model, tensors, **given):
    inputs = {name: found for name, found in tensors.items() if name != "labels"}
    with torch.no_grad():
        return model(**inputs, **{"use_cache": False, **given}).logits


def alone(model, one: TokenRow):
    ids = torch.from_numpy(one.input_ids.astype(np.int64))[None]
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits[0]


def summed_loss(model, tensors):
    with torch.no_grad():
        return model(**tensors, use_cache=False, num_items_in_batch=torch.tensor(1.0)).loss


def test_rows_side_by_side_are_padded_and_masked():
    found = collate([[A], [C]], PAD)
    assert found["input_ids"].tolist() == [[5, 6, 7, 8], [12, 13, PAD, PAD]]
    assert found["labels"].tolist() == [[-100, -100, 7, 8], [-100, 13, -100, -100]]
    assert found["position_ids"].tolist() == [[0, 1, 2, 3], [0, 1, 2, 3]]
    assert found["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert {tensor.dtype for tensor in found.values()} == {torch.int64}


def test_packed_rows_restart_their_positions_and_have_no_mask():
    found = collate([[A, C], [B]], PAD)
    assert found["input_ids"].tolist() == [[5, 6, 7, 8, 12, 13], [9, 10, 11, PAD, PAD, PAD]]
    assert found["labels"].tolist() == [[-100, -100, 7, 8, -100, 13], [-100, -100, 11, *[-100] * 3]]
    assert found["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1], [0, 1, 2, 0, 1, 2]]
    assert "attention_mask" not in found


def test_flat_is_one_sequence_without_padding():
    found = collate([[A, C], [B]], PAD, flat=True)
    assert found["input_ids"].tolist() == [[5, 6, 7, 8, 12, 13, 9, 10, 11]]
    assert found["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 0, 1, 2]]


@pytest.mark.parametrize("flat", [False, True])
def test_packed_rows_do_not_see_one_another(model, flat):
    packed = logits(model, collate([[A, B], [C, A, B]], PAD, flat=flat)).reshape(-1, 32)
    wanted = [A, B, None, C, A, B] if not flat else [A, B, C, A, B]
    start = 0
    for one in wanted:
        if one is None:  # the padding of the shorter sequence
            start += 2
            continue
        end = start + len(one.input_ids)
        torch.testing.assert_close(packed[start:end], alone(model, one), rtol=0, atol=1e-5)
        start = end
    assert start == len(packed)


def test_with_positions_that_do_not_restart_they_would(model):
    """The planted fault: the logits do tell."""
    tensors = collate([[A, B]], PAD)
    tensors["position_ids"] = torch.arange(7)[None]
    seen = logits(model, tensors)[0, 4:]
    assert (seen - alone(model, B)).abs().max() > 1e-3


def test_with_a_cache_they_would_too(model):
    """Why a model must be called with ``use_cache=False``, as the docstring says."""
    seen = logits(model, collate([[A, B]], PAD), use_cache=True)[0, 4:]
    assert (seen - alone(model, B)).abs().max() > 1e-3


def test_padding_changes_no_logits(model):
    found = logits(model, collate([[A], [C]], PAD))
    torch.testing.assert_close(found[1, :2], alone(model, C), rtol=0, atol=1e-5)


def test_the_loss_of_packed_rows_is_the_sum_of_theirs(model):
    packed = summed_loss(model, collate([[A, B], [C]], PAD))
    each = sum(summed_loss(model, collate([[one]], PAD)) for one in (A, B, C))
    torch.testing.assert_close(packed, each, rtol=1e-5, atol=1e-5)


def test_a_first_token_is_never_learned():
    """It would be predicted from the row before; a mask that asks for it is overruled."""
    whole = TokenRow(C.input_ids, np.ones(2, np.bool_))
    assert collate([[A, whole]], PAD)["labels"][0].tolist()[4:] == [UNLEARNED, 13]


@pytest.mark.parametrize("flat", [False, True])
def test_an_empty_micro_batch_weighs_nothing_and_has_gradients(model, flat):
    tensors = collate([], PAD, flat=flat)
    assert tensors["input_ids"].shape == (1, 2)
    loss = model(**tensors, use_cache=False, num_items_in_batch=torch.tensor(7.0)).loss
    model.zero_grad()
    loss.backward()
    assert loss.item() == 0
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(found is not None and (found == 0).all() for found in gradients)
    model.zero_grad()
