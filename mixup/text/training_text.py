"""What a model learns from a conversation: its text in parts, each learned or only read.

The answers are learned, each with the token that ends its turn: the released code leaves that out,
so that its model never learns to stop. What is only read is, to the character, what the model is
given when it answers: the text that the chat template makes of the turns before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from mixup.errors import ConfigError, RecordError
from mixup.records import Turn

Template = Literal["chat", "plain"]
"""``chat``: the model's own chat template; ``plain``: prompt, space, completion, end of text."""

Render = Callable[[list[dict[str, str]], bool], str]
"""A chat template: the text of messages, and whether an answer is opened after them."""

TEXT_REASONS = (
    "control_text",  # a text holds a control token of the model, such as <|im_end|>
    "altered_answer",  # the chat template does not keep the answer as it is
    "template_refuses",  # the chat template takes no such turns, such as a system turn
    "too_long",  # more tokens than the window
)
"""Why a conversation that was read is not learned from."""

_VERSION = "training-text-v1"
_TAGS = {"system": "<|system|>\n", "user": "<|user|>\n", "assistant": "<|assistant|>\n"}


class Part(NamedTuple):
    """A piece of text that is tokenized by itself; ``learned``: whether it is in the loss."""

    text: str
    learned: bool


class Laid(NamedTuple):
    """The tokens of an example.

    Attributes:
        input_ids: The ids.
        spans: Start and end, in turn, of each run of learned tokens.
    """

    input_ids: list[int]
    spans: list[int]


def layout_revision() -> str:
    """What names the layouts here, for keys."""
    return _VERSION


def chat_parts(turns: Sequence[Turn], render: Render, controls: re.Pattern[str]) -> list[Part]:
    """A conversation as a chat template lays it out; every answer is learned.

    An answer's part goes from the end of the opening that the template gives an answer to the first
    control token after its text. What follows the last answer is left out, as it is not learned.
    Where a template shows earlier answers otherwise than it showed them when they were the last,
    such as those that drop earlier thoughts, only the last answer is learned.

    Args:
        turns: User and assistant in turn, after an optional system turn.
        render: The template.
        controls: Matches the model's control tokens.

    Raises:
        RecordError: ``control_text`` or ``altered_answer``.
        ConfigError: If the template ends no answer with a control token.
    """
    _refuse_controls(turns, controls)
    messages = [turn._asdict() for turn in turns]
    answers = [place for place, turn in enumerate(turns) if turn.role == "assistant"]
    parts = _answer_parts(messages, answers, render, controls)
    if parts is None:
        parts = _answer_parts(messages, answers[-1:], render, controls)
    if parts is None:
        raise RecordError("altered_answer", "the template changes the prompt once it is answered")
    return parts


def _answer_parts(
    messages: list[dict[str, str]],
    answers: Sequence[int],
    render: Render,
    controls: re.Pattern[str],
) -> list[Part] | None:
    """The parts up to the end of the last answer; None where one text does not begin another."""
    parts: list[Part] = []
    done = ""
    for place in answers:
        prompt = render(messages[:place], True)
        answered = render(messages[: place + 1], False)
        if not prompt.startswith(done) or not answered.startswith(prompt):
            return None
        answer = _ended(answered[len(prompt) :], messages[place]["content"], controls)
        parts += [Part(prompt[len(done) :], False), Part(answer, True)]
        done = prompt + answer
    return parts


def _ended(answer: str, content: str, controls: re.Pattern[str]) -> str:
    """An answer as rendered, up to and with its end-of-turn token."""
    start = answer.find(content)
    if start < 0:
        raise RecordError("altered_answer", f"the template does not keep {content[:40]!r}")
    end = controls.search(answer, start + len(content))
    if end is None:
        raise ConfigError(
            f"the chat template ends an answer with {answer[start + len(content) :][:40]!r}, which "
            "is no control token, so the model would not learn to stop: mend the template, or "
            "choose `template: plain`"
        )
    return answer[: end.end()]


def plain_parts(
    turns: Sequence[Turn], *, opening: str, end: str, controls: re.Pattern[str]
) -> list[Part]:
    """A conversation without a chat template: the prompt, a space, the learned answer, the end.

    The space is left out where there is white space already. With a system turn, or more than one
    question, every turn is headed by a tag such as ``<|user|>``.

    Args:
        turns: As for ``chat_parts``.
        opening: The text of the token that opens every text, or "".
        end: The text of the token that ends one.
        controls: Matches the model's control tokens.

    Raises:
        RecordError: ``control_text``.

    Source: spec/lm-mixup.md, section 4.4.
    """
    _refuse_controls(turns, controls)
    if [turn.role for turn in turns] == ["user", "assistant"]:
        prompt, answer = turns[0].content, turns[1].content
        space = "" if prompt[-1:].isspace() or answer[:1].isspace() else " "
        return [Part(opening + prompt, False), Part(f"{space}{answer}{end}", True)]
    parts: list[Part] = []
    read = opening
    for turn in turns:
        read += _TAGS[turn.role]
        if turn.role == "assistant":
            parts += [Part(read, False), Part(turn.content + end, True)]
            read = "\n"
        else:
            read += f"{turn.content}\n"
    return parts


def _refuse_controls(turns: Sequence[Turn], controls: re.Pattern[str]) -> None:
    """Refuse texts whose words would be read as control tokens: they would end a turn."""
    for turn in turns:
        if found := controls.search(turn.content):
            raise RecordError("control_text", f"{found.group()!r} in a text of {turn.role}")


def control_pattern(tokens: Sequence[str]) -> re.Pattern[str]:
    """A pattern of a model's control tokens, the longer first; of none, it matches nowhere."""
    longest_first = sorted({token for token in tokens if token}, key=lambda token: -len(token))
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def laid(parts: Sequence[Part], ids: Sequence[Sequence[int]]) -> Laid:
    """The tokens of an example from those of its parts.

    Parts are tokenized by themselves, as the prompt is when the model answers: no token then spans
    the border between what is read and what is learned.
    """
    input_ids: list[int] = []
    spans: list[int] = []
    for part, tokens in zip(parts, ids, strict=True):
        start = len(input_ids)
        input_ids.extend(tokens)
        if part.learned:
            spans += [start, len(input_ids)]
    return Laid(input_ids, spans)
