"""MIXTURE records in the paper's two schemas and as messages."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from passages import SEGMENTS

from mixup.errors import RecordError
from mixup.mixture.cut import items_of
from mixup.mixture.degraded import VariantSettings
from mixup.mixture.pairs import Target, pair_of
from mixup.mixture.schemas import (
    RECORD_REASONS,
    MixtureRecord,
    messages_of,
    provenance_of,
    read_record,
    record_of,
    rl_row,
    sft_row,
)
from mixup.mixture.variants import variants_of
from mixup.text.parse import parse_distilled
from mixup.text.prompts import build_messages

PAIRS = [
    pair_of(
        Target(outcome.item, (segment.key,), (segment.article,), outcome.rule, licence="CC0"),
        variants_of(outcome.item, seed=0, settings=VariantSettings(lossy_share=0.0)),
        seed=0,
        thought_share=1.0,
    )
    for segment in SEGMENTS
    for outcome in items_of(segment, seed=0)
    if outcome.item
]
QA_INPUT = "Q: Why?\nA: So.\n\nQ: Why then?\nA: So it is."


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.target.item.task)
def test_both_schemas_hold_the_same_record(pair):
    record = record_of(pair)
    assert read_record(json.loads(json.dumps(sft_row(record)))) == record
    read = read_record(json.loads(json.dumps(rl_row(record))))
    assert read == MixtureRecord(
        record.id, record.task, record.instruction, record.input, record.output, ""
    )


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.target.item.task)
def test_messages_are_those_of_the_one_prompt_builder_and_its_parser(pair):
    item = pair.target.item
    system, user, assistant = messages_of(record_of(pair))
    assert [system, user] == build_messages([one.text for one in pair.variants], item.task)
    parsed = parse_distilled(assistant["content"], item.task)
    assert (parsed.turns, parsed.thought) == (item.turns, pair.thought)


def test_the_schemas_are_the_papers():
    record = record_of(PAIRS[0])
    assert list(sft_row(record)) == ["id", "instruction", "input", "output", "cot", "source"]
    row = rl_row(record)
    assert set(row) == {"id", "input", "output", "task_type"}
    assert row["task_type"] == f"{record.task}_mixup"
    assert row["input"] == f"{record.instruction}\n\n{record.input}"


def test_rows_of_the_paper_are_read():
    sft = {
        "id": 7,
        "instruction": "Merge.",
        "input": QA_INPUT,
        "output": "Q: W?\nA: S.",
        "cot": None,
    }
    assert read_record(sft) == MixtureRecord("7", "qa", "Merge.", QA_INPUT, "Q: W?\nA: S.", "")
    rl = {"input": f"Merge.\n\n{QA_INPUT}", "output": "It is so.", "task_type": "para_mixup"}
    read = read_record(rl)
    assert (read.task, read.instruction, read.input) == ("para", "Merge.", QA_INPUT)
    assert read.id == read_record(dict(reversed(rl.items()))).id
    assert read_record({"input": QA_INPUT, "output": "Q: W?\n A: S."}).instruction == ""


@pytest.mark.parametrize(
    ("output", "task"),
    [
        ("Q: W?\nA) a\nB) b\nC) c\nD) d\nAnswer: A", "mcq"),
        ("Q: W?\n A: S.", "qa"),
        ("C: bees\nS: Bees hum.", "cs"),
        ("Bees hum.\nAnswer: True", "tfq"),
    ],
)
def test_a_task_is_told_by_the_outputs_labels(output, task):
    assert read_record({"input": "x", "output": output}).task == task
    assert read_record({"input": "x", "output": output}, task="para").task == "para"
    assert read_record({"input": "x", "output": output, "source": "cs"}, task="para").task == "cs"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([], "not_an_object"),
        ({"messages": []}, "unknown_schema"),
        ({"instruction": "x", "output": "y"}, "unknown_schema"),
        ({"input": 3, "output": "y"}, "wrong_type"),
        ({"input": "x", "output": "Just prose."}, "unknown_task"),
        ({"input": " ", "output": "Q: a\nA: b"}, "empty_input"),
        ({"input": "x", "output": "\n"}, "empty_output"),
        ({"input": "x\0", "output": "y"}, "nul_byte"),
        ({"input": "x\ud800", "output": "y"}, "invalid_unicode"),
    ],
)
def test_a_row_of_neither_schema_says_why(row, reason):
    with pytest.raises(RecordError) as caught:
        read_record(row)
    assert caught.value.reason == reason


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
fields = st.sampled_from(["id", "instruction", "input", "output", "cot", "source", "task_type"])


@given(json_values | st.dictionaries(fields, json_values))
def test_any_row_is_read_or_says_why(row):
    try:
        record, reason = read_record(row), None
    except RecordError as error:
        record, reason = None, error.reason
    assert bool(record and record.input and record.output) != (reason in RECORD_REASONS)


def test_provenance_names_where_all_comes_from():
    pair = PAIRS[0]
    columns = provenance_of(pair)
    assert columns["origins"] == ["segment-1"]
    assert columns["articles"] == ["article-1"]
    assert columns["licence"] == "CC0"
    assert columns["target_rating_source"] == "construction"
    assert [one["uid"] for one in columns["variants"]] == [one.uid for one in pair.variants]
    assert all(one["degradations"] for one in columns["variants"])
