"""Repetition and copying."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup.records import Turn
from mixup.rewards.defects import copied_input, ends_open, lost_content, repetition


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0.0),
        ("no no no", 0.0),
        ("one two three four five six", 0.0),
        ("go go go go go", 0.5),  # two runs, one distinct
        ("a b c d a b c d", 0.2),  # five runs; a b c d comes twice
        ("A, b. C d -- a B c D", 0.2),
        ("好好好好好", 0.5),
    ],
)
def test_repetition(text, expected):
    assert repetition(text) == pytest.approx(expected)


LINE = "Water boils at one hundred degrees at sea level"


@pytest.mark.parametrize(
    ("answer", "inputs", "expected"),
    [
        (LINE, [LINE], 1.0),
        (LINE.upper().replace(" ", "\n"), ["Other words entirely.", f"Well: {LINE}!"], 1.0),
        (LINE, ["Nothing of the kind"], 0.0),
        (LINE, [], 0.0),
        ("", [LINE], 0.0),
        ("sea level", [LINE], 1.0),
        ("level sea", [LINE], 0.0),
        ("a b c d e f", ["a b c d e", "b c d e f"], 0.5),  # never summed over two inputs
    ],
)
def test_copied_input(answer, inputs, expected):
    assert copied_input(answer, inputs) == pytest.approx(expected)


@given(st.text(), st.lists(st.text(), max_size=3))
def test_shares_stay_in_range(answer, inputs):
    assert 0 <= repetition(answer) < 1
    assert 0 <= copied_input(answer, inputs) <= 1


@given(st.lists(st.sampled_from("abcdef"), min_size=1))
def test_a_copy_is_always_found(words):
    assert copied_input(" ".join(words), ["unlike", " ".join(words)]) == 1.0


def test_lost_content_counts_the_content_words_that_are_gone():
    inputs = ["The tower opened in 1889 in Paris.", "Gustave Eiffel built it; it is 330 m tall."]
    # tower, opened, 1889, paris | gustave, eiffel, built, 330, tall
    assert lost_content("Gustave Eiffel", inputs) == pytest.approx((1 + 3 / 5) / 2)
    assert lost_content(" ".join(inputs), inputs) == 0.0
    # "Towers" is "tower"; of "opening" and "opened" the first five letters differ.
    assert lost_content("Towers opening 1889 paris", inputs[:1]) == pytest.approx(1 / 4)


def test_a_short_answer_that_only_names_the_subject_has_lost_what_was_said():
    inputs = [
        "Q: History of the Eiffel Tower?\nA: Built for the 1889 fair, first disliked by artists.",
        "Q: Eiffel Tower history\nA: It was nearly torn down in 1909 and kept as a radio mast.",
    ]
    assert lost_content("Q: A short history of the Eiffel Tower\nA: Gustave Eiffel", inputs) > 0.6
    merged = (
        "Q: What is the history of the Eiffel Tower?\nA: It was built for the 1889 fair, disliked "
        "by artists at first, nearly torn down in 1909, and kept as a radio mast."
    )
    assert lost_content(merged, inputs) < 0.2


def test_inputs_without_content_words_lose_nothing():
    assert lost_content("anything", ["a b", ""]) == 0.0
    assert lost_content("", []) == 0.0


@pytest.mark.parametrize(
    ("task", "user", "assistant", "is_open"),
    [
        ("qa", "Why is the sky blue?", "Blue light scatters most.", False),
        ("qa", "The answer to this question is to", "The oceans are changing.", True),
        ("qa", "Why is the sky blue?", "Blue light scatters, and the", True),
        ("qa", "Why is the sky blue?", "It scatters (Rayleigh, 1871)", False),
        ("tfq", "True or false: Blood is blue.", "False", False),
        ("tfq", "True or false: Blood that is in the", "False", True),
        ("mcq", "Which is a planet?\nA) Mars\nB) Sun\nC) Moon\nD) Io", "A) Mars", False),
        ("cs", "Category: tea\nWrite a statement.", "Tea is brewed from", True),
        ("para", "Write a paragraph about tea.", "Tea is brewed from leaves.", False),
    ],
)
def test_a_field_that_ran_into_its_limit_ends_open(task, user, assistant, is_open):
    assert ends_open([Turn("user", user), Turn("assistant", assistant)], task) is is_open
