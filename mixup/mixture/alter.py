"""Controlled changes of one place in a statement: a number, a name, a negation or an opposite."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from mixup.mixture.facts import numbers_of
from mixup.mixture.vocabulary import COUNTRIES, MONTHS, NATIONALITIES, OPPOSITES
from mixup.text.stops import shielded

_OPPOSITE = {
    word: other
    for first, second in (pair.split("/") for pair in OPPOSITES)
    for word, other in ((first, second), (second, first))
}
_OPPOSITE["shortest"] = "longest"
_OPPOSITE_WORD = re.compile(rf"(?<![\w-])(?<!no )({'|'.join(_OPPOSITE)})(?![\w-])")
# Not within a range, a name ("428 Squadron") or a longer number.
_YEAR = re.compile(r"(?<![\w.,/–—-])(1[0-9]{3}|20[0-2][0-9])(?=[.,;:)]? |[.,;]?$)(?! ?[A-Z(–—-])")
_BEFORE_YEAR = re.compile(
    rf"(?:\b(?:in|since|until|till|from|by|of|to|and|before|after|during|the|late|early|around|about|"
    rf"for|{'|'.join(MONTHS)})|\d,) ?$",
    re.IGNORECASE,
)
_QUANTITY = re.compile(
    r"(?<![\w.,/–—$£€-])(?<!No\. )(?<![A-Z] )(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(?=%| [a-z]{2,})"
)
_IN_PARENTHESES = re.compile(r"\([^()]*\)")
_MONTH_NEAR_DAY = re.compile(rf"(?<=\d )({'|'.join(MONTHS)})\b|\b({'|'.join(MONTHS)})(?= \d)")
_NATIONALITY = re.compile(rf"\b(an?) ({'|'.join(NATIONALITIES)})\b(?!-)")
_COUNTRY = re.compile(
    r"(?:born|located|situated|lies|based|founded|capital|native|endemic|built)"
    rf"(?: \w+){{0,2}}? (?:in|of|to) ({'|'.join(COUNTRIES)})\b"
)
# The verb of the main clause, close to the beginning and before any other clause.
_SUBJECT = r"^[\"“]?[A-Z][^.,;:()]{0,60}?"
_CLAUSE = re.compile(r"\b(?:that|which|who|whom|whose|when|where|if|while|although|because)\b")
_PLAIN_VERB = re.compile(
    rf"({_SUBJECT}) (is|are|was|were) (?!(?:not|only|also|one of|still|now|currently|once|mostly|"
    r"usually|often|generally|commonly|sometimes|almost|about|approximately|just|even|widely|highly|very)\b)(?=[a-z])"
)
_NEGATED_VERB = re.compile(rf"({_SUBJECT}) (is|are|was|were) not (?=[a-z])")


@dataclass(frozen=True, slots=True)
class Alteration:
    """A statement with one place changed.

    Attributes:
        text: The changed statement.
        rule: ``number``, ``name``, ``negation`` or ``opposite``.
        before: What stood there; "" for an added negation.
        after: What stands there now; "" for a negation taken away.
    """

    text: str
    rule: str
    before: str
    after: str


def alterations_of(
    statement: str, random_: random.Random, *, context: str = ""
) -> dict[str, Alteration]:
    """The changes that make a true statement false, at most one for each rule.

    Args:
        statement: One or more sentences, taken to be true.
        random_: The source of the draws.
        context: The text around it: no value that it holds is put in.
    """
    around = f"{context} {statement}"
    known = {*re.findall(r"\w+", around), *numbers_of(around)}
    found = {}
    for name, rule in _RULES.items():
        alteration = rule(statement, random_, known)
        if alteration is not None:
            found[name] = alteration
    return found


def near_number(number: str, random_: random.Random, known: Collection[str] = ()) -> str | None:
    """A number like the one given, but another: a year some years off, a quantity near it.

    Its form is kept: thousands separators, decimals. None where none is found that is not known.
    """
    whole, _, decimals = number.partition(".")
    value = int(whole.replace(",", ""))
    for _ in range(8):
        if len(whole) == 4 and 1000 <= value <= 2029:
            other = min(value + random_.choice((-1, 1)) * random_.randint(2, 25), 2024)
        else:
            step = max(1, round(value * random_.uniform(0.1, 0.6)))
            other = value + random_.choice((-1, 1)) * step
        written = f"{other:,}" if "," in whole else str(other)
        shown = f"{written}.{decimals}" if decimals else written
        if other > 1 and other != value and shown not in known:
            return shown
    return None


def years_of(text: str) -> list[str]:
    """The years in a text that stand outside parentheses and ranges, in order."""
    return [text[start:end] for start, end in _years(text)]


def quantities_of(text: str) -> list[str]:
    """The numbers of something in a text ("3,756 structures"), in order; no years."""
    spans = _outside(_QUANTITY, text)
    years = set(years_of(text))
    return [text[start:end] for start, end in spans if text[start:end] not in years]


def _years(text: str) -> list[tuple[int, int]]:
    """The places of years: "44 deaths per 1000 births" has none."""
    return [span for span in _outside(_YEAR, text) if _BEFORE_YEAR.search(text[: span[0]])]


def _outside(pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, int]]:
    closed = [found.span() for found in _IN_PARENTHESES.finditer(text)]
    for found in pattern.finditer(text):
        followed = text[found.end() : found.end() + 12]
        if "(" in followed or any(start < found.start() < end for start, end in closed):
            continue  # "122cm (48in)": one of two numbers that say the same
        yield found.span()


def _number(statement: str, random_: random.Random, known: set[str]) -> Alteration | None:
    spans = _years(statement) or list(_outside(_QUANTITY, statement))
    if not spans:
        return None
    start, end = random_.choice(spans)
    before = statement[start:end]
    after = near_number(before, random_, known)
    return _replaced(statement, (start, end), after, "number") if after else None


def known_name(
    statement: str, random_: random.Random, *, context: str
) -> tuple[tuple[int, int], list[str]] | None:
    """The place of a nationality, country or month, and three others of its kind.

    Others are not among the words of the context. None where the statement holds no such name in a
    place where another would make it false.
    """
    known = set(re.findall(r"\w+", f"{context} {statement}"))
    if found := _NATIONALITY.search(statement):
        others = [f"{_article(name)} {name}" for name in NATIONALITIES if name not in known]
        return found.span(), random_.sample(others, 3)
    for pattern, names in ((_COUNTRY, COUNTRIES), (_MONTH_NEAR_DAY, MONTHS)):
        if found := pattern.search(statement):
            group = next(at for at in range(1, pattern.groups + 1) if found.group(at))
            others = [name for name in names if name not in known]
            if len(others) >= 3:
                return found.span(group), random_.sample(others, 3)
    return None


def _article(name: str) -> str:
    return "an" if name[0] in "AEIO" else "a"


def _name(statement: str, random_: random.Random, known: set[str]) -> Alteration | None:
    found = known_name(statement, random_, context=" ".join(known))
    return _replaced(statement, found[0], found[1][0], "name") if found else None


def _negation(statement: str, random_: random.Random, known: set[str]) -> Alteration | None:
    del random_, known  # there is one way to negate a clause
    shown = shielded(statement)
    if (found := _NEGATED_VERB.match(shown)) and not _CLAUSE.search(found.group(1)):
        text = f"{statement[: found.end(2)]} {statement[found.end() :]}"
        return Alteration(text, "negation", "not", "")
    if (found := _PLAIN_VERB.match(shown)) and not _CLAUSE.search(found.group(1)):
        text = f"{statement[: found.end(2)]} not {statement[found.end() :]}"
        return Alteration(text, "negation", "", "not")
    return None


def _opposite(statement: str, random_: random.Random, known: set[str]) -> Alteration | None:
    places = [
        found
        for found in _OPPOSITE_WORD.finditer(statement)
        if _OPPOSITE[found.group()] not in known
    ]
    if not places:
        return None
    found = random_.choice(places)
    return _replaced(statement, found.span(), _OPPOSITE[found.group()], "opposite")


def _replaced(statement: str, span: tuple[int, int], after: str, rule: str) -> Alteration:
    start, end = span
    return Alteration(
        statement[:start] + after + statement[end:], rule, statement[start:end], after
    )


_RULES: dict[str, Callable[[str, random.Random, set[str]], Alteration | None]] = {
    "number": _number,
    "name": _name,
    "negation": _negation,
    "opposite": _opposite,
}
