"""Rows of a pool as targets."""

from __future__ import annotations

import pytest

from mixup.errors import RecordError
from mixup.mixture.items import Item
from mixup.mixture.pool import is_target, item_of_turns
from mixup.records import Turn
from mixup.text.parse import parse_distilled
from mixup.text.prompts import target_text

LONG = "The tower was built in 1889 for the world's fair in Paris by Gustave Eiffel."
OPTIONS = (
    "Which of these planets is the nearest to the sun of ours?\n"
    "A. Mars\nB. Venus\nC. Io\nD. Mercury"
)


def pair(user, answer):
    return [Turn("user", user), Turn("assistant", answer)]


@pytest.mark.parametrize(
    ("task", "user", "answer", "item"),
    [
        ("qa", "Who built it?", LONG, Item("qa", "Who built it?", LONG)),
        (
            "mcq",
            OPTIONS,
            "D. Mercury",
            Item(
                "mcq",
                "Which of these planets is the nearest to the sun of ours?",
                "",
                ("Mars", "Venus", "Io", "Mercury"),
                "D",
            ),
        ),
        ("tfq", f"True or false: {LONG}", "true.", Item("tfq", "", LONG, mark="True")),
        (
            "tfq",
            f"Classify the following statement as true or false.\n\n{LONG}",
            "False",
            Item("tfq", "", LONG, mark="False"),
        ),
        (
            "cs",
            "Category: towers\nWrite a statement that belongs to this category.",
            LONG,
            Item("cs", "towers", LONG),
        ),
        ("para", "Write a short paragraph about towers.", LONG, Item("para", "towers", LONG)),
    ],
)
def test_a_row_becomes_an_item(task, user, answer, item):
    found = item_of_turns(pair(user, answer), task)
    assert found == item
    assert parse_distilled(target_text("x y", found.answer), task).turns == found.turns


@pytest.mark.parametrize("answer", ["D", "D)", "(D)", "Mercury", "D) Mercury.", "mercury"])
def test_an_answer_names_its_option(answer):
    assert item_of_turns(pair(OPTIONS, answer), "mcq").mark == "D"


@pytest.mark.parametrize(
    ("task", "user", "answer", "reason"),
    [
        ("chat", "Hello", LONG, "chat"),
        ("qa", "Who?", "Eiffel.", "too_short"),
        ("qa", "Who?", "word " * 2000, "too_long"),
        ("qa", "Who?", f"Q: why?\nA: {LONG}", "bad_label_order"),
        ("qa", "Who?", f"<think>{LONG}</think>", "not_expressible"),
        ("mcq", OPTIONS, "B) Mercury", "no_letter"),
        ("mcq", OPTIONS, "D, because it has the smallest orbit", "no_letter"),
        ("mcq", OPTIONS.replace("D. Mercury", ""), "A", "no_four_options"),
        ("tfq", f"True or false: {LONG}", "True, because it is.", "no_truth_value"),
        ("tfq", LONG, "True", "no_statement"),
        ("cs", "Write a statement.", LONG, "no_category"),
        ("para", "Write a paragraph.", LONG, "no_title"),
        ("para", "Write a paragraph about towers. Use rhyme.", LONG, "no_title"),
    ],
)
def test_a_row_that_is_no_target_says_why(task, user, answer, reason):
    with pytest.raises(RecordError) as caught:
        item_of_turns(pair(user, answer), task)
    assert caught.value.reason == reason


def test_high_quality_is_four_or_five():
    assert [is_target(rating) for rating in (-1, 0, 3, 4, 5)] == [False] * 3 + [True] * 2
