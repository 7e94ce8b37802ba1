"""The question of an evaluation row: which columns hold it, and which part of their text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

QUESTION_COLUMNS = (
    "question",
    "query",
    "prompt",
    "instruction",
    "problem",
    "input",
    "turns",
    "messages",
    "conversations",
    "context",
    "cot_prompt",
    "text",
)
"""Columns that hold the question, whatever their case; the first one that a row has is taken."""

_WITH_INPUT = "instruction"
# `Passage: ... Question: ... Choices: ... Answer:`, as evaluation harnesses write it.
_QUESTION = re.compile(r"^[ \t]*(?:question|q)[ \t]*:", re.IGNORECASE | re.MULTILINE)
_AFTER = re.compile(r"^[ \t]*(?:choices|options|answer|a)[ \t]*:", re.IGNORECASE | re.MULTILINE)


def question_columns(names: Sequence[str], columns: Sequence[str] | None) -> list[str]:
    """The columns of a row that make up its question, in order; empty if there is none.

    Args:
        names: The row's columns.
        columns: The columns to take, as far as a row has them; None takes the first known one, and
            with ``instruction`` its ``input``.
    """
    if columns is not None:
        return [name for name in columns if name in names]
    by_lower = {name.lower(): name for name in reversed(names)}
    first = next((name for name in QUESTION_COLUMNS if name in by_lower), None)
    if first is None:
        return []
    wanted = [first, "input"] if first == _WITH_INPUT else [first]
    return [by_lower[name] for name in wanted if name in by_lower]


def question_of(row: Mapping[str, Any], columns: Sequence[str] | None) -> str:
    """The question of an evaluation row; empty where its columns hold no text."""
    names = question_columns(list(row), columns)
    texts = [_text(row[name]) for name in names]
    return labeled_part("\n".join(text for text in texts if text.strip()))


def labeled_part(text: str) -> str:
    """The text behind a ``Question:`` label, up to choices or answer; the whole without a label.

    A passage above the question is material of the task, which other rows may quote as well. Where
    there are several labels (examples before the question) the text is left whole.
    """
    labels = list(_QUESTION.finditer(text))
    if len(labels) != 1:
        return text
    part = text[labels[0].end() :]
    after = _AFTER.search(part)
    return part[: after.start()] if after else part


def _text(value: Any) -> str:
    """Text, or the texts of a list of texts or of user messages."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list | tuple):
        return ""
    parts = [_message(part) if isinstance(part, Mapping) else part for part in value]
    return "\n".join(part for part in parts if isinstance(part, str))


def _message(message: Mapping[str, Any]) -> Any:
    role = message.get("role", message.get("from"))
    content = message.get("content", message.get("value"))
    return content if role in ("user", "human") else None
