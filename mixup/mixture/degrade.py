"""The degradations: each has a name, a construction class, and says whether it keeps the facts."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from mixup.mixture import noise, wording
from mixup.mixture.items import LETTERS, Item
from mixup.mixture.units import has_code

Change = Callable[[Item, random.Random], Item | None]

_PROSE = ("qa", "cs", "para")
_BODIES = (*_PROSE, "tfq")
_ALL = (*_BODIES, "mcq")


@dataclass(frozen=True, slots=True)
class Degradation:
    """One way to make an item worse.

    Attributes:
        name: Its name, as the provenance has it.
        rating: The class, 0 to 3, of an item that it was done to: its construction class.
        keeps_facts: Whether it is meant to leave every fact in the item.
        tasks: The tasks it is done to.
        change: The item made worse, or None where there is nothing to do it to.
    """

    name: str
    rating: int
    keeps_facts: bool
    tasks: Sequence[str]
    change: Change


def class_of(degradations: Sequence[str]) -> int:
    """The construction class of an item by what was done to it: the lowest, and one less for three.

    Raises:
        KeyError: A name is not one of ``DEGRADATIONS`` or ``PLANNED``.
    """
    ratings = [{**PLANNED, **_RATINGS}[name] for name in degradations]
    return max(0, min(ratings) - (len(ratings) >= 3))


def _is_fixed(item: Item) -> bool:
    """Whether the body must not be worded anew: that of mcq is empty, and code would be broken."""
    return not item.body or has_code(item.body)


def _on_text(item: Item, change: Callable[[str], str]) -> Item:
    """The item with its question and its body changed; categories and titles are left alone."""
    head = change(item.head) if item.task in ("qa", "mcq") else item.head
    return replace(item, head=head, body=item.body if _is_fixed(item) else change(item.body))


def _filler(item: Item, random_: random.Random) -> Item | None:
    asks = item.task in ("qa", "mcq")
    if _is_fixed(item) and not asks:
        return None
    if asks and (_is_fixed(item) or random_.random() < 0.4):
        return replace(item, head=wording.padded_question(item.head, random_))
    return replace(item, body=wording.padded(item.body, random_))


def _typos(item: Item, random_: random.Random) -> Item:
    return _on_text(item, lambda text: noise.with_typos(text, random_))


def _casing(item: Item, random_: random.Random) -> Item:
    return _on_text(item, lambda text: noise.without_casing(text, random_))


def _punctuation(item: Item, random_: random.Random) -> Item:
    del random_  # all marks are lost
    return _on_text(item, noise.without_punctuation)


def _repetition(item: Item, random_: random.Random) -> Item | None:
    if item.task != "mcq":
        return replace(item, body=wording.repetitive(item.body, random_))
    if len(item.options) > 3:
        return None  # a fourth option is the last that has a letter
    wrong = [option for option in item.options if option != item.right]
    return replace(item, options=(*item.options, random_.choice(wrong))) if wrong else None


def _hedge(item: Item, random_: random.Random) -> Item:
    return replace(item, mark=wording.hedged(item.mark, random_))


def _vague_question(item: Item, random_: random.Random) -> Item:
    return replace(item, head=wording.vague_question(random_))


def _vagueness(text: str, random_: random.Random) -> str | None:
    del random_  # all dates, numbers and names are made vague
    return wording.vague(text)


def _fewer_options(item: Item, random_: random.Random) -> Item | None:
    if len(item.options) < 3:
        return None
    return with_wrong(item, [random_.choice([text for text in item.options if text != item.right])])


def with_wrong(item: Item, wrong: Sequence[str]) -> Item:
    """A multiple-choice item with the right option and some of the wrong ones, in their order."""
    options = tuple(text for text in item.options if text == item.right or text in wrong)
    return replace(item, options=options, mark=LETTERS[options.index(item.right)])


def _on_body(change: Callable[[str, random.Random], str | None], *, code: bool = True) -> Change:
    """A change of the body, of code too or not; a false statement cut short may be true."""

    def changed(item: Item, random_: random.Random) -> Item | None:
        if item.task == "tfq" and item.mark != "True":
            return None
        if not code and has_code(item.body):
            return None
        body = change(item.body, random_)
        return None if body is None else replace(item, body=body)

    return changed


DEGRADATIONS: Mapping[str, Degradation] = {
    degradation.name: degradation
    for degradation in (
        Degradation("filler", 3, True, _ALL, _filler),
        Degradation("repetition", 2, True, _ALL, _repetition),
        Degradation("order", 3, True, _PROSE, _on_body(wording.disordered, code=False)),
        Degradation("casing", 3, True, _ALL, _casing),
        Degradation("punctuation", 3, True, _ALL, _punctuation),
        Degradation("typos", 2, True, _ALL, _typos),
        Degradation("hedge", 3, True, ("tfq",), _hedge),
        Degradation("vague_question", 2, False, ("qa",), _vague_question),
        Degradation("vagueness", 1, False, _PROSE, _on_body(_vagueness, code=False)),
        Degradation("truncation", 1, False, _BODIES, _on_body(wording.shortened)),
        Degradation("dropped_facts", 2, False, _BODIES, _on_body(wording.thinned)),
        Degradation("terse", 2, False, _PROSE, _on_body(wording.terse, code=False)),
        Degradation("fewer_options", 2, False, ("mcq",), _fewer_options),
    )
}
"""What is done to one item on its own."""

PLANNED: Mapping[str, int] = {"split": 3, "near_number": 0}
"""What is done with a view to the other variants, with its class: see ``variants``."""

NOISE = ("typos", "casing", "punctuation")
"""The degradations that are surface noise."""

_RATINGS = {name: degradation.rating for name, degradation in DEGRADATIONS.items()}
