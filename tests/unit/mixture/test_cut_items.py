"""Items cut from segments by rule."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from passages import LIGHTHOUSE, PERSON, SEGMENTS

from mixup.cover import RETRYABLE
from mixup.mixture.alter import alterations_of
from mixup.mixture.cut import CUT_REASONS, items_of
from mixup.mixture.items import LETTERS, Segment, generator_of
from mixup.mixture.passage import passage_of, stands_alone
from mixup.text.parse import PARSE_REASONS, parse_distilled
from mixup.text.prompts import target_text
from mixup.text.tasks import TASKS, detect_task

SEEDS = range(20)


def items(segment, seed=0, tasks=TASKS):
    """The items that there are, by task."""
    outcomes = items_of(segment, seed=seed, tasks=tasks)
    return {outcome.task: outcome.item for outcome in outcomes if outcome.item}


def source(segment):
    return passage_of(segment).text


@pytest.mark.parametrize("segment", SEGMENTS)
def test_every_task_has_an_item_that_the_distiller_could_have_written(segment):
    found = items(segment)
    assert set(found) == set(TASKS)
    for task, item in found.items():
        assert parse_distilled(target_text("x y", item.answer), task).turns == item.turns
        assert detect_task(item.turns) == task


def test_the_first_sentence_makes_the_question_and_the_category():
    lighthouse, person = items(LIGHTHOUSE), items(PERSON)
    assert lighthouse["qa"].head == "What is Ormsay Lighthouse?"
    assert person["qa"].head == "Who was Ida Holm?"
    assert lighthouse["cs"].head == "Scottish stone lighthouses"
    assert person["cs"].head == "Norwegian botanists"
    assert lighthouse["para"].head == "Ormsay Lighthouse"


@pytest.mark.parametrize("segment", SEGMENTS)
def test_answers_statements_and_paragraphs_are_the_passages_own_sentences(segment):
    found = items(segment)
    for task in ("qa", "cs", "para"):
        for sentence in found[task].body.split(". "):
            # A leading pronoun may have been replaced by the topic.
            assert sentence.rstrip(".").split(" ", 2)[2] in source(segment)


@pytest.mark.parametrize("segment", SEGMENTS)
def test_true_statements_are_said_and_false_ones_are_a_change_of_what_is_said(segment):
    said = passage_of(segment).alone
    changes = {
        alteration.text
        for sentence in said
        for draw in range(100)
        for alteration in alterations_of(
            sentence, generator_of(draw), context=source(segment)
        ).values()
    }
    marks = set()
    for seed in SEEDS:
        item = items(segment, seed, ["tfq"])["tfq"]
        marks.add(item.mark)
        if item.mark == "True":
            assert item.body in said
        else:
            assert item.body not in said
            assert _without_numbers(item.body) in map(_without_numbers, changes)
    assert marks == {"True", "False"}


def _without_numbers(text):
    """A text with one sign for all numbers and names that may be put in."""
    return re.sub(r"\d[\d,.]*\d|\d|an? [A-Z]\w+|(?<=\d )[A-Z]\w+", "#", text)


@pytest.mark.parametrize("segment", SEGMENTS)
def test_one_option_is_right_and_the_others_are_not_said(segment):
    letters = set()
    for seed in SEEDS:
        item = items(segment, seed, ["mcq"])["mcq"]
        letters.add(item.mark)
        assert len({option.casefold() for option in item.options}) == 4
        if "____" in item.head:
            whole = item.head.split("? ", 1)[1]
            says = [option for option in item.options if _said(whole, option, segment)]
            assert says == [item.right]
        else:
            assert [option for option in item.options if option in passage_of(segment).alone] == [
                item.right
            ]
    assert letters == set(LETTERS)


def _said(whole, option, segment):
    return whole.replace("____", option) in passage_of(segment).alone


def test_a_pronoun_is_replaced_only_where_it_can_mean_nothing_else():
    alone = passage_of(PERSON).alone
    assert any(sentence.startswith("Ida Holm studied in Bergen") for sentence in alone)
    assert not any(sentence.startswith(("She", "Her")) for sentence in alone)
    # "It was manned" follows a sentence that begins with the topic, but is not of the listed kind.
    assert not any("was manned" in sentence for sentence in passage_of(LIGHTHOUSE).alone)


@pytest.mark.parametrize(
    ("sentence", "alone"),
    [
        ("Kant wrote three books on it.", True),
        ("He wrote three books like Kant.", False),
        ("However, Kant wrote three books.", False),
        ("Early in his life Kant wrote three books.", False),
        ("Established in 1892, it was named for Kant.", False),
        ("Two years later, Kant wrote three books.", False),
        ("Hegel wrote three books.", False),
    ],
)
def test_a_sentence_stands_alone(sentence, alone):
    assert stands_alone(sentence, "Immanuel Kant") is alone


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"text": ""}, "no_prose"),
        ({"text": "{| class=x\n| a\n|}\n== History =="}, "no_prose"),
        (
            {"text": "Der Turm wurde im Jahre 1844 von dem Ingenieur erbaut."},
            "not_english",
        ),
        ({"title": "List of lighthouses"}, "no_topic"),
        ({"text": "A list of the towers of the island; and of the lamps"}, "no_sound_sentence"),
    ],
)
def test_what_gives_no_item_says_why(changes, reason):
    outcomes = items_of(replace(LIGHTHOUSE, **changes), seed=0)
    assert [outcome.task for outcome in outcomes] == list(TASKS)
    assert {outcome.reason for outcome in outcomes} == {reason}
    assert all(outcome.item is None and outcome.rule == "" for outcome in outcomes)


def test_one_short_sentence_gives_what_it_can():
    segment = replace(LIGHTHOUSE, text="Ormsay Lighthouse is a stone tower in the north of Ormsay.")
    reasons = {outcome.task: outcome.reason for outcome in items_of(segment, seed=0)}
    assert reasons == {
        "qa": "no_answer_sentences",
        "mcq": "no_distractors",
        "tfq": "no_statement",
        "cs": "no_statement",
        "para": "no_paragraph",
    }


def test_a_rules_reasons_are_final():
    # A rule gives the same once more.
    assert not {*CUT_REASONS, *PARSE_REASONS} & {*RETRYABLE}


def test_a_category_with_a_full_stop_in_it_stays_whole():
    text = (
        "The highway U.S. Route 101 begins in the north of the state near Ormsay. U.S. Route 101 "
        "then follows the coast of the state for 1,500 miles to the south."
    )
    segment = replace(LIGHTHOUSE, title="U.S. Route 101", text=text)
    (outcome,) = items_of(segment, seed=0, tasks=["cs"])
    assert outcome.item is not None
    assert outcome.item.head == "U.S. Route 101"


def test_a_category_that_a_group_cannot_show_is_refused():
    text = (
        "Panic! At the Disco is an American rock band of four people from a town in the desert. "
        "Panic! At the Disco has published seven albums since the year 2005 in all the world."
    )
    segment = replace(LIGHTHOUSE, title="Panic! At the Disco", text=text)
    (outcome,) = items_of(segment, seed=0, tasks=["cs"])
    assert outcome.reason == "not_expressible"


def test_items_depend_on_key_seed_and_text_alone():
    assert items_of(LIGHTHOUSE, seed=3) == items_of(LIGHTHOUSE, seed=3)
    assert items_of(LIGHTHOUSE, seed=3, tasks=["mcq"]) == [
        outcome for outcome in items_of(LIGHTHOUSE, seed=3) if outcome.task == "mcq"
    ]
    different = {str(items_of(LIGHTHOUSE, seed=seed)) for seed in range(6)}
    assert len(different) > 3
    assert items_of(replace(LIGHTHOUSE, key="other"), seed=3) != items_of(LIGHTHOUSE, seed=3)


def test_wrong_numbers_come_from_the_articles_other_text_too():
    context = "The pier of 1771 was rebuilt in 1882. The road of 1733 was closed in 1999."
    wrong = set()
    for seed in SEEDS:
        item = items(replace(LIGHTHOUSE, context=context), seed, ["mcq"])["mcq"]
        if item.head.startswith("Which year"):
            wrong |= set(item.options) & {"1771", "1882", "1733", "1999"}
    assert wrong


@given(st.text(max_size=300), st.text(max_size=40))
def test_any_text_gives_an_item_or_a_known_reason(text, title):
    for outcome in items_of(Segment("k", "a", title, text), seed=0):
        assert (outcome.item is None) == (outcome.reason in (*CUT_REASONS, *PARSE_REASONS))
