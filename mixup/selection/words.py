"""The words of a text, written so that two spellings of one sentence become the same words.

Scripts that put no spaces between words (Chinese, Japanese kana, Thai, Lao, Khmer, Burmese) are
cut into letters, each with its marks. Such a letter carries about half of what a word does, so it
counts as half a word wherever words are counted.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

UNITS_OF_WORD = 2
"""Counts are kept in halves of a word: a spaced word is 2 units, an unspaced letter 1."""

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3100-\u312f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")
# Beyond these planes lie only private use, unassigned code points and variation selectors.
_PLANES = 0x20000


def normal_words(text: str) -> list[str]:
    """The words of a text: NFKC, case folded, without punctuation, symbols and what is unseen.

    Letters, digits and marks make up words. Marks belong to the letter before them, so words of
    Indic scripts stay whole; format characters such as a soft hyphen or a joiner are dropped.
    """
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    word, invisible = _patterns()
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return word.findall(invisible.sub("", folded))


def units_of(word: str) -> int:
    """How much a word counts: ``UNITS_OF_WORD``, or 1 for a letter of an unspaced script."""
    return 1 if _IS_UNSPACED.match(word) else UNITS_OF_WORD


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns of a word and of invisible characters; ``re`` knows neither category."""
    marks, formats = _class_of("M"), _class_of("Cf")
    letter = rf"[^\W_{_UNSPACED}]"
    word = f"[{_UNSPACED}][{marks}]*|{letter}(?:{letter}|[{marks}])*"
    return re.compile(word), re.compile(f"[{formats}]")


def _class_of(category: str) -> str:
    """The inside of a character class: all characters whose category begins so."""
    found = [
        code for code in range(_PLANES) if unicodedata.category(chr(code)).startswith(category)
    ]
    return "".join(rf"\U{code:08x}" for code in found)
