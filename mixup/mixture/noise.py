"""Surface noise: typing errors by keyboard distance, lost casing, lost punctuation."""

from __future__ import annotations

import random
import re

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_WORD = re.compile(r"[A-Za-z]{4,}")
_TYPO_RATE = 0.12
_SOFT_PUNCTUATION = re.compile(r"(?<=[^\W\d])[,;:]+(?=\s)|(?<=[^\W\d])[.!?]+(?=\s|$)")
_QUOTES = re.compile(r"[\"“”]")


def _keys_beside() -> dict[str, str]:
    """The keys next to each letter on a QWERTY board: in its row, and in the rows beside it.

    A row stands half a key to the right of the one above it.
    """
    beside: dict[str, str] = {}
    for row, keys in enumerate(_ROWS):
        for at, key in enumerate(keys):
            near = [keys[at - 1 : at], keys[at + 1 : at + 2]]
            if row > 0:
                near.append(_ROWS[row - 1][at : at + 2])
            if row + 1 < len(_ROWS):
                near.append(_ROWS[row + 1][max(0, at - 1) : at + 1])
            beside[key] = "".join(near)
    return beside


KEYS_BESIDE = _keys_beside()


def with_typos(text: str, random_: random.Random, *, rate: float = _TYPO_RATE) -> str:
    """The text with some of its words of four or more letters mistyped; at least one, if any is.

    A letter becomes a key beside it, is left out, doubled, or changes places with the next.

    Args:
        text: The text.
        random_: The source of the draws.
        rate: The share of words that are mistyped.
    """
    words = list(_WORD.finditer(text))
    if not words:
        return text
    count = max(1, round(rate * len(words)))
    for found in sorted(random_.sample(words, count), key=re.Match.start, reverse=True):
        word = _mistyped(found.group(), random_)
        text = text[: found.start()] + word + text[found.end() :]
    return text


def without_casing(text: str, random_: random.Random) -> str:
    """The text in small letters; seldom, in capitals."""
    return text.upper() if random_.random() < 0.1 else text.lower()


def without_punctuation(text: str) -> str:
    """The text without the marks that end or part sentences, and without double quotes.

    Marks inside words and numbers stay: "3.5", "don't", "well-known".
    """
    return _SOFT_PUNCTUATION.sub("", _QUOTES.sub("", text))


def _mistyped(word: str, random_: random.Random) -> str:
    at = random_.randrange(1, len(word) - 1)
    before, letter, after = word[:at], word[at], word[at + 1 :]
    kind = random_.choice(("beside", "beside", "left out", "doubled", "swapped"))
    if kind == "left out":
        return before + after
    if kind == "doubled":
        return before + letter * 2 + after
    if kind == "swapped" and after[0] != letter:
        return before + after[0] + letter + after[1:]
    beside = random_.choice(KEYS_BESIDE[letter.lower()])
    return before + (beside if letter.islower() else beside.upper()) + after
