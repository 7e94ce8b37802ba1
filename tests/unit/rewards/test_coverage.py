"""The sentence splitter and the coverage reward."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup.errors import ShapeError
from mixup.rewards.coverage import coverage_score, sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Pi is 3.14, e.g. in circles. Yes.", ["Pi is 3.14, e.g. in circles.", "Yes."]),
        ("Dr. Smith met J. Doe. They talked.", ["Dr. Smith met J. Doe.", "They talked."]),
        ("1. Mix\n2. Bake\n\n---\n", ["1. Mix", "2. Bake"]),
        ('He said "No." Then "Go!" was heard.', ['He said "No." Then "Go!" was heard.']),
        ("水は重要です。空気も。", ["水は重要です。", "空気も。"]),
        ("", []),
        (" ...\n?! ", []),
    ],
)
def test_sentences(text, expected):
    assert sentences(text) == expected


@given(st.text())
def test_no_letter_is_lost_and_none_is_added(text):
    kept = [char for char in "".join(sentences(text)) if char.isalnum()]
    assert kept == [char for char in text if char.isalnum()]


def test_a_dropped_input_costs_its_share():
    inputs = np.eye(2)
    assert coverage_score(inputs, np.eye(2)) == 1.0
    assert coverage_score(inputs, np.eye(2)[:1]) == 0.5
    half = np.array([[0.65, np.sqrt(1 - 0.65**2)]])
    assert coverage_score(np.array([[1.0, 0.0]]), half) == pytest.approx(0.5)


@given(st.permutations(range(4)), st.integers(0, 1000))
def test_order_does_not_matter_and_more_sentences_never_hurt(order, seed):
    rng = np.random.default_rng(seed)
    inputs, said = rng.normal(size=(4, 8)), rng.normal(size=(4, 8))
    score = coverage_score(inputs, said, low=-0.5)
    assert coverage_score(inputs[list(order)], said[list(order)], low=-0.5) == pytest.approx(score)
    assert coverage_score(inputs, said[:3], low=-0.5) <= score + 1e-12


def test_no_sentence_is_refused():
    with pytest.raises(ShapeError):
        coverage_score(np.eye(2), np.empty((0, 2)))
