"""The format reward: does a sample keep the tags and labels of its task?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from mixup.errors import ConfigError, RecordError
from mixup.text.parse import extract_answer, parse_distilled
from mixup.text.tasks import TASKS

FormatMode = Literal["soft", "strict", "paper", "released_code"]

_PART = 0.5  # Source: LM-Mixup code, 0.5 for the outer tags and 0.5 for the inner labels

_LABELS = {
    "qa": ("Q:", "A:"),
    "mcq": ("Q:", "A)", "B)", "C)", "D)", "Answer:"),
    "tfq": ("Answer:",),
    "cs": ("C:", "S:"),
}
_NO_TAG = r"(?:(?!</?(?:think|answer)>).)*"
_STRICT_OUTER = re.compile(
    rf"\s*<think>(?P<think>{_NO_TAG})</think>\s*<answer>(?P<answer>{_NO_TAG})</answer>\s*",
    re.DOTALL,
)
_STRICT_INNER = {
    task: [re.compile(rf"^[ \t]*{re.escape(label)}[ \t]*\S", re.MULTILINE) for label in labels]
    for task, labels in _LABELS.items()
}
_RELEASED_INNER = {
    task: [re.compile(re.escape(label.lower())) for label in ("<answer>", *labels, "</answer>")]
    for task, labels in _LABELS.items()
}
_RELEASED_JOINT = re.compile(r"</think>\s*<answer>")


def format_score(text: str, task: str, *, mode: FormatMode = "soft") -> float:
    """The format reward of one raw sample: 0, 0.5 or 1.

    Modes:
        soft: 0.5 for exactly one non-empty think and one non-empty answer block with nothing
            outside, 0.5 for an answer whose labels `parse_distilled` accepts; 1.0 exactly when
            `parse_distilled` accepts the whole text.
        strict: 1.0 when `parse_distilled` accepts the text, else 0.0.
        paper: 0.5 / 0.5 by regular expressions that keep the stated intent: case-sensitive,
            one block each, non-empty, labels at line starts; para has no label, so its inner
            half needs the outer match.
        released_code: the expressions of the released code, for comparison only. They grant 0.5
            to any text of task para and 1.0 to empty or repeated blocks.

    Raises:
        ConfigError: for an unknown task or mode.

    Source: LM-Mixup, `examples/reward_function/llm_mixup_bayes.py`; soft and strict depart from it
    because a reward that accepts empty blocks is soon hacked by the trained model.
    """
    if task not in TASKS:
        raise ConfigError(f"task {task!r} has no format reward; expected one of {TASKS}")
    if mode == "strict":
        return float(_parses(text, task))
    if mode == "soft":
        return _soft(text, task)
    if mode == "paper":
        return _paper(text, task)
    if mode == "released_code":
        return _released(text, task)
    raise ConfigError(f"format mode {mode!r} is unknown; use soft, strict, paper or released_code")


def _parses(text: str, task: str) -> bool:
    try:
        parse_distilled(text, task)
    except RecordError:
        return False
    return True


def _soft(text: str, task: str) -> float:
    if _parses(text, task):
        return 2 * _PART
    answer = extract_answer(text)
    inner = answer is not None and _parses(
        f"<think>\nx\n</think>\n\n<answer>\n{answer.strip()}\n</answer>", task
    )
    return _PART * max(inner, _strict_outer_answer(text) is not None)


def _paper(text: str, task: str) -> float:
    answer = _strict_outer_answer(text)
    if task not in _STRICT_INNER:
        return 2 * _PART * (answer is not None)
    inside = extract_answer(text) if answer is None else answer
    inner = inside is not None and _in_order(inside, _STRICT_INNER[task])
    return _PART * (answer is not None) + _PART * inner


def _strict_outer_answer(text: str) -> str | None:
    outer = _STRICT_OUTER.fullmatch(text)
    blocks = outer.groups() if outer else ("",)
    filled = all(any(char.isalnum() for char in block) for block in blocks)
    return outer["answer"] if outer and filled else None


def _in_order(text: str, patterns: Sequence[re.Pattern[str]]) -> bool:
    """Whether the patterns occur one after another.

    Taking the earliest match each time decides the same as one expression with lazy gaps, whose
    backtracking is polynomial of the number of labels in a looping sample.
    """
    position = 0
    for pattern in patterns:
        found = pattern.search(text, position)
        if found is None:
            return False
        position = found.end()
    return True


def _released(text: str, task: str) -> float:
    lowered = text.strip().lower()
    joint = _RELEASED_JOINT.search(lowered, len("<think>"))
    outer = (
        lowered.startswith("<think>")
        and joint is not None
        and lowered.endswith("</answer>", joint.end())
    )
    return _PART * outer + _PART * (
        task not in _LABELS or _in_order(lowered, _RELEASED_INNER[task])
    )
