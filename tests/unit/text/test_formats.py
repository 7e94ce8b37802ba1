"""Rows of every format become the same turns; anything else is a RecordError with a reason."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup.errors import RecordError
from mixup.records import Turn, canonical_turns
from mixup.text.formats import MAX_EXTRA_CHARS, REASONS, decode_line, parse_row

PAIR = (Turn("user", "Why?"), Turn("assistant", "Because."))
SYSTEM = Turn("system", "Be brief.")
USER, REPLY = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"instruction": "Why?", "output": "Because."}, PAIR),
        ({"instruction": "Why?", "input": "", "output": "Because."}, PAIR),
        ({"instruction": "Why?", "input": "`<noinput>`", "output": "Because."}, PAIR),
        ({"instruction": None, "input": "Why?", "output": "Because."}, PAIR),
        ({"instruction": "Why?", "context": None, "response": "Because.\r\n"}, PAIR),
        ({"system": "Be brief.", "instruction": "Why?", "output": "Because."}, (SYSTEM, *PAIR)),
        ({"prompt": "Why?", "completion": " Because."}, PAIR),
        ({"prompt": "Why?", "response": "Because."}, PAIR),
        ({"prompt": [USER], "completion": [REPLY]}, PAIR),
        ({"messages": [USER, REPLY]}, PAIR),
        ({"messages": [USER, REPLY], "prompt": "Why?"}, PAIR),
        ({"messages": None, "prompt": "Why?", "completion": "Because."}, PAIR),
        ({"messages": [{"role": "system", "content": ""}, USER, REPLY]}, PAIR),
        (
            {"messages": [{"role": "developer", "content": "Be brief."}, USER, REPLY]},
            (SYSTEM, *PAIR),
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}, REPLY]},
            PAIR,
        ),
        ({"messages": [USER, REPLY, USER, REPLY]}, PAIR + PAIR),
        (
            {
                "conversations": [
                    {"from": "human", "value": "Why?"},
                    {"from": "gpt", "value": "Because."},
                ]
            },
            PAIR,
        ),
    ],
)
def test_formats(row: dict, turns: tuple[Turn, ...]) -> None:
    assert parse_row(row).turns == turns


def test_alpaca_input_joins_by_a_blank_line() -> None:
    row = {"instruction": "Sum up.", "input": "A text.", "output": "Text."}
    assert parse_row(row).turns[0].content == "Sum up.\n\nA text."


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (None, "not_an_object"),
        ([1], "not_an_object"),
        ({}, "unknown_schema"),
        ({"text": "x"}, "unknown_schema"),
        ({"instruction": "x"}, "unknown_schema"),
        ({"instruction": "x", "output": "y", "history": [["a", "b"]]}, "unknown_schema"),
        ({"instruction": "x", "output": 3}, "wrong_type"),
        ({"instruction": ["x"], "output": "y"}, "wrong_type"),
        ({"messages": "x"}, "wrong_type"),
        ({"messages": ["x"]}, "wrong_type"),
        ({"messages": [{"content": "x"}]}, "wrong_type"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, REPLY]}, "wrong_type"),
        ({"messages": [{"role": "tool", "content": "x"}, REPLY]}, "bad_roles"),
        ({"messages": [REPLY, USER, REPLY]}, "bad_roles"),
        ({"messages": [USER, REPLY, USER]}, "bad_roles"),
        ({"messages": [USER, USER, REPLY]}, "bad_roles"),
        ({"messages": [USER, {"role": "system", "content": "x"}, REPLY]}, "bad_roles"),
        ({"messages": []}, "no_answer"),
        ({"messages": [USER]}, "no_answer"),
        ({"instruction": "x", "output": " \n"}, "no_answer"),
        ({"instruction": "x", "output": None}, "no_answer"),
        ({"instruction": " ", "input": "", "output": "y"}, "empty_turn"),
        ({"instruction": None, "output": "y"}, "empty_turn"),
        ({"messages": [USER, {"role": "assistant", "content": None}, USER, REPLY]}, "empty_turn"),
        ({"instruction": "\ud800", "output": "y"}, "invalid_unicode"),
        ({"instruction": "x", "output": "y", "id": "\udfff"}, "invalid_unicode"),
        ({"instruction": "x", "output": "y\0"}, "nul_byte"),
        ({"instruction": "x", "output": "y", "source": "\0"}, "nul_byte"),
    ],
)
def test_refusals(row: object, reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        parse_row(row)
    assert caught.value.reason == reason
    assert reason in REASONS


def test_labels_and_extra() -> None:
    row = {"instruction": "x", "output": "y", "source": " web ", "license": "MIT", "lang": "en"}
    extra = {"rating": 7, "score": 0.5, "ok": True, "id": "a-1"}
    left_out = {
        "empty": "",
        "null": None,
        "nan": float("nan"),
        "huge": 1 << 63,
        "long": "x" * (MAX_EXTRA_CHARS + 1),
        "list": [1],
        3: "three",
    }
    parsed = parse_row({**row, **extra, **left_out})
    assert (parsed.source, parsed.licence, parsed.language) == ("web", "MIT", "en")
    assert parsed.extra == extra
    assert parse_row({"instruction": "x", "output": "y", "source": 3}).source is None


def test_decode_line() -> None:
    assert decode_line(b'\xef\xbb\xbf{"a": [1, "\xc3\xa9"]}\r\n') == {"a": [1, "é"]}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"a": "\xff"}', "not_utf8"),
        ('{"a": 1}'.encode("utf-16"), "not_utf8"),
        (b'{"a": 1', "not_json"),
        (b'{"a": NaN}', "not_json"),
        (b'{"a": -Infinity}', "not_json"),
        (b'{"a": 1, "a": 2}', "not_json"),
        (b'{"a": "tab\there"}', "not_json"),
        (b'{"a": 1} {"b": 2}', "not_json"),
        (b"", "not_json"),
        (b"1" * 10_000, "not_json"),
        (b"[" * 200_000, "too_deep"),
    ],
)
def test_undecodable_lines(raw: bytes, reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        decode_line(raw)
    assert caught.value.reason == reason
    assert reason in REASONS


NAMES = st.sampled_from(
    ["messages", "conversations", "instruction", "input", "output", "prompt", "completion"]
    + ["role", "from", "content", "value", "text", "system", "history", "source", "id"]
)
WORDS = st.sampled_from(["user", "assistant", "system", "gpt", "human", "", " "]) | st.text(
    st.characters(), max_size=5
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | WORDS, inner, max_size=5),
    max_leaves=25,
)


@given(JSON)
def test_any_json_is_a_row_or_a_record_error(row: object) -> None:
    refusal = None
    try:
        parsed = parse_row(row)
    except RecordError as error:
        refusal = error
    else:
        assert parsed.turns == canonical_turns(parsed.turns)
        assert all(turn.content for turn in parsed.turns)
        assert parsed.turns[-1].role == "assistant"
        json.dumps(parsed.extra, allow_nan=False, ensure_ascii=False).encode("utf-8")
    if refusal is not None:
        assert refusal.reason in REASONS
        str(refusal).encode("utf-8")


@given(st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_decode_or_are_refused(raw: bytes) -> None:
    reason = REASONS[0]
    try:
        decode_line(raw)
    except RecordError as error:
        reason = error.reason
    assert reason in REASONS
