"""The strict reading of a distiller's output; the format reward and the stages share it.

The released regular expressions pass ``<answer>Q:A:</answer>``, junk between two answer blocks and
"FAQ: ... DATA:" as well-formed; this parser does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mixup.errors import ConfigError, RecordError
from mixup.records import Turn, canonical_turns
from mixup.text.messages import check_text
from mixup.text.prompts import INSTRUCTIONS, SYSTEM
from mixup.text.tasks import TASKS, statement_of

PARSE_REASONS = (
    "invalid_unicode",  # lone surrogates
    "nul_byte",  # a NUL character
    "no_answer_block",  # no <answer> at all
    "no_think",  # no <think> at all
    "unclosed_block",  # an opening tag without its closing tag, or the reverse
    "several_blocks",  # more than one think or answer block
    "bad_block_order",  # the answer before the thought, or one inside the other
    "text_outside",  # text before, between or after the blocks
    "empty_think",  # nothing in the think block
    "empty_answer",  # nothing in the answer block, or in one of its fields
    "missing_label",  # a label of the task's format does not open a line
    "bad_label_order",  # a label out of order or repeated, or text before the first label
    "bad_option",  # options missing, repeated or beyond D; an answer that is none of them
    "bad_truth_value",  # the truth value is not exactly True or False
    "placeholder",  # the skeleton's dots, a word like "[question]", or the prompt's own words
)

_BLOCKS = re.compile(r"\s*<think>(.*)</think>\s*<answer>(.*)</answer>\s*", re.DOTALL)
_FIRST_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_OPTIONS = ("A)", "B)", "C)", "D)")
_LABELS = {
    "qa": ("Q:", "A:"),
    "mcq": ("Q:", *_OPTIONS, "Answer:"),
    "tfq": ("Answer:",),
    "cs": ("C:", "S:"),
    "para": ("Title:",),
}
_BEYOND_D = re.compile(r"^[E-Z]\)", re.MULTILINE)
_CHOICE = re.compile(r"([A-D])(?:[).](.*))?")
_NO_WORDS = re.compile(r"[\W_]*[.…_][\W_]*")
_DUMMY = re.compile(
    r"[\W_]*(?:(?:the|your|a|an|new|merged|first|second|third|fourth|right|correct|one)\s+)*"
    r"(?:question|answer|statement|category|title|paragraph|option|item|topic|text|thought|"
    r"reasoning)(?:\s+(?:text|here|[a-d]|\d))?[\W_]*",
    re.IGNORECASE,
)
_SHORTEST_ECHO = 12


@dataclass(frozen=True, slots=True)
class Distilled:
    """A parsed output: the thought, the answer block's text, and the pair it stands for."""

    thought: str
    answer: str
    turns: tuple[Turn, ...]


def extract_answer(text: str) -> str | None:
    """The text in the first closed answer block, or None; the tags' case matters.

    Source: ans(.) of spec 1.3. The released code takes the whole output where there is no block;
    here that is nothing.
    """
    found = _FIRST_ANSWER.search(text)
    return found.group(1).strip() if found else None


def parse_distilled(text: str, task: str) -> Distilled:
    """The pair in a distiller's output.

    The output must be one nonempty think block and one nonempty answer block and nothing else, and
    the answer must have the task's labels, each once, in order, at line starts:

    * qa: ``Q:``, ``A:``. Becomes the question and the answer.
    * mcq: ``Q:``, ``A)`` to ``D)``, ``Answer:`` with the letter, alone or with its option's text.
      Becomes the question with its options, and the right option.
    * tfq: a statement, ``Answer:`` True or False. Becomes "True or false: ..." and the value.
    * cs: ``C:``, ``S:``. Becomes a request for a statement of the category, and the statement.
    * para: ``Title:`` on the first line, then the paragraph. Becomes "Write a paragraph about ...".
      Departs from the paper, whose paragraphs have no title: without one there is no user turn.

    Raises:
        RecordError: With one of ``PARSE_REASONS``.
        ConfigError: The task is not one of ``TASKS``.
    """
    if task not in TASKS:
        raise ConfigError(f"task {task!r} has no format; the tasks are {', '.join(TASKS)}")
    check_text(text)
    thought, answer = _blocks(canonical_turns([Turn("assistant", text)])[0].content)
    _check_words(thought, task)
    user, assistant = _READERS[task](answer)
    turns = canonical_turns([Turn("user", user), Turn("assistant", assistant)])
    return Distilled(thought, answer, turns)


