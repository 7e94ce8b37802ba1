"""The facts of a text that a merge must not lose: numbers, names, negations, as words."""

from __future__ import annotations

import re

from mixup.mixture.vocabulary import NUMBER_WORDS, STARTERS

_NUMBER = re.compile(r"(?<![^\W\d_])\d+(?:[.,:/]\d+)*")  # not the 2 of km2
_TOKEN = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_POSSESSIVE = re.compile(r"['’]s$|['’]$")
# "not published", never "not. The": a negation and what it negates, in one sentence.
_NEGATION = re.compile(
    r"\b(not|no|never|none|nobody|nothing|neither|nor|without|cannot|(?:did|does|do|is|are|was|were|wo|"
    r"ca|could|should|would|has|have|had|must|need)n['’]?t)[ \t]+([^\W_]+(?:['’][^\W_]+)*)",
    re.IGNORECASE,
)
_NUMBER_WORDS = frozenset(NUMBER_WORDS)
_STARTERS = frozenset(STARTERS)


def facts_of(text: str) -> frozenset[str]:
    """The facts of a text: ``#1889``, ``#seven``, ``@kant``, ``!not published``.

    Numbers are whole tokens (``1,234.5``) and number words. Names are all capitalized words but
    common words that open sentences, case folded, without a possessive; this errs on the side of
    too many. A negation is its word with the word that follows it, case folded.
    """
    facts = _numbers_and_negations(text)
    for token in _TOKEN.findall(text):
        folded = _folded(token)
        if folded in _NUMBER_WORDS:
            facts.add(f"#{folded}")
        elif folded != token and _is_name(token, folded):
            facts.add(f"@{folded}")
    return frozenset(facts)


def found_in(text: str) -> frozenset[str]:
    """What a text can witness: its facts, and each of its words as a name, whatever its case."""
    facts = _numbers_and_negations(text)
    words = {_folded(token) for token in _TOKEN.findall(text)}
    facts.update(f"@{word}" for word in words)
    facts.update(f"#{word}" for word in words & _NUMBER_WORDS)
    return frozenset(facts)


def numbers_of(text: str) -> list[str]:
    """The numbers written in digits, in order."""
    return _NUMBER.findall(text)


def _numbers_and_negations(text: str) -> set[str]:
    facts = {f"#{number}" for number in _NUMBER.findall(text)}
    facts.update(f"!{_folded(word)} {_folded(next_)}" for word, next_ in _NEGATION.findall(text))
    return facts


def _is_name(token: str, folded: str) -> bool:
    return not token[0].isdigit() and token != token.lower() and folded not in _STARTERS


def _folded(token: str) -> str:
    return token.casefold() if token.isalnum() else _POSSESSIVE.sub("", token).casefold()
