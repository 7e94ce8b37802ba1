"""Degraded wordings of a text: vague, padded, repetitive, out of order, cut short, terse."""

from __future__ import annotations

import random
import re

from mixup.mixture.prose import words_of
from mixup.mixture.units import Unit, joined, units_of
from mixup.mixture.vocabulary import STARTERS

_OPENERS = (
    "Well, ",
    "Basically, ",
    "As everyone knows, ",
    "To be honest, ",
    "I mean, ",
    "So, ",
    "As far as I know, ",
    "In a way, ",
    "Let me put it like this: ",
    "As you may have heard, ",
)
_TAILS = (
    "And so on.",
    "That is about it.",
    "There is more that one could say about this, of course.",
    "I hope this helps!",
    "Anyway, you get the idea.",
    "This is quite interesting, I think.",
    "Just my two cents.",
)
_QUESTION_OPENERS = (
    "Hi! I was wondering, ",
    "Quick question: ",
    "Not sure if this is the right place to ask, but ",
    "Can somebody please tell me this: ",
    "So my question is the following: ",
)
_VAGUE_QUESTIONS = (
    "Can you tell me something about this?",
    "What about it?",
    "I need some information on this topic.",
    "Explain this please.",
    "Any thoughts on this?",
)
_HEDGES = ("I think it is {}", "Probably {}", "{} I guess", "It should be {}", "{}, but not sure")
_MONTH = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
)
_CAPITALS = r"[A-Z][\w'’.-]*(?: (?:of |the |de |van |von )?[A-Z][\w'’.-]*[a-z])*"
_VAGUE = (
    (re.compile(r" \(\d{4}\)"), ""),
    (re.compile(rf"\b[Oo]n (?:\d{{1,2}} {_MONTH}|{_MONTH} \d{{1,2}})(?:,? \d{{4}})?"), "one day"),
    (re.compile(rf"\b(?:in|since|until|from) (?:{_MONTH} )?[12]\d{{3}}s?\b"), "at some point"),
    (re.compile(rf"\bIn (?:{_MONTH} )?[12]\d{{3}}s?\b"), "At some point"),
    (re.compile(r"\$?\b\d[\d,.]*%"), "some percent"),
    (re.compile(r"\$?\b\d[\d,.]*\d\b|\$?\b\d\b"), "many"),
    (re.compile(rf"(?<= )(in|at|near|from|to) (?:the )?{_CAPITALS}"), r"\1 some place"),
    (re.compile(rf"(?<= )(by|with) (?:the )?{_CAPITALS}"), r"\1 someone"),
)
_SHORTENED = (0.3, 0.7)
_TERSE_WORDS = (4, 9)
_LEADING = re.compile(r"^([^\W\d_]+)(?=[\s,])")


def padded(text: str, random_: random.Random) -> str:
    """The text with filler: an empty opening, an empty end, or both."""
    kind = random_.choice(("opener", "tail", "both"))
    if kind != "tail":
        text = random_.choice(_OPENERS) + _small_start(text)
    if kind != "opener":
        text = f"{text}{_gap_of(text)}{random_.choice(_TAILS)}"
    return text


def padded_question(question: str, random_: random.Random) -> str:
    """The question with an empty opening."""
    return random_.choice(_QUESTION_OPENERS) + _small_start(question)


def vague_question(random_: random.Random) -> str:
    """A request that does not say what it asks for."""
    return random_.choice(_VAGUE_QUESTIONS)


def hedged(mark: str, random_: random.Random) -> str:
    """A truth value that is not given straight."""
    text = random_.choice(_HEDGES).format(mark.lower())
    return text[0].upper() + text[1:]


def vague(text: str) -> str | None:
    """The text with dates, numbers, places and agents made vague; None where it has none."""
    changed = text
    for pattern, word in _VAGUE:
        changed = pattern.sub(word, changed)
    return changed if changed != text else None


def repetitive(text: str, random_: random.Random) -> str:
    """The text with one of its units said again, at once or at the end."""
    units = units_of(text)
    if not units:
        return text
    said = random_.randrange(len(units))
    after = random_.choice((said, len(units) - 1))
    before = Unit(units[after].text, units[after].gap or _gap_of(text))
    again = Unit(units[said].text, units[after].gap)
    return joined([*units[:after], before, again, *units[after + 1 :]])


def disordered(text: str, random_: random.Random) -> str | None:
    """The text with its units in another order; None where there is but one."""
    units = units_of(text)
    if len(units) < 2:
        return None
    gaps = [unit.gap for unit in units]
    texts = [unit.text for unit in units]
    first = random_.randrange(1, len(texts))
    texts = [*texts[first:], *texts[:first]]
    if len(texts) > 3 and random_.random() < 0.5:
        random_.shuffle(texts)
    return joined([Unit(text, gap) for text, gap in zip(texts, gaps, strict=True)])


def shortened(text: str, random_: random.Random) -> str | None:
    """The beginning of the text, cut in the middle of a sentence; None for a few words."""
    words = list(re.finditer(r"\S+", text))
    if len(words) < 6:
        return None
    kept = max(3, int(len(words) * random_.uniform(*_SHORTENED)))
    return text[: words[kept - 1].end()].rstrip(".!?,;:")


def thinned(text: str, random_: random.Random) -> str | None:
    """The text without some of its units; None where there is but one."""
    units = units_of(text)
    if len(units) < 2:
        return None
    dropped = set(random_.sample(range(len(units)), random_.randint(1, max(1, len(units) // 2))))
    return joined([unit for at, unit in enumerate(units) if at not in dropped])


def terse(text: str, random_: random.Random) -> str | None:
    """A few words of the text without a sentence around them; None where it is as short itself."""
    words = text.split()
    kept = random_.randint(*_TERSE_WORDS)
    if len(words) <= kept + 2 or len(words_of(text)) < kept:
        return None
    return " ".join(words[:kept]).rstrip(".!?,;:")


def _small_start(text: str) -> str:
    """The text with its first word in small letters, where that word is no name."""
    found = _LEADING.match(text)
    if found is None or found.group(1).lower() not in STARTERS or found.group(1) == "I":
        return text
    return text[0].lower() + text[1:]


def _gap_of(text: str) -> str:
    return "\n" if "\n" in text else " "