def _blocks(text: str) -> tuple[str, str]:
    for name, absent in (("answer", "no_answer_block"), ("think", "no_think")):
        opened, closed = text.count(f"<{name}>"), text.count(f"</{name}>")
        if not opened and not closed:
            raise RecordError(absent, f"there is no <{name}> block")
        if opened != closed and min(opened, closed) == 0:
            raise RecordError("unclosed_block", f"{opened} <{name}> but {closed} </{name}>")
        if opened != 1 or closed != 1:
            raise RecordError("several_blocks", f"{opened} <{name}> and {closed} </{name}>")
    tags = sorted(("<think>", "</think>", "<answer>", "</answer>"), key=text.index)
    if tags != ["<think>", "</think>", "<answer>", "</answer>"]:
        raise RecordError("bad_block_order", " ".join(tags))
    found = _BLOCKS.fullmatch(text)
    if found is None:
        raise RecordError("text_outside", "only a think and an answer block may be written")
    thought, answer = (block.strip() for block in found.groups())
    if not thought:
        raise RecordError("empty_think")
    if not answer:
        raise RecordError("empty_answer")
    return thought, answer


def _read_qa(answer: str) -> tuple[str, str]:
    question, reply = _words(_labeled(answer, "qa"), "qa")
    return question, reply


def _read_mcq(answer: str) -> tuple[str, str]:
    if _BEYOND_D.search(answer):
        raise RecordError("bad_option", "there is an option beyond D)")
    *fields, chosen = _labeled(answer, "mcq")
    question, *options = _words(fields, "mcq")
    if len({_folded(option) for option in options}) < len(options):
        raise RecordError("bad_option", "two options are the same")
    choice = _CHOICE.fullmatch(chosen)
    if choice is None:
        raise RecordError("bad_option", f"{chosen[:40]!r} is not one of A, B, C, D")
    right = options["ABCD".index(choice.group(1))]
    if choice.group(2) and _folded(choice.group(2)) != _folded(right):
        raise RecordError("bad_option", f"{chosen[:40]!r} is not option {choice.group(1)}")
    lines = (f"{label} {option}" for label, option in zip(_OPTIONS, options, strict=True))
    return "\n".join([question, *lines]), f"{choice.group(1)}) {right}"


def _read_tfq(answer: str) -> tuple[str, str]:
    (value,) = _labeled(answer, "tfq")
    if value not in ("True", "False"):
        raise RecordError("bad_truth_value", f"{value[:40]!r} is neither True nor False")
    (statement,) = _words([statement_of(_opening(answer, "tfq"))], "tfq")
    return f"True or false: {statement}", value


def _read_cs(answer: str) -> tuple[str, str]:
    category, statement = _words(_labeled(answer, "cs"), "cs")
    return f"Category: {category}\nWrite a statement that belongs to this category.", statement


def _read_para(answer: str) -> tuple[str, str]:
    (titled,) = _labeled(answer, "para")
    title, _, paragraph = titled.partition("\n")
    title, paragraph = _words([title, paragraph], "para")
    return f"Write a paragraph about {title.rstrip('.')}.", paragraph


_READERS: dict[str, Callable[[str], tuple[str, str]]] = {
    "qa": _read_qa,
    "mcq": _read_mcq,
    "tfq": _read_tfq,
    "cs": _read_cs,
    "para": _read_para,
}


def _labeled(answer: str, task: str) -> list[str]:
    labels = _LABELS[task]
    seen: list[str] = []
    fields: list[list[str]] = []
    for line in answer.split("\n"):
        label = next((label for label in labels if line.startswith(label)), None)
        if label is not None:
            seen.append(label)
            fields.append([line.removeprefix(label)])
        elif fields:
            fields[-1].append(line)
    _check_labels(seen, labels)
    if task != "tfq" and _opening(answer, task):
        raise RecordError("bad_label_order", f"text stands before {labels[0]}")
    return ["\n".join(lines).strip(" \t" if task == "para" else None) for lines in fields]


def _opening(answer: str, task: str) -> str:
    label = _LABELS[task][0]
    return "" if answer.startswith(label) else answer.split(f"\n{label}", 1)[0].strip()


def _check_labels(seen: Sequence[str], labels: Sequence[str]) -> None:
    for label in labels:
        if label not in seen:
            reason = "bad_option" if label in _OPTIONS else "missing_label"
            raise RecordError(reason, f"no line begins with {label}")
    if list(seen) != list(labels):
        raise RecordError("bad_label_order", f"{' '.join(seen[:12])} must be {' '.join(labels)}")


def _words(fields: Sequence[str], task: str) -> list[str]:
    """The fields, stripped, if each holds words of its own."""
    for text in fields:
        _check_words(text, task)
    return [text.strip() for text in fields]


def _check_words(text: str, task: str) -> None:
    if not text.strip():
        raise RecordError("empty_answer", "a field is empty")
    if _NO_WORDS.fullmatch(text) or _DUMMY.fullmatch(text) or _is_echo(text, task):
        raise RecordError("placeholder", f"{text[:60]!r} is the prompt's, not an answer")


def _is_echo(text: str, task: str) -> bool:
    folded = _folded(text)
    prompt = _folded(f"{SYSTEM}\n{INSTRUCTIONS[task]}")
    return len(folded) >= _SHORTEST_ECHO and folded in prompt


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold().strip(" .\"'")
