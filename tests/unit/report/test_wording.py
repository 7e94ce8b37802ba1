"""How values are written."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_digest import COUNTS

from mixup.report.wording import (
    amount,
    amount_label,
    clip,
    duration,
    fate_label,
    number,
    percent,
    rate,
    score,
    seconds,
    shortfall,
    split_text,
    visible,
    words,
)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (percent(None), "—"),
        (percent(0.0), "0.0 %"),
        (percent(0.00001), "< 0.1 %"),
        (percent(0.99999), "> 99.9 %"),
        (percent(1.0), "100.0 %"),
        (number(1234567), "1,234,567"),
        (number(None), "—"),
        (score(0.875), "0.88"),
        (score(None), "—"),
        (duration(3.04), "3.0 s"),
        (seconds(0.0171), "17 ms"),
        (seconds(0.0), "0.0 s"),
        (seconds(2.5), "2.5 s"),
        (seconds(None), "—"),
        (rate(120, 60.0), "2"),
        (rate(1, 8.0), "0.12"),
        (rate(5_000, 2.0), "2,500"),
        (rate(5_000, 0.0), "—"),
        (rate(None, 1.0), "—"),
        (amount("cost_microdollars", 12_345_600), "$12.3456"),
        (amount("requests", 1_200), "1,200"),
        (amount_label("cost_microdollars"), "cost"),
        (clip("abcdef", 4), "abcd … (2 more characters)"),
        (clip("abcd", 4), "abcd"),
        (clip("a\u202eb", 4), "a[U+202E]b"),
        (duration(59.97), "60.0 s"),
        (duration(125), "2 min 05 s"),
        (duration(7384), "2 h 03 min"),
        (duration(None), "—"),
        (words("no_answer"), "no answer"),
        (words(None), "not stated"),
        (fate_label("left_out:no_near_neighbor"), "Left out: no near neighbor"),
        (fate_label("merged"), "Merged into a distilled row"),
        (fate_label("lost_in_transit"), "Lost in transit"),
    ],
)
def test_values(written, expected):
    assert written == expected


def test_what_could_deceive_the_eye_is_shown():
    assert visible("a\u202eb\u2066c\x00d\ud800e\u200b") == (
        "a[U+202E]b[U+2066]c[U+0000]d[U+D800]e[U+200B]"
    )
    assert visible("line\n\ttab é 你 مرحبا 👩\u200d🔬") == "line\n\ttab é 你 مرحبا 👩\u200d🔬"


@given(st.text(st.characters(codec=None)))
def test_visible_text_can_always_be_written(text):
    visible(text).encode("utf-8")


@given(st.text(st.sampled_from("ab .\n"), max_size=3000))
def test_splitting_loses_only_white_space(text):
    head, rest = split_text(text)
    assert (head + rest).replace("\n", "").replace(" ", "") == "".join(text.split())
    assert len(head) <= 720


def test_shortfall():
    assert shortfall(COUNTS) == (
        "2,000 rows were asked for and the release has 1,612: 612 of 1,000 distilled and "
        "1,000 of 1,000 originals."
    )
    assert shortfall(dataclasses.replace(COUNTS, distilled=1_000, rows=2_000)) is None
    # Originals that fill up for missing distilled rows reach the size but not what was asked.
    filled = dataclasses.replace(COUNTS, originals=1_388, rows=2_000)
    assert "2,000 rows were asked for and the release has 2,000" in str(shortfall(filled))
