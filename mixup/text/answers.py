"""The strict reading of a model's answer that is to be one JSON object.

Nothing is searched for inside an answer, and nothing that is missing is made up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any, NoReturn

from mixup.errors import RecordError

UNREADABLE = (
    "no_answer",  # an empty answer, or one that the server withheld
    "prose",  # words before, after or in place of the object
    "not_json",  # an object that is not JSON
    "cut_json",  # an object that breaks off
    "not_object",  # JSON of another kind, such as a list
    "wrong_keys",  # a key missing, unknown, repeated or in other letters
)
"""Why an answer holds no object of the keys that were asked for."""

_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)
_MOST_DIGITS = 20


def read_object(answer: str, keys: Collection[str], *, too_long: int) -> dict[str, Any]:
    """The object in an answer: bare, or in a Markdown fence that is the whole answer.

    Args:
        answer: The answer's text.
        keys: The keys that it must have, and no others.
        too_long: What stands for an integer of more digits than Python reads.

    Raises:
        RecordError: With one of ``UNREADABLE``.
    """
    text = answer.strip()
    if fenced := _FENCED.fullmatch(text):
        text = fenced.group(1).strip()
    if not text:
        raise RecordError("no_answer")
    found = _decode(text, too_long)
    if not isinstance(found, dict):
        raise RecordError("not_object", f"a JSON {type(found).__name__}")
    if set(found) != set(keys):
        raise RecordError("wrong_keys", f"{sorted(found)[:8]}")
    return found


def _decode(text: str, too_long: int) -> Any:
    decoder = json.JSONDecoder(
        object_pairs_hook=_unique,
        parse_constant=_refuse,
        parse_int=lambda digits: int(digits) if len(digits) < _MOST_DIGITS else too_long,
    )
    try:
        return decoder.decode(text)
    except RecordError:
        raise
    except (ValueError, RecursionError) as error:
        raise RecordError(_defect(text, decoder), str(error)[:100]) from error


def _defect(text: str, decoder: json.JSONDecoder) -> str:
    """What is wrong with text that is not JSON."""
    if not text.startswith("{"):
        return "prose"
    try:
        decoder.raw_decode(text)
    except (ValueError, RecursionError):
        return "not_json" if text.endswith("}") else "cut_json"
    return "prose"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise RecordError("wrong_keys", "a key is repeated")
    return found


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
