"""Full stops that end no sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup.mixture.prose import sentences
from mixup.text.stops import SHIELD, shielded, unshielded


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("U.S. Route 101 follows the coast.", "U.S. Route 99 was renamed."),
        ("St. Louis lies on the Mississippi.", "St. Paul lies there too."),
        ("The U.S. Congress met in Washington, D.C. on Jan. 5.", "The vote was close."),
        ("He moved to the U.S.", "The family followed in 1921."),
        ("Dr. J. K. Smith met the Rev. Martin Luther King Jr. in Selma.", "Both marched."),
        ("George W. Bush and John F. Kennedy were presidents.", "Neither was a farmer."),
        ("J. R. R. Tolkien and C. S. Lewis taught at Oxford.", "They met weekly."),
        ("Roe v. Wade was decided in 1973.", "Brown v. Board came before."),
        ("Acme Inc. bought Smith Bros. Mfg. Co. for $2.5 million.", "Nobody objected."),
        ("The shop on Main St. closed.", "It was built c. 1815."),
        ("Mt. Everest is 8,848.86 m high, and Ft. Worth is flat.", "See Fig. 3 and pp. 4-5."),
        ("She has a Ph.D. from Yale.", "At 5 p.m. Monday she left."),
        ("Gen. Ulysses S. Grant took Ft. Donelson on Feb. 16.", "Gov. Harris fled."),
        ("Use Node.js or e.g. Python 3.11 for it.", "Both run on example.org."),
        ("The book is No. 5 of Vol. 2.", "Nobody answered: no."),
        ("Oranges hold vitamin C.", "The doctor knew it."),
    ],
)
def test_two_sentences_are_two(first, second):
    assert sentences(f"{first} {second}") == [first, second]


@given(st.text(alphabet="A.b U1s\n", max_size=40))
def test_the_text_keeps_its_length_and_comes_back(text):
    assert len(shielded(text)) == len(text)
    assert unshielded(shielded(text)) == text
    assert not shielded(text).endswith(SHIELD)


@given(st.text())
def test_sentences_are_parts_of_any_text(text):
    assert all(sentence in text for sentence in sentences(text))


def test_a_long_text_of_initials_ends():
    text = "J. " * 100_000 + "U.S." * 100_000
    assert unshielded(shielded(text)) == text
