"""Rows of a user's pool as targets: pairs that the distiller could have written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from mixup.errors import RecordError
from mixup.mixture.items import LETTERS, Item, checked
from mixup.records import Turn, canonical_turns, estimated_tokens
from mixup.text.stops import shielded, unshielded
from mixup.text.tasks import TASKS, category_of, single_turn, statement_of

TARGET_FLOOR = 4
"""The lowest compressed rating, 0 to 5, of a target. Source: spec 2.2, step 4 (tau)."""

POOL_REASONS = (
    "chat",  # not one user and one assistant turn
    "too_short",  # nothing to distill: an answer of a few words
    "too_long",  # more tokens than a target may have
    "no_four_options",  # mcq: not the options A to D, each on its line
    "no_letter",  # mcq: the answer is not one of them and nothing else
    "no_truth_value",  # tfq: the answer is not True or False and nothing else
    "no_statement",  # tfq: the statement cannot be told from the request
    "no_category",  # cs: the request names no category
    "no_title",  # para: the request does not say what the paragraph is about
    "not_expressible",  # the distiller's format reads another pair out of it
)
"""Why a row is no target; besides them, ``parse.PARSE_REASONS`` of texts that look like labels."""

_LEAST_WORDS = 10
_MOST_TOKENS = 700
_OPTION_LINE = re.compile(r"\(?([A-J])[).:][ \t]*(\S.*)")
_CHOSEN = re.compile(r"\W*([A-D])(?:[).:]\s*(.*))?\W*", re.DOTALL)
_TRUTH = re.compile(r"\W*(true|false)\W*", re.IGNORECASE)
_ASKS_TRUTH = re.compile(r"\btrue (?:or|and) false\b|\btrue/false\b|[\"']true[\"']", re.IGNORECASE)
_ABOUT = re.compile(
    r"\b(?:paragraphs?|passages?) (?:about|on|of|describing|discussing|explaining|that describes|"
    r"which describes|that explains|to describe) ([^\n.!?]{2,80})[.!?]?\s*\Z",
    re.IGNORECASE,
)


def is_target(rating: int) -> bool:
    """Whether an item of this compressed rating is a target; -1 (unrated) never is.

    The others stay rated for the reference library.
    """
    return rating >= TARGET_FLOOR


def item_of_turns(turns: Sequence[Turn], task: str) -> Item:
    """A pool row as an item that the distiller could write.

    Args:
        turns: The row's turns.
        task: Its task (``tasks.detect_task``).

    Raises:
        RecordError: With one of ``POOL_REASONS`` or ``parse.PARSE_REASONS``.
    """
    pair = single_turn(canonical_turns(turns)) if task in TASKS else None
    if pair is None:
        raise RecordError("chat", f"a target is one user and one assistant turn, not {task}")
    item = checked(_READERS[task](*pair))
    words = len(f"{item.head} {item.body}".split() if task == "mcq" else item.body.split())
    if words < _LEAST_WORDS:
        raise RecordError("too_short", f"{words} words")
    if (tokens := estimated_tokens(item.answer)) > _MOST_TOKENS:
        raise RecordError("too_long", f"{tokens} tokens")
    return item


def _qa(user: str, answer: str) -> Item:
    return Item("qa", user, answer)


def _mcq(user: str, answer: str) -> Item:
    lines = [line.strip() for line in user.split("\n") if line.strip()]
    found = [_OPTION_LINE.fullmatch(line) for line in lines]
    at = [place for place, match in enumerate(found) if match]
    options = [match.groups() for match in found if match]
    if "".join(letter for letter, _ in options) != LETTERS or at != list(range(at[0], at[0] + 4)):
        raise RecordError("no_four_options", user[:80])
    head = " ".join(lines[: at[0]])
    texts = tuple(text.strip() for _, text in options)
    return Item("mcq", head, "", texts, _letter(answer, texts))


def _letter(answer: str, texts: Sequence[str]) -> str:
    chosen = _CHOSEN.fullmatch(answer)
    if chosen and not chosen.group(2):
        return chosen.group(1)
    said = _folded(chosen.group(2) if chosen else answer)
    letters = [letter for letter, text in zip(LETTERS, texts, strict=True) if _folded(text) == said]
    if len(letters) != 1 or (chosen and chosen.group(1) != letters[0]):
        raise RecordError("no_letter", answer[:80])
    return letters[0]


def _tfq(user: str, answer: str) -> Item:
    value = _TRUTH.fullmatch(answer)
    if value is None:
        raise RecordError("no_truth_value", answer[:80])
    statement = statement_of(user)
    if statement == user:  # "Is this true or false?", a blank line, the statement
        asked, _, statement = user.partition("\n\n")
        if not _ASKS_TRUTH.search(asked) or _ASKS_TRUTH.search(statement):
            raise RecordError("no_statement", user[:80])
    return Item("tfq", "", statement.strip().strip('"'), mark=value.group(1).capitalize())


def _cs(user: str, answer: str) -> Item:
    category = category_of(user)
    if category is None:
        raise RecordError("no_category", user[:80])
    return Item("cs", category, answer)


def _para(user: str, answer: str) -> Item:
    about = _ABOUT.search(shielded(user))
    if about is None:
        raise RecordError("no_title", user[:80])
    return Item("para", unshielded(about.group(1)).strip(), answer)


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold().strip(" .\"'")


_READERS: Mapping[str, Callable[[str, str], Item]] = {
    "qa": _qa,
    "mcq": _mcq,
    "tfq": _tfq,
    "cs": _cs,
    "para": _para,
}
