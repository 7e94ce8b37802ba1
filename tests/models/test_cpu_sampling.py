"""Tokens drawn by one random number each: the right distribution, by each row's own seed."""

from __future__ import annotations

import pytest
import torch

from mixup.errors import ModelError
from mixup.models.cpu_sampling import drawn_tokens


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_tokens_come_as_often_as_their_probabilities_say():
    probabilities = torch.tensor([0.5, 0.0, 0.3, 0.15, 0.05, 0.0])
    rows = 40_000
    generators = {row: seeded(row) for row in range(0, rows, 2)}
    found = drawn_tokens(probabilities.expand(rows, -1), generators)
    for part in (found[::2], found[1::2]):  # by seeds of their own, and by PyTorch's
        shares = torch.bincount(part, minlength=6) / len(part)
        error = (probabilities * (1 - probabilities) / len(part)).sqrt()
        assert (shares - probabilities).abs().le(4.5 * error).all(), shares


def test_a_rows_tokens_are_of_its_seed_alone():
    torch.manual_seed(0)
    probabilities = torch.rand(8, 1000).softmax(-1)
    generators = {row: seeded(row) for row in range(8)}
    together = torch.stack([drawn_tokens(probabilities, generators) for _ in range(20)])
    row = {0: seeded(5)}
    alone = torch.cat([drawn_tokens(probabilities[5:6], row) for _ in range(20)])
    assert together[:, 5].tolist() == alone.tolist()
    assert len(set(alone.tolist())) > 10


@pytest.mark.parametrize("place", [0, 3, 49_151])
def test_a_word_that_alone_is_possible_is_drawn(place: int):
    probabilities = torch.zeros(200, 49_152)
    probabilities[:, place] = 1.0
    assert set(drawn_tokens(probabilities, {}).tolist()) == {place}


def test_the_largest_random_number_draws_the_last_possible_word(monkeypatch):
    probabilities = torch.tensor([[0.25, 0.75, 0.0], [0.1, 0.2, 0.7]])
    for number, wanted in ((1 - 2**-53, [1, 2]), (0.0, [0, 0]), (0.25, [1, 1])):
        monkeypatch.setattr(
            torch, "rand", lambda *size, number=number, **_: torch.full(size, number).double()
        )
        assert drawn_tokens(probabilities, {}).tolist() == wanted


@pytest.mark.parametrize("row", [[0.0, 0.0], [float("nan"), 0.5], [float("inf"), 0.5]])
def test_a_row_without_probabilities_is_a_failure_and_no_token(row: list[float]):
    with pytest.raises(ModelError, match="no token can be drawn"):
        drawn_tokens(torch.tensor([[0.5, 0.5], row]), {})
