"""Rows of the known instruction formats, each recognized on its own, read into turns."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeGuard

from mixup.errors import RecordError
from mixup.records import Turn, canonical_turns
from mixup.text.messages import (
    check_text,
    checked_roles,
    first_of,
    message_turns,
    text_of,
    type_name,
)

Scalar = str | int | float | bool

REASONS = (
    "not_utf8",  # the line's bytes are not UTF-8
    "not_json",  # the line is not strict JSON
    "too_deep",  # the line's JSON is nested too deeply to read
    "not_an_object",  # the row is no object: a number, text, list
    "unknown_schema",  # no known format has the row's fields
    "wrong_type",  # a field of the format is of another type
    "bad_roles",  # unknown roles, or no alternation user, assistant, ..., assistant
    "empty_turn",  # a user turn, or an assistant turn before the last, is empty
    "no_answer",  # there is no assistant turn, or the last one is empty
    "invalid_unicode",  # lone surrogates: the text cannot be written as UTF-8
    "nul_byte",  # a NUL character in the text
)
MAX_EXTRA_CHARS = 500

_BOM = b"\xef\xbb\xbf"
# What Alpaca-style generators write where a row has no input.
_NO_INPUT = re.compile(r"[\s`]*<\s*no\s*input\s*>[\s`]*", re.IGNORECASE)
_INT64 = 1 << 63
_CONTENT_FIELDS = frozenset(
    ("messages", "conversations", "instruction", "input", "context", "output", "prompt")
    + ("completion", "response", "system", "source", "licence", "license", "language", "lang")
)


@dataclass(frozen=True, slots=True)
class ParsedRow:
    """A row as a record needs it.

    Attributes:
        turns: Canonical turns: an optional system turn, then user and assistant in turn.
        source: The row's ``source`` field, when it is nonempty text.
        licence: The row's ``licence`` or ``license`` field, likewise.
        language: The row's ``language`` or ``lang`` field, likewise.
        extra: The row's other scalar fields: text of 1 to ``MAX_EXTRA_CHARS`` characters, finite
            floats, integers of 64 bits and booleans. Other values are left out.
    """

    turns: tuple[Turn, ...]
    source: str | None
    licence: str | None
    language: str | None
    extra: dict[str, Scalar] = field(default_factory=dict)


def decode_line(raw: bytes) -> object:
    """The value of one JSON line, read strictly; a byte order mark is dropped.

    NaN, Infinity and repeated keys are refused: readers disagree about them.

    Raises:
        RecordError: ``not_utf8``, ``not_json`` or ``too_deep``.
    """
    try:
        text = raw.removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError("not_utf8", f"byte {error.start}: {error.reason}") from error
    try:
        return _DECODER.decode(text)
    except RecursionError as error:
        raise RecordError("too_deep", "nested too deeply to read") from error
    except ValueError as error:  # also an integer of more digits than Python converts
        raise RecordError("not_json", str(error)[:200]) from error


def parse_row(row: object) -> ParsedRow:
    """A row of any known format; fields that hold null count as absent.

    The formats, tried in this order: ``messages`` (role, content as text or text parts),
    ``conversations`` (ShareGPT: from, value), ``instruction`` with ``output`` or ``response`` and
    optionally ``input`` or ``context`` (Alpaca, Dolly; the input joins the instruction by a blank
    line, and an input of "<noinput>" is none), ``prompt`` with ``completion`` or ``response``
    (texts, or lists of messages). A text field ``system`` becomes the system turn of a row that
    has none. Empty system turns are dropped.

    Raises:
        RecordError: With one of ``REASONS``; nothing else, whatever the row is.
    """
    if not isinstance(row, dict):
        raise RecordError("not_an_object", f"a row must be an object, not {type_name(row)}")
    turns = checked_roles(canonical_turns(_turns_of(row)))
    return ParsedRow(
        turns=turns,
        source=_label(row, "source"),
        licence=_label(row, "licence", "license"),
        language=_label(row, "language", "lang"),
        extra=_extra(row),
    )


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key is repeated within one object")
    return fields


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)


def _turns_of(row: Mapping[object, object]) -> list[Turn]:
    turns = _body_turns(row)
    system = row.get("system")
    if isinstance(system, str) and turns and turns[0].role != "system":
        check_text(system)
        turns.insert(0, Turn("system", system))
    return turns


def _body_turns(row: Mapping[object, object]) -> list[Turn]:
    for name in ("messages", "conversations"):
        if row.get(name) is not None:
            return message_turns(row[name], name)
    if row.get("history"):
        raise RecordError("unknown_schema", "history is not read: give the turns as messages")
    # A null question is an empty turn only where no format has one.
    for has in (lambda name: row.get(name) is not None, row.__contains__):
        if has("instruction") and ("output" in row or "response" in row):
            return _alpaca_turns(row)
        if has("prompt") and ("completion" in row or "response" in row):
            return _prompt_turns(row)
    fields = sorted(name for name in row if isinstance(name, str))[:12]
    raise RecordError("unknown_schema", f"no known format has the fields {ascii(fields)[:300]}")


def _alpaca_turns(row: Mapping[object, object]) -> list[Turn]:
    instruction = text_of(row.get("instruction"), "instruction")
    given = text_of(first_of(row, "input", "context"), "input")
    if _NO_INPUT.fullmatch(given):
        given = ""
    parts = [part for part in (instruction, given) if part.strip()]
    answer = text_of(first_of(row, "output", "response"), "output")
    return [Turn("user", "\n\n".join(parts)), Turn("assistant", answer)]


def _prompt_turns(row: Mapping[object, object]) -> list[Turn]:
    prompt, answer = row.get("prompt"), first_of(row, "completion", "response")
    if isinstance(prompt, list | tuple) and isinstance(answer, list | tuple):
        return message_turns([*prompt, *answer], "prompt")
    return [
        Turn("user", text_of(prompt, "prompt")),
        Turn("assistant", text_of(answer, "completion")),
    ]


def _label(row: Mapping[object, object], *names: str) -> str | None:
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and value.strip():
            check_text(value)
            return value.strip()
    return None


def _extra(row: Mapping[object, object]) -> dict[str, Scalar]:
    extra: dict[str, Scalar] = {}
    for name, value in row.items():
        if isinstance(name, str) and name not in _CONTENT_FIELDS and _is_extra(value):
            check_text(name)
            if isinstance(value, str):
                check_text(value)
            extra[name] = value
    return extra


def _is_extra(value: object) -> TypeGuard[Scalar]:
    if isinstance(value, str):
        return 0 < len(value) <= MAX_EXTRA_CHARS
    if isinstance(value, int):
        return -_INT64 <= value < _INT64
    return isinstance(value, float) and math.isfinite(value)
