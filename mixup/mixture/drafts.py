"""The variants of one target as they come about: degraded, compared, counted."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from mixup.clusters.linearize import item_text
from mixup.errors import RecordError
from mixup.mixture.alter import near_number
from mixup.mixture.degrade import DEGRADATIONS, NOISE, class_of
from mixup.mixture.degraded import Neighbor, Variant, VariantSettings
from mixup.mixture.facts import facts_of, found_in, numbers_of
from mixup.mixture.items import CONSTRUCTION, Item
from mixup.mixture.units import has_code
from mixup.records import estimated_tokens

_KEEPING = [name for name, degradation in DEGRADATIONS.items() if degradation.keeps_facts]
_LOSING = [name for name, degradation in DEGRADATIONS.items() if not degradation.keeps_facts]
_TRIES = 6
_NEAR_NUMBER_SHARE = 0.25


class Drafts:
    """The variants of one target as they come about."""

    def __init__(self, item: Item, random_: random.Random, settings: VariantSettings) -> None:
        self.item = item
        self.random = random_
        self.settings = settings
        self.made: list[Variant] = []
        self.words = {same_words(item.text)}
        self.tokens = 0

    def add_covering(self, parts: Sequence[Item]) -> None:
        """One variant for each part, with all of its facts; the first keeps the head's too.

        Raises:
            RecordError: ``too_few_variants`` or ``too_long``.
        """
        for at, part in enumerate(parts):
            split = ("split",) if part != self.item else ()
            kept = facts_of("\n".join([part.body, *part.options]))
            if at == 0 and part.task != "para":  # whose text shows no title
                kept |= facts_of(part.head)
            if not self._add(part, split, _KEEPING, kept, least=0 if split else 1):
                raise RecordError("too_few_variants", f"{self.item.task}: {self.item.text[:60]!r}")
        if self.tokens > self.settings.max_tokens:
            raise RecordError("too_long", f"{self.tokens} tokens in {len(parts)} variants")

    def add_lossy(self, count: int) -> None:
        """Variants that may have lost facts, up to some in all and to the token limit."""
        names = [*_LOSING, *_KEEPING]
        for _ in range(count - len(self.made)):
            self._add(self.item, (), names, None, least=1)

    def add_wrong_number(self) -> None:
        """Seldom, one more variant with a number wrong that two others have right."""
        if self.item.task in ("tfq", "mcq") or self.random.random() >= _NEAR_NUMBER_SHARE:
            return
        if has_code(self.item.body):
            return
        seen = Counter(number for made in self.made for number in set(numbers_of(made.text)))
        body = self.item.body
        numbers = [n for n in numbers_of(body) if seen[n] >= 2 and re.fullmatch(r"[\d,.]+", n)]
        if not numbers or len(self.made) >= self.settings.most:
            return
        right = self.random.choice(numbers)
        wrong = near_number(right, self.random, numbers_of(self.item.text))
        if wrong:
            whole = rf"(?<![\d.,:/]){re.escape(right)}(?![.,:/]?\d)"
            changed = replace(self.item, body=re.sub(whole, wrong, body))
            self._add(changed, ("near_number",), _KEEPING, None, least=0)

    def add_neighbors(self, neighbors: Sequence[Neighbor], count: int) -> None:
        """Low-rated rows of the pool, the nearest first, up to a third of the variants."""
        if not neighbors or self.random.random() >= self.settings.neighbor_share:
            return
        room = min(max(1, count // 3), self.settings.most - len(self.made))
        for neighbor in neighbors[:room]:
            text = item_text(neighbor.turns, self.item.task)
            variant = Variant(
                neighbor.turns, text, (), neighbor.rating, neighbor.source, neighbor.uid
            )
            self._take(variant)

    def result(self) -> tuple[Variant, ...]:
        """The variants in a drawn order.

        Raises:
            RecordError: ``too_few_variants``.
        """
        if len(self.made) < self.settings.least:
            raise RecordError("too_few_variants", f"{self.item.task}: {self.item.text[:60]!r}")
        return tuple(self.random.sample(self.made, len(self.made)))

    def _add(
        self,
        part: Item,
        done: tuple[str, ...],
        names: Sequence[str],
        kept: frozenset[str] | None,
        *,
        least: int,
    ) -> bool:
        """Degrade a part until it differs from all others; False where it never does."""
        for attempt in range(_TRIES):
            steps = max(least, self.random.choice((0, 1, 1, 2)) if attempt == 0 else attempt)
            item, applied = self._degraded(part, names, steps, kept)
            if self.random.random() < self.settings.noise_share:
                noise = [name for name in NOISE if name not in applied]
                item, added = self._degraded(item, noise, 1, kept)
                applied += added
            if kept is not None and not kept <= found_in(item.text):
                return False
            names_done = (*done, *applied)
            if names_done and self._take(_variant(item, names_done), must=kept is not None):
                return True
        return False

    def _degraded(
        self, item: Item, names: Sequence[str], steps: int, kept: frozenset[str] | None
    ) -> tuple[Item, tuple[str, ...]]:
        """An item after some steps, and their names; a step that loses a kept fact is not taken."""
        fit = [name for name in names if item.task in DEGRADATIONS[name].tasks]
        applied = []
        for name in self.random.sample(fit, min(steps, len(fit))):
            changed = DEGRADATIONS[name].change(item, self.random)
            if changed is None or changed == item:
                continue
            if kept is None or kept <= found_in(changed.text):
                item = changed
                applied.append(name)
        return item, tuple(applied)

    def _take(self, variant: Variant, *, must: bool = False) -> bool:
        tokens = estimated_tokens(variant.text)
        words = same_words(variant.text)
        too_many = self.tokens + tokens > self.settings.max_tokens and not must
        if words in self.words or not words or too_many:
            return False
        self.made.append(variant)
        self.words.add(words)
        self.tokens += tokens
        return True


def _variant(item: Item, degradations: tuple[str, ...]) -> Variant:
    rating = class_of(degradations)
    return Variant(item.turns, item.text, degradations, rating, CONSTRUCTION, item.uid)


def same_words(text: str) -> str:
    """A text without case, punctuation and spacing: equal for texts that say the same words."""
    return " ".join(re.findall(r"\w+", text.casefold()))
