"""Sentence encoders: batches of like length, and vectors as sentence-transformers gives them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

from mixup.models.bundled import MINILM
from mixup.models.encoder import SentenceEncoder, batches_of
from mixup.models.folders import model_folder

WINDOW = 256
TEXTS = [
    "tide " * 400,
    "a",
    "",
    "The moon pulls at the sea twice a day.",
    "tide " * 254,
    "tide " * 255,
    "Où est la gare? 駅はどこですか",
    *(f"Sentence {number} of some {'long ' * number}text." for number in range(40)),
]


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder(MINILM, cpus=2)


def test_batches_are_filled_up_to_the_budget_longest_first():
    found = [batch.tolist() for batch in batches_of(np.array([5, 1, 9, 3, 2]), 10)]
    assert found == [[2], [0, 3], [4, 1]]
    # Longer than the budget, and without any token.
    assert [batch.tolist() for batch in batches_of(np.array([0, 30, 0]), 10)] == [[1], [0, 2]]


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 1000))
def test_each_row_is_in_one_batch_within_the_budget(lengths: list[int], budget: int):
    batches = list(batches_of(np.array(lengths, dtype=np.int64), budget))
    assert sorted(at for batch in batches for at in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[at] for at in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget


def test_vectors_are_those_of_sentence_transformers(encoder: SentenceEncoder):
    found = encoder.encode(TEXTS)
    plain = SentenceTransformer(str(model_folder(MINILM)), device="cpu")
    wanted = plain.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(found.vectors_ND, wanted, atol=1e-6)
    assert found.vectors_ND.dtype == np.float32


def test_what_is_longer_than_the_window_is_said_to_be_cut(encoder: SentenceEncoder):
    found = encoder.encode(TEXTS)
    # Two tokens more than words: the first and the last of a sequence.
    assert found.truncated_N.tolist()[:7] == [True, False, False, False, False, True, False]


def test_no_text_gives_no_vector(encoder: SentenceEncoder):
    assert encoder.encode([]).rows() == []
