"""Which of the paper's five task types a conversation is; decided by rules on its text alone.

The rules favor precision: what is not clearly another type is question answering, which every
single-turn pair can be distilled as.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mixup.records import Turn
from mixup.text.stops import shielded, unshielded

TASKS = ("qa", "mcq", "tfq", "cs", "para")
CHAT = "chat"

# A) or A. or A: (white space must follow) or (A), at the start or after white space.
_OPTION = re.compile(r"(?:^|(?<=\s))(?:\(([A-J])\)[ \t]*|([A-J])([).:])[ \t]+)(?=\S)")
_BULLETS = " \t-*•"
_LETTER_FIRST = re.compile(r"[\s\W]*([A-J])(?:[).:,]|\s*$)")
_LETTER_NAMED = re.compile(r"\b(?:answer|option|choice)s?(?: is)?:?\s*\(?([A-J])\b", re.IGNORECASE)
_ASKS_TRUTH = re.compile(r"\btrue\s*(?:,?\s*or|/)\s*false\b", re.IGNORECASE)
_OPENS_WITH_TRUTH = re.compile(r"\W*true\s+or\s+false\b(?!,?\s+or\b)\s*", re.IGNORECASE)
_TRUTH_PREFIX = re.compile(r"\W*true\s+or\s+false\b[\s:?.,–—-]*", re.IGNORECASE)
_GIVES_TRUTH = re.compile(
    r"\W*(?:that(?:'s| is)\s+|it(?:'s| is)\s+)?(?:true|false)\b"
    r"|.{0,120}?\b(?:answer|statement|claim|sentence)(?: is)?:?\s*\W?(?:true|false)\b",
    re.IGNORECASE,
)
_CATEGORY = re.compile(r"(?:^|\n|[.!?]\s)[ \t\"'(*]*category:[ \t*]*([^\s.][^\n]*)", re.IGNORECASE)
_FIRST_SENTENCE = re.compile(r"(.+?)[.;!?](?:\s|$)", re.DOTALL)
# The paragraph must be what is written, not what is written about ("a title for the paragraph"):
# no preposition, pronoun or other object may stand between the verb and it. The verb must be an
# order, not "where would you write a passage?". "Paragraf" is common in pools of low quality.
_PARAGRAPH = re.compile(
    r"(?:^|[\n.!?;,]\s*|\b(?:please|kindly|and|then|to|now|(?:can|could|will) you)\s+)"
    r"(?:write|compose|draft|generate|create|produce|craft|provide)(?:\s+me|\s+us)?\s+"
    r"(?:up\s+)?(?:(?!(?:of|for|about|to|from|on|in|with|based|that|this|these|the|which|your|"
    r"title|summary|question|questions|headline|sentence|prompt|poem|story)\b)[\w,'-]+\s+){0,5}?"
    r"(?:[\w]+-)?(?:paragra(?:ph|f)s?|passages?)\b",
    re.IGNORECASE,
)
_PARAGRAPH_WINDOW = 400
_MIN_PLAIN_OPTIONS = 3


def detect_task(turns: Sequence[Turn]) -> str:
    """The task type of a conversation: one of ``TASKS``, or ``CHAT``.

    * chat: anything but one user and one assistant turn; an empty leading system turn is ignored,
      a nonempty one makes a chat, since an answer that obeys it cannot be distilled without it.
    * mcq: lettered options A, B, ... in order and in one style. Three or more at line starts as
      ``A)`` or ``(A)`` are enough; in the other forms the answer must also choose one of them.
      Options without letters ("- yes", "Answer1:") are not mcq.
    * tfq: the user text opens with "true or false", or contains it and the answer gives a truth
      value. "True, false or neither" is not tfq, whatever its answer.
    * cs: "Category:" followed by a category opens the user text, a line or a sentence.
    * para: the user text asks to write a paragraph or passage.
    * qa: every other pair.
    """
    pair = single_turn(turns)
    if pair is None:
        return CHAT
    user, answer = pair
    if _is_choice(user, answer):
        return "mcq"
    if _is_truth(user, answer):
        return "tfq"
    if category_of(user) is not None:
        return "cs"
    return "para" if _asks_for_paragraph(user[:_PARAGRAPH_WINDOW]) else "qa"


def single_turn(turns: Sequence[Turn]) -> tuple[str, str] | None:
    """The user and assistant texts of a single-turn pair; None for a chat (see detect_task)."""
    if len(turns) == 3 and turns[0].role == "system" and not turns[0].content.strip():
        turns = turns[1:]
    if [turn.role for turn in turns] != ["user", "assistant"]:
        return None
    return turns[0].content, turns[1].content


def category_of(user: str) -> str | None:
    """The category that a category-statement request names, to the end of its sentence, or None."""
    found = _CATEGORY.search(user) if "ategory:" in user or "ATEGORY:" in user else None
    if found is None:
        return None
    named = shielded(found.group(1))
    sentence = _FIRST_SENTENCE.match(named)
    category = unshielded(sentence.group(1) if sentence else named).strip(" \t\"'*)(")
    return category or None


def statement_of(user: str) -> str:
    """The user text of a true-or-false question without a leading "true or false"."""
    return _TRUTH_PREFIX.sub("", user, count=1) if _TRUTH_PREFIX.match(user) else user


def _asks_for_paragraph(opening: str) -> bool:
    folded = opening.casefold()  # most texts lack the word, and the pattern is slow to say so
    return ("paragra" in folded or "passage" in folded) and bool(_PARAGRAPH.search(opening))


def _is_truth(user: str, answer: str) -> bool:
    if "true" not in user.casefold():
        return False
    if _OPENS_WITH_TRUTH.match(user):
        return True
    return bool(_ASKS_TRUTH.search(user) and _GIVES_TRUTH.match(answer))


def _is_choice(user: str, answer: str) -> bool:
    if "B)" not in user and "B." not in user and "B:" not in user:
        return False
    styles: dict[str, list[re.Match[str]]] = {}
    for found in _OPTION.finditer(user):
        styles.setdefault(found.group(3) or "()", []).append(found)
    return any(_is_option_list(user, style, found, answer) for style, found in styles.items())


def _is_option_list(user: str, style: str, found: list[re.Match[str]], answer: str) -> bool:
    letters = "".join(match.group(1) or match.group(2) for match in found)
    if len(letters) < 2 or letters != "ABCDEFGHIJ"[: len(letters)]:
        return False
    on_lines = all(_opens_line(user, match.start()) for match in found)
    if style in ("()", ")") and on_lines and len(letters) >= _MIN_PLAIN_OPTIONS:
        return True
    # "Person A: ... Person B: ..." and initials are common; a real list is on lines or longer.
    if style in (".", ":") and not on_lines and len(letters) < _MIN_PLAIN_OPTIONS:
        return False
    ends = [match.start() for match in found[1:]] + [len(user)]
    texts = [user[match.end() : end] for match, end in zip(found, ends, strict=True)]
    return _chooses(answer, letters, texts)


def _opens_line(text: str, start: int) -> bool:
    return not text[text.rfind("\n", 0, start) + 1 : start].strip(_BULLETS)


def _chooses(answer: str, letters: str, texts: Sequence[str]) -> bool:
    named = _LETTER_FIRST.match(answer) or _LETTER_NAMED.search(answer)
    if named and named.group(1).upper() in letters:
        return True
    folded = answer.casefold()
    options = [_folded_option(text) for text in texts]
    return sum(bool(option) and option in folded for option in options) == 1


def _folded_option(text: str) -> str:
    lines = text.strip().split("\n", 1)
    return lines[0].strip(" \t.,;").casefold()
