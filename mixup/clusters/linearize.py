"""The text of an example: as an item of a group that the distiller reads, and as the encoder's."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mixup.errors import ConfigError, ShapeError
from mixup.records import Turn
from mixup.text.prompts import neutralize_tags
from mixup.text.tasks import TASKS, category_of, single_turn, statement_of

_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")


def item_text(turns: Sequence[Turn], task: str) -> str:
    """A single-turn pair as one item of a distiller's prompt.

    By task: qa ``Q: ../A: ..``; mcq ``Q: ../A) ../Answer: ..`` with the options as the user text
    has them; tfq the statement and ``Answer: ..``; cs ``C: ../S: ..`` with the category alone; para
    the assistant's text. The assistant's whole text is given, an explanation after "True" too:
    that is what there is to distill.

    An item holds no blank line, since blank lines separate items in the prompt, and its tags are
    neutralized. Source: spec 3.2 (without the blank before ``A:``).

    Raises:
        ConfigError: The task is not one of ``TASKS``.
        ShapeError: The turns are not one user and one assistant turn.
    """
    if task not in TASKS:
        raise ConfigError(f"task {task!r} has no item form; the tasks are {', '.join(TASKS)}")
    pair = single_turn(turns)
    if pair is None:
        roles = ", ".join(turn.role for turn in turns)
        raise ShapeError(f"an item is one user and one assistant turn, not: {roles or 'no turns'}")
    text = _labeled_text(*pair, task)
    return neutralize_tags(_BLANK_LINES.sub("\n", text.strip()))


def embed_text(turns: Sequence[Turn]) -> str:
    """The text that stands for a conversation in the embedding space.

    A single-turn pair is ``Instruction: {user}``, newline, ``Answer: {assistant}``; a chat is its
    turns as ``role: content`` lines. Source: spec 4.2, step 8, and 8.2.
    """
    pair = single_turn(turns)
    if pair is None:
        return "\n".join(f"{turn.role}: {turn.content}" for turn in turns)
    return f"Instruction: {pair[0]}\nAnswer: {pair[1]}"


def _labeled_text(user: str, assistant: str, task: str) -> str:
    if task == "mcq":
        return f"Q: {user}\nAnswer: {assistant}"
    if task == "tfq":
        return f"{statement_of(user) or user}\nAnswer: {assistant}"
    if task == "cs":
        return f"C: {category_of(user) or user}\nS: {assistant}"
    return assistant if task == "para" else f"Q: {user}\nA: {assistant}"
