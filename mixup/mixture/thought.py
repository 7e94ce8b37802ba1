"""A chain of thought by rule: what can be seen of the items, and no more."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from mixup.mixture.degraded import Variants
from mixup.mixture.facts import facts_of, found_in, numbers_of
from mixup.mixture.items import Item
from mixup.mixture.vocabulary import STARTERS

_MENTION = re.compile(
    r"\d+(?:[.,:/]\d+)*%?|[A-Z][\w'’-]*(?: (?:(?:of|the|de|van|von) )?[A-Z][\w'’-]*)*"
)
_LISTED = 4
_SAYING = 6
_FINALLY = {
    "qa": "I write one question and one answer that hold this, in full sentences.",
    "mcq": "I write one question with four options and mark the right one.",
    "tfq": "I write one plain statement and its truth value.",
    "cs": "I write one category and one statement that hold this, in full sentences.",
    "para": "I write one title and one paragraph that hold this, in full sentences.",
}


def thought_of(target: Item, variants: Variants) -> str:
    """How the items make the target: what each adds, which add nothing, which number is wrong.

    Empty where the plan promises nothing about facts: the target then says what no item says, and
    no thought could honestly tell where it comes from.
    """
    if not variants.keeps_facts:
        return ""
    texts = [variant.text for variant in variants.variants]
    added, silent = _contributions(target, texts)
    parts = [f"There are {len(texts)} items to merge."]
    parts += [f"Item {at} gives {_list(mentions)}." for at, mentions in added[:_SAYING]]
    if silent:
        parts.append(f"{_items(silent)} nothing new that has to be kept.")
    parts += _wrong_numbers(target, texts)
    return " ".join([*parts, _FINALLY[target.task]])


def _contributions(
    target: Item, texts: Sequence[str]
) -> tuple[list[tuple[int, list[str]]], list[int]]:
    """For each item, from 1, what of the target it is the first to give; and those that add none.

    An item adds none if all of the target's facts in it were in the items before.
    """
    shown = "\n".join([target.head, target.body, *target.options])
    mentions = dict.fromkeys(map(_without_starter, _MENTION.findall(shown)))
    wanted = {mention: facts for mention in mentions if (facts := facts_of(mention))}
    facts = facts_of(shown)
    seen: frozenset[str] = frozenset()
    told: set[str] = set()
    added, silent = [], []
    for at, text in enumerate(texts, start=1):
        found = found_in(text) & facts
        new = [m for m, needed in wanted.items() if needed <= found and m not in told]
        if found <= seen:
            silent.append(at)
        elif new:
            added.append((at, new))
        told.update(new)
        seen |= found
    return added, silent


def _wrong_numbers(target: Item, texts: Sequence[str]) -> list[str]:
    """A sentence for each number that one item alone gives and the target does not."""
    given = Counter(number for text in texts for number in set(numbers_of(text)))
    kept = set(numbers_of(target.answer))
    return [
        f"Item {at} gives {number}, which no other item supports, so it is left out."
        for at, text in enumerate(texts, start=1)
        for number in dict.fromkeys(numbers_of(text))
        if number not in kept and given[number] == 1
    ][:2]


def _without_starter(mention: str) -> str:
    first, _, rest = mention.partition(" ")
    return rest if rest and first.casefold() in STARTERS else mention


def _list(mentions: Sequence[str]) -> str:
    shown = list(mentions[:_LISTED])
    rest = ["more"] if len(mentions) > _LISTED else []
    return _and([*shown, *rest])


def _items(places: Sequence[int]) -> str:
    return f"Item {places[0]} has" if len(places) == 1 else f"Items {_and(map(str, places))} have"


def _and(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
