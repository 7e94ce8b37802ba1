"""Defects of an answer that no similarity shows: repetition, copying one input, losing them all."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from mixup.records import Turn

_REPETITION_WORDS = 4
_COPY_WORDS = 5
_CONTENT_CHARS = 4
_STEM_CHARS = 5

# Kana, CJK ideographs and Hangul are written without spaces: each character counts as a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def repetition(text: str) -> float:
    """The share, 0 to 1, of a text's 4-word runs that repeat an earlier one; 0 below 4 words."""
    runs = _runs(_words(text), _REPETITION_WORDS)
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def copied_input(answer: str, inputs: Sequence[str]) -> float:
    """The highest share, 0 to 1, of the answer's 5-word runs that are found in one single input.

    1.0 means that the answer is a passage of that input, up to case, spacing and punctuation. An
    answer of fewer than 5 words is one run; one without words copies nothing.
    """
    words = _words(answer)
    length = min(_COPY_WORDS, len(words))
    if length == 0:
        return 0.0
    runs = _runs(words, length)
    return max((_found(runs, _words(text), length) for text in inputs), default=0.0)


def lost_content(answer: str, inputs: Sequence[str]) -> float:
    """The share, 0 to 1, of the inputs' content words that the answer lacks; the mean over inputs.

    Content words are numbers and words of 4 or more letters, cut to 5 so that most inflections
    meet; in scripts without spaces all characters count. An encoder finds an answer near its inputs
    as soon as it names their subject; this asks whether it says what they say. A merge of verbose
    inputs loses some words rightly, so only a large share is a defect. Inputs without content words
    are left out; without any other, nothing is lost.
    """
    said = _content(answer)
    asked = [words for words in map(_content, inputs) if words]
    shares = [1 - len(words & said) / len(words) for words in asked]
    return sum(shares) / len(shares) if shares else 0.0


def ends_open(turns: Sequence[Turn], task: str) -> bool:
    """Whether a written-out field of a distilled pair stops in the middle of a sentence.

    A constrained output is forced to close its blocks, so a field that ran into its limit looks
    complete to the parser; but it ends in a letter, a digit or a comma. Fields that need no
    punctuation (options, categories, titles, True and False) are not looked at. Scripts that do not
    end sentences so, and outputs that were free to go on, are not meant to be judged by this.
    """
    user, assistant = turns[0].content, turns[-1].content
    fields = {"qa": (user, assistant), "tfq": (user,), "mcq": (user.split("\n")[0],)}
    return any(
        not text or text[-1].isalnum() or text[-1] == "," for text in fields.get(task, (assistant,))
    )


def _content(text: str) -> set[str]:
    return {
        word[:_STEM_CHARS]
        for word in _words(text)
        if len(word) >= _CONTENT_CHARS or word.isdigit() or not word.isascii()
    }


def _found(runs: list[tuple[str, ...]], words: list[str], length: int) -> float:
    known = set(_runs(words, length))
    return sum(run in known for run in runs) / len(runs)


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def _runs(words: list[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[at : at + length]) for at in range(len(words) - length + 1)]
