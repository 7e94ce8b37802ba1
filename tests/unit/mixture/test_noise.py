"""Typing errors, lost casing and punctuation."""

from __future__ import annotations

import random
import re

from hypothesis import given
from hypothesis import strategies as st

from mixup.mixture.noise import KEYS_BESIDE, with_typos, without_casing, without_punctuation

TEXT = "In 1889, Gustave Eiffel built the tower; it isn't 3.5 km tall (but 330 m)."


def test_keys_beside_are_those_of_a_keyboard():
    assert set(KEYS_BESIDE["s"]) == set("adwezx")
    assert set(KEYS_BESIDE["q"]) == set("wa")
    assert set(KEYS_BESIDE["m"]) == set("njk")
    assert all(a in KEYS_BESIDE[b] for a, beside in KEYS_BESIDE.items() for b in beside)


@given(st.integers())
def test_typos_change_long_words_only(seed):
    mistyped = with_typos(TEXT, random.Random(seed))
    assert mistyped != TEXT
    assert re.findall(r"\d[\d.]*", mistyped) == re.findall(r"\d[\d.]*", TEXT)
    for mine, yours in zip(mistyped.split(), TEXT.split(), strict=True):
        assert mine == yours or re.search(r"[A-Za-z]{4}", yours)


def test_typos_follow_their_rate():
    words = "abcdef " * 200
    changed = with_typos(words, random.Random(0), rate=0.2).split()
    assert sum(word != "abcdef" for word in changed) > 30
    assert sum(word != "abcdef" for word in changed) <= 40


@given(st.text(), st.integers())
def test_nothing_makes_noise_fail(text, seed):
    with_typos(text, random.Random(seed))
    assert without_punctuation(without_punctuation(text)) == without_punctuation(text)


def test_casing_and_punctuation():
    assert without_casing("Ada Wrote.", random.Random(0)) in ("ada wrote.", "ADA WROTE.")
    assert without_punctuation(TEXT) == (
        "In 1889, Gustave Eiffel built the tower it isn't 3.5 km tall (but 330 m)."
    )
    assert without_punctuation('She said: "go". Then left!') == "She said go Then left"
