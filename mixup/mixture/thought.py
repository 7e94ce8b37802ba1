"""A chain of thought by rule: which items give what has to be kept, and no more.

It names items by their places, never what they say: from thoughts that listed names a small model
learned to list, and went on listing until it was cut off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mixup.mixture.degraded import Variants
from mixup.mixture.facts import facts_of, found_in, numbers_of
from mixup.mixture.items import Item

_FINALLY = {
    "qa": "I write one question and one answer that hold this, in full sentences.",
    "mcq": "I write one question with four options and mark the right one.",
    "tfq": "I write one plain statement and its truth value.",
    "cs": "I write one category and one statement that hold this, in full sentences.",
    "para": "I write one title and one paragraph that hold this, in full sentences.",
}


def thought_of(target: Item, variants: Variants) -> str:
    """How the items make the target: which add something, which nothing, which number is wrong.

    Empty where the plan promises nothing about facts: the target then says what no item says, and
    no thought could honestly tell where it comes from.
    """
    if not variants.keeps_facts:
        return ""
    texts = [variant.text for variant in variants.variants]
    giving, silent = _contributions(target, texts)
    parts = [f"There are {len(texts)} items to merge."]
    if giving:
        parts.append(f"{_items(giving, 'gives', 'give')} what has to be kept.")
    if silent:
        parts.append(f"{_items(silent, 'has', 'have')} nothing new that has to be kept.")
    parts += _wrong_numbers(target, texts)
    return " ".join([*parts, _FINALLY[target.task]])


def _contributions(target: Item, texts: Sequence[str]) -> tuple[list[int], list[int]]:
    """The places, from 1, of items that give a fact of the target first, and of those that do not.

    An item gives none if all of the target's facts in it were in the items before.
    """
    facts = facts_of("\n".join([target.head, target.body, *target.options]))
    seen: frozenset[str] = frozenset()
    giving, silent = [], []
    for at, text in enumerate(texts, start=1):
        found = found_in(text) & facts
        (silent if found <= seen else giving).append(at)
        seen |= found
    return giving, silent


def _wrong_numbers(target: Item, texts: Sequence[str]) -> list[str]:
    """A sentence for each of two numbers at most that one item alone gives, and the target not."""
    given = Counter(number for text in texts for number in set(numbers_of(text)))
    kept = set(numbers_of(target.answer))
    return [
        f"Item {at} gives {number}, which no other item supports, so it is left out."
        for at, text in enumerate(texts, start=1)
        for number in dict.fromkeys(numbers_of(text))
        if number not in kept and given[number] == 1
    ][:2]


def _items(places: Sequence[int], one: str, many: str) -> str:
    *first, last = map(str, places)
    return f"Items {', '.join(first)} and {last} {many}" if first else f"Item {last} {one}"
