"""Defects of an answer that no similarity shows: repetition, and copying one of the inputs."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_REPETITION_WORDS = 4
_COPY_WORDS = 5

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


def _found(runs: list[tuple[str, ...]], words: list[str], length: int) -> float:
    known = set(_runs(words, length))
    return sum(run in known for run in runs) / len(runs)


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def _runs(words: list[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[at : at + length]) for at in range(len(words) - length + 1)]
