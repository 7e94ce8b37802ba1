"""Units of a body, and degraded wordings."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup.mixture import wording
from mixup.mixture.units import joined, units_of

PROSE = "The tower opened in 1889. Gustave Eiffel built it. It is 330 m tall."
CODE = "Use a loop:\n\n```python\nfor x in y:\n\n    print(x)\n```\n\nThat is all."


def texts(body):
    return [unit.text for unit in units_of(body)]


def test_units_of_prose_lists_and_code():
    assert texts(PROSE) == PROSE.replace(". ", ".|").split("|")
    assert texts("1. Sift.\n2. Stir.") == ["1. Sift.", "2. Stir."]
    assert texts(CODE) == [
        "Use a loop:",
        "```python\nfor x in y:\n\n    print(x)\n```",
        "That is all.",
    ]
    assert texts("") == []


@pytest.mark.parametrize("body", [PROSE, CODE, "1. Sift.\n2. Stir.\n\nDone. Eat."])
def test_all_units_joined_are_the_body(body):
    assert joined(units_of(body)) == body


@given(st.text())
def test_units_lose_no_word(body):
    assert joined(units_of(body)).split() == body.split()


@given(st.integers())
def test_what_keeps_a_text_keeps_its_sentences(seed):
    draw = random.Random(seed)
    for changed in (
        wording.padded(PROSE, draw),
        wording.repetitive(PROSE, draw),
        wording.disordered(PROSE, draw),
    ):
        assert changed is not None
        assert changed != PROSE
        kept = [text for text in texts(PROSE) if text.lower() in changed.lower()]
        assert len(kept) == 3


@given(st.integers())
def test_what_shortens_a_text_is_a_part_of_it(seed):
    draw = random.Random(seed)
    shortened, terse = wording.shortened(PROSE, draw), wording.terse(PROSE, draw)
    thinned = wording.thinned(PROSE, draw)
    assert shortened
    assert terse
    assert thinned
    assert PROSE.startswith(shortened)
    assert PROSE.startswith(terse)
    assert 1 <= len(texts(thinned)) < 3
    assert set(texts(thinned)) < set(texts(PROSE))


def test_too_little_is_left_as_it_is():
    draw = random.Random(0)
    assert wording.disordered("One sentence.", draw) is None
    assert wording.thinned("One sentence.", draw) is None
    assert wording.shortened("A few words", draw) is None
    assert wording.terse("A few words", draw) is None
    assert wording.repetitive("", draw) == ""


def test_vague():
    text = "On 4 May 1889, in Paris, 12 towers (1890) were built by Gustave Eiffel for 5% of it."
    assert wording.vague(text) == (
        "one day, in some place, many towers were built by someone for some percent of it."
    )
    assert wording.vague("nothing to say here") is None


def test_hedges_and_questions():
    draw = random.Random(1)
    assert "false" in wording.hedged("False", draw).lower()
    assert wording.padded_question("What is it?", draw).endswith("hat is it?")
