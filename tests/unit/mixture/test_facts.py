"""Facts: numbers, names, negations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup.mixture.facts import facts_of, found_in, numbers_of


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("", set()),
        ("The tower was built in 1889.", {"#1889"}),
        ("Kant's town has 1,234.5 km2.", {"@kant", "#1,234.5"}),
        ("It was not published; nobody knew.", {"!not published", "!nobody knew"}),
        ("She didn't go. I want it.", {"!didn't go"}),
        ("It went away, the student said.", set()),
        ("Seven of them, half a million", {"#seven", "#half", "#million"}),
        ("Is it so? No. The end", set()),
        ("iPhones and NASA", {"@iphones", "@nasa"}),
    ],
)
def test_facts(text, facts):
    assert facts_of(text) == facts


def test_a_number_is_a_whole_token():
    assert "#88" not in found_in("in 1889 and 88,000")
    assert numbers_of("in 1889, 3.5 and 88,000.") == ["1889", "3.5", "88,000"]


def test_a_name_is_found_whatever_its_case():
    assert facts_of("by Immanuel Kant") <= found_in("BY IMMANUEL KANT")
    assert facts_of("by Immanuel Kant") <= found_in("by immanuel kant's")
    assert not facts_of("by Immanuel Kant") <= found_in("by immanuel kants")


@given(st.text(), st.text())
def test_a_text_witnesses_its_own_facts_and_those_of_its_parts(first, second):
    assert facts_of(first) <= found_in(first)
    assert facts_of(f"{first}\n{second}") <= found_in(first) | found_in(second)
