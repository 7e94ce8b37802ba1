"""The distiller's one prompt: SFT, GRPO and distillation all build it here.

The released code trains with one layout and samples with another (a user turn without the system
turn, and a backslash and an n in place of a newline); one builder cannot.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mixup.errors import ConfigError
from mixup.records import content_key
from mixup.text.tasks import TASKS

# The skeleton shows the tags only: a weak model echoes whatever words stand in it. Its dots are
# what parse_distilled refuses as a placeholder.
SYSTEM = (
    "You are an expert in data mix-up: you merge several related items into one better item. "
    "First reason inside <think> tags, then write the item inside <answer> tags. "
    "Write nothing outside the tags:\n\n"
    "<think>\n...\n</think>\n\n<answer>\n...\n</answer>"
)

INSTRUCTIONS = {
    "qa": (
        "Merge the related question-answer pairs below into one coherent pair that keeps all "
        'essential information. Begin the question with "Q:" and, on a new line, the answer '
        'with "A:".'
    ),
    "mcq": (
        "Merge the related multiple-choice questions below into one question with four options, "
        'one of them right. Begin the question with "Q:", each option, on its own line, with '
        '"A)", "B)", "C)" or "D)", and the last line with "Answer:" and the letter of the right '
        "option."
    ),
    "tfq": (
        "Merge the related statements below into one statement that is clearly true or false. "
        'Write the statement and, on a new line, "Answer: True" or "Answer: False".'
    ),
    "cs": (
        "Merge the related pairs of a category and a statement below into one pair that keeps all "
        'essential information. Begin the category with "C:" and, on a new line, the statement '
        'with "S:".'
    ),
    "para": (
        "Merge the related texts below into one coherent paragraph that keeps all essential "
        'information. Begin with a line "Title:" that names its topic; write the paragraph on '
        "the next line."
    ),
}

_TAG = re.compile(r"<(\s*/?\s*(?:think|answer)\s*/?\s*|\|[\w .:-]{1,40}\|)>", re.IGNORECASE)

# Each {} is one field; its characters, from and to, follow. The long field is what is learned.
_LONG, _LABEL, _OPTION = 8, 3, 1
_LAYOUTS = {
    "qa": ("Q: {}\nA: {}", ((_LONG, 300), (_LONG, 900))),
    "mcq": (
        "Q: {}\nA\\) {}\nB\\) {}\nC\\) {}\nD\\) {}\nAnswer: [A-D]",
        ((_LONG, 300), *[(_OPTION, 120)] * 4),
    ),
    "tfq": ("{}\nAnswer: (True|False)", ((_LONG, 300),)),
    "cs": ("C: {}\nS: {}", ((_LABEL, 80), (_LONG, 600))),
    "para": ("Title: {}\n{}", ((_LABEL, 80), (_LONG, 1200))),
}
_THOUGHT = (_LONG, 240)
# Shortened fields keep room for a name or a few words.
_SHORTENED_FIELD = 24
_FEWEST_TOKENS = 96
# Measured with SmolLM2's tokenizer: tags and labels take 21 to 40 tokens by task; 95 percent of the
# sample pool's answers have 2.9 or more characters a token (median 4.4).
_TAG_TOKENS = 40
_CHARS_PER_TOKEN = 3


def build_messages(inputs: Sequence[str], task: str) -> list[dict[str, str]]:
    """The chat messages, a system and a user turn, that ask to distill a group's items.

    Args:
        inputs: The items' texts, as ``clusters.linearize.item_text`` gives them. Tags in them are
            neutralized here too, so that no item can open or close a block.
        task: One of ``TASKS``.

    Raises:
        ConfigError: The task is no distillable one, or there are no items.
    """
    _check_task(task)
    if isinstance(inputs, str) or not inputs:
        raise ConfigError(f"a prompt needs a list of one or more items, not {inputs!r:.40}")
    items = "\n\n".join(neutralize_tags(text) for text in inputs)
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"{INSTRUCTIONS[task]}\n\n{items}"},
    ]


def target_text(thought: str, answer: str) -> str:
    """The assistant text that the distiller learns: the think block, if any, and the answer block.

    The end-of-turn token is the chat template's to add. Tags inside the texts are neutralized, so
    that the target always parses. Source: spec 3.1.
    """
    block = f"<answer>\n{neutralize_tags(answer.strip())}\n</answer>"
    thought = neutralize_tags(thought.strip())
    return f"<think>\n{thought}\n</think>\n\n{block}" if thought else block


def neutralize_tags(text: str) -> str:
    """The text with think and answer tags, and chat template tokens such as ``<|im_end|>``, inert.

    Their angle brackets become ``&lt;`` and ``&gt;``; other markup is kept. Items are data: a
    member that holds "</answer>" must not end an answer. Applying it twice changes nothing more.
    """
    return _TAG.sub(r"&lt;\1&gt;", text) if "<" in text else text


def answer_pattern(task: str, *, max_tokens: int | None = None) -> str:
    """A regular expression (no lookaround) of well-formed outputs, for structured output.

    It is narrower than ``parse_distilled``: every field is one line without "<", so that a model
    too weak to keep a format cannot leave it. Meant for such models only.

    Args:
        task: One of ``TASKS``.
        max_tokens: The output's token limit. Fields are shortened in proportion so that an output
            of ordinary text is closed within it; without it they have their full lengths.

    Raises:
        ConfigError: The task is no distillable one, or the limit leaves no room for the fields.
    """
    _check_task(task)
    layout, fields = _LAYOUTS[task]
    thought, *answer = (
        _field_pattern(*field) for field in _scaled((_THOUGHT, *fields), max_tokens)
    )
    return f"<think>\n{thought}\n</think>\n\n<answer>\n{layout.format(*answer)}\n</answer>"


def prompt_revision() -> str:
    """The content key of everything here that shapes a prompt or a constrained output."""
    patterns = [answer_pattern(task) for task in TASKS]
    budget = [_TAG_TOKENS, _CHARS_PER_TOKEN, _SHORTENED_FIELD]
    target = target_text("thought", "answer")
    return content_key("prompt", SYSTEM, INSTRUCTIONS, target, patterns, budget, _TAG.pattern)


def _check_task(task: str) -> None:
    if task not in TASKS:
        raise ConfigError(f"task {task!r} has no prompt; the tasks are {', '.join(TASKS)}")


def _scaled(fields: Sequence[tuple[int, int]], max_tokens: int | None) -> list[tuple[int, int]]:
    if max_tokens is None:
        return list(fields)
    if max_tokens < _FEWEST_TOKENS:
        raise ConfigError(f"{max_tokens} output tokens are too few: give {_FEWEST_TOKENS} or more")
    chars = (max_tokens - _TAG_TOKENS) * _CHARS_PER_TOKEN
    share = min(1.0, chars / sum(longest for _, longest in fields))
    return [(least, max(_SHORTENED_FIELD, int(most * share))) for least, most in fields]


def _field_pattern(shortest: int, longest: int) -> str:
    # A field opens with neither a space nor the skeleton's dots.
    return f"[^ .…<\\t\\r\\n][^<\\t\\r\\n]{{{shortest - 1},{longest - 1}}}"
