"""Prose taken out of raw text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup.mixture.prose import HOLE, is_english, is_sound, plain_text, sentences, sound_runs


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("Bees fly.[1][12] They hum.[citation needed]", "Bees fly. They hum."),
        ("'''Bees''' are [[insect|insects]] {{cn|{{date}}}}of note.", "Bees are insects of note."),
        ("Bees<ref>Smith</ref> fly.<br/> &amp; hum", "Bees fly. & hum"),
        ("== History ==\nBees fly.\n{| class=x\n| cell\n|}\nThey hum.", "Bees fly.\nThey hum."),
        ("Berlin (/bɜːrˈlɪn/; German: [x]) is big.", "Berlin is big."),
        ("Ada (/ˈeɪdə/; 10 May 1815 – 1852) wrote.", "Ada (10 May 1815 – 1852) wrote."),
        ("Tehran (/tɛˈrɑːn/ (listen); Persian: x) is big.", "Tehran is big."),
        ("Bees () fly (; ) far.", "Bees fly far."),
        ("Fort Ross (/fɔːrt/), is a fort.", "Fort Ross is a fort."),
        ("", ""),
    ],
)
def test_markup_and_notes_are_taken_off(raw, plain):
    assert plain_text(raw) == plain


def test_a_lost_template_leaves_a_hole_and_no_sound_sentence():
    text = plain_text("The road has a length of  of highways in the far west. It is long and old.")
    assert HOLE in text
    assert sound_runs(text) == [["It is long and old."]]
    assert sound_runs(
        plain_text("The land is very flat. , the largest towns are in the west.")
    ) == [["The land is very flat."]]


def test_a_heading_glued_to_a_sentence_is_cut_off():
    text = plain_text("It is a mountain range.TransportThe road network is dense and old.")
    assert sentences(text) == ["It is a mountain range.", "The road network is dense and old."]


def test_what_a_heading_without_a_boundary_is_glued_to_is_not_sound():
    text = plain_text("It is used in the field.Albedo in Space In space the term has a meaning.")
    assert sound_runs(text) == [["It is used in the field."]]


def test_sentences_end_where_they_end():
    text = (
        "Dr. J. K. Smith of St. Paul met No. 5 at 3.5 km. He said: “Go!” Then (in 1990) they left."
    )
    assert sentences(text) == [
        "Dr. J. K. Smith of St. Paul met No. 5 at 3.5 km.",
        "He said: “Go!”",
        "Then (in 1990) they left.",
    ]


@pytest.mark.parametrize(
    ("sentence", "sound"),
    [
        ("The bees of the hive fly far.", True),
        ("“The bees of the hive fly far.”", True),
        ("the bees of the hive fly far.", False),
        ("The bees of the hive fly far", False),
        ("The bees (of the hive fly far.", False),
        ('The bees of the "hive fly far.', False),
        ("The bees fly.", False),
        ("The MechanismBees of the hive fly far.", False),
        ("The bees of the hive see https://bees.org today.", False),
        ("Apis Bombus Osmia Andrena Megachile Xylocopa.", False),
        ("The bees" + " of the hive" * 30 + ".", False),
    ],
)
def test_soundness(sentence, sound):
    assert is_sound(sentence) is sound


def test_runs_are_broken_by_what_is_not_sound():
    text = "The bees of the hive fly. They hum in the day. See [x]. The queen stays in the hive."
    assert sound_runs(text) == [
        ["The bees of the hive fly.", "They hum in the day."],
        ["The queen stays in the hive."],
    ]


def test_english_is_told_from_other_languages():
    assert is_english("The queen of the bees is in the hive and lays the eggs of the colony.")
    assert not is_english("Die Königin der Bienen lebt im Stock und legt dort ihre vielen Eier ab.")
    assert not is_english("蜜蜂的女王")
    assert is_english("Bees fly.")


def test_openings_that_are_never_closed_end():
    for opening in ("<ref ", "<!-- ", "{{", "[[", "(a ", "J. ", "of  "):
        sound_runs(plain_text(opening * 20_000))


@given(st.text())
def test_nothing_makes_it_fail_and_taking_off_twice_changes_no_sentence(text):
    plain = plain_text(text)
    assert "\r" not in plain
    for run in sound_runs(plain):
        assert all(sentence in plain for sentence in run)
