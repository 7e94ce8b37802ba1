"""Controlled changes of one place in a statement."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup.mixture.alter import alterations_of, known_name, near_number, quantities_of, years_of

STATEMENT = "Ada Byron was an English writer, born in France on 4 May 1815 in the largest town."


def altered(statement, rule, context="", seed=0):
    return alterations_of(statement, random.Random(seed), context=context).get(rule)


def test_each_rule_changes_one_place():
    for rule in ("number", "name", "negation", "opposite"):
        found = altered(STATEMENT, rule)
        assert found is not None
        assert found.rule == rule
        assert found.text != STATEMENT
        if rule != "negation":
            assert found.text.count(found.after) >= 1
            assert found.text.replace(found.after, found.before) == STATEMENT


@pytest.mark.parametrize(
    ("statement", "negated"),
    [
        ("Ada was a writer.", "Ada was not a writer."),
        ("Ada was not a writer.", "Ada was a writer."),
        ("The bees are found here.", "The bees are not found here."),
        ("Bees, which are small, are loved.", None),
        ("The place where bees are kept is warm.", None),
        ("Ada was only a writer.", None),
        ("Ada wrote.", None),
    ],
)
def test_negation_of_the_main_clause(statement, negated):
    found = altered(statement, "negation")
    assert (found.text if found else None) == negated


@pytest.mark.parametrize(
    ("text", "years", "quantities"),
    [
        ("It opened in 1889.", ["1889"], []),
        ("From 1880–1890 it was open (in 1885).", [], []),
        ("It has 3,756 structures and 44 deaths per 1000 births.", [], ["3,756", "44", "1000"]),
        ("No. 428 Squadron, FACV 19 and 2 Main Street", [], []),
        ("It is 122 cm (48 in) tall, or 85% of it.", [], ["85"]),
        ("On May 17, 1880, it had 12.5 million people.", ["1880"], ["12.5"]),
    ],
)
def test_years_and_quantities(text, years, quantities):
    assert years_of(text) == years
    assert quantities_of(text) == quantities


@given(st.integers(2, 10_000_000), st.booleans(), st.integers(0, 99), st.integers())
def test_a_near_number_is_another_of_the_same_form(value, commas, decimals, seed):
    whole = f"{value:,}" if commas else str(value)
    number = f"{whole}.{decimals}" if decimals else whole
    near = near_number(number, random.Random(seed))
    if near is not None:
        assert near != number
        assert ("," in near) <= ("," in number or value > 400)
        assert near.partition(".")[2] == number.partition(".")[2]
        assert float(near.replace(",", "")) > 1


def test_a_near_number_is_none_that_is_known():
    assert near_number("3", random.Random(0), known=["2", "4", "5"]) is None


def test_other_names_are_not_of_the_context():
    for seed in range(40):
        found = known_name(STATEMENT, random.Random(seed), context="a Dutch and Greek tale")
        assert found
        span, others = found
        assert STATEMENT[slice(*span)] == "an English"
        assert len(set(others)) == 3
        assert not {"a Dutch", "a Greek", "an English"} & set(others)
        assert all(other.startswith("an ") == (other.split()[1][0] in "AEIO") for other in others)


def test_the_opposite_is_not_put_in_where_it_stands_already():
    statement = "The largest town is near the smallest town."
    assert altered(statement, "opposite") is None
    assert altered("It is no longer open.", "opposite") is None
