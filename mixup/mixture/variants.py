"""Low-quality variants of a target: a plan of degradations, drawn by the target's key."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from mixup.errors import RecordError
from mixup.mixture.degrade import with_wrong
from mixup.mixture.degraded import Neighbor, Variants, VariantSettings
from mixup.mixture.drafts import Drafts
from mixup.mixture.items import Item, generator_of
from mixup.mixture.units import joined, units_of

_SPLIT_SHARE = 0.65
_OVERLAP = 0.25


def variants_of(
    item: Item, *, seed: int, settings: VariantSettings, neighbors: Sequence[Neighbor] = ()
) -> Variants:
    """The variants of a target; a function of (the item's uid, seed, settings, neighbors).

    No variant equals the target or another one, case, spacing and punctuation aside. Where the plan
    keeps facts, every fact of the target's answer (``facts_of``; for a paragraph, of its body) is
    found in some variant, and a number that a variant has wrong is right in two others.

    Raises:
        ShapeError: A neighbor is no single-turn pair.
    """
    random_ = generator_of("variants", item.uid, seed)
    plan = _plan_of(item, random_, settings)
    drafts = Drafts(item, random_, settings)
    count = _drawn_count(random_, settings)
    try:
        if plan == "lossy":
            drafts.add_lossy(count)
        else:
            drafts.add_covering(_parts(item, plan, count, random_))
            drafts.add_lossy(count)
            drafts.add_wrong_number()
        drafts.add_neighbors(neighbors, count)
        return Variants(plan, plan != "lossy", drafts.result())
    except RecordError as error:
        return Variants(plan, plan != "lossy", (), error.reason)


def _plan_of(item: Item, random_: random.Random, settings: VariantSettings) -> str:
    if random_.random() < settings.lossy_share:
        return "lossy"
    can_split = len(item.options) > 2 if item.task == "mcq" else len(units_of(item.body)) > 1
    # Parts of a false statement may be true.
    can_split = can_split and (item.task != "tfq" or item.mark == "True")
    return "split" if can_split and random_.random() < _SPLIT_SHARE else "redundant"


def _drawn_count(random_: random.Random, settings: VariantSettings) -> int:
    """A count with a long tail: the least, and an exponential draw above it."""
    above = settings.mean - settings.least
    drawn = random_.expovariate(1 / above) if above else 0.0
    return min(settings.most, settings.least + round(drawn))


def _parts(item: Item, plan: str, count: int, random_: random.Random) -> list[Item]:
    """What the variants that hold the facts are made from: the item, or parts that cover it."""
    if plan == "redundant":
        return [item] * 2
    pieces = [text for text in item.options if text != item.right]
    units = units_of(item.body)
    size = len(pieces) if item.task == "mcq" else len(units)
    groups = _groups(size, min(size, max(2, round(0.7 * count))), random_)
    if item.task == "mcq":
        return [with_wrong(item, [pieces[at] for at in group]) for group in groups]
    return [replace(item, body=joined([units[at] for at in group])) for group in groups]


def _groups(size: int, count: int, random_: random.Random) -> list[list[int]]:
    """Groups of places, in order, none empty, none with all, that cover all; some overlap."""
    places = list(range(size))
    random_.shuffle(places)
    groups = [{place} for place in places[:count]]
    for place in places[count:]:
        random_.choice(groups).add(place)
    for group in groups:
        if random_.random() < _OVERLAP and len(group) + 1 < size:
            group.add(random_.choice([place for place in range(size) if place not in group]))
    return [sorted(group) for group in groups]
