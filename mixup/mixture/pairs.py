"""A pair of MIXTURE: variants, their distilled target, and where both come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mixup.errors import ConfigError
from mixup.mixture.degrade import DEGRADATIONS, PLANNED
from mixup.mixture.degraded import Variant, Variants
from mixup.mixture.items import CONSTRUCTION, Item, generator_of
from mixup.mixture.thought import thought_of
from mixup.records import content_key

RULES = "rules-v3"
"""The rules' version: another item, variant or thought for the same text and seed is a new one."""


@dataclass(frozen=True, slots=True)
class Target:
    """A high-quality item and where it comes from.

    Attributes:
        item: The item.
        origins: Keys of the segments or pool rows that it was made from.
        articles: Keys of the groups it belongs to for splits: articles, or pool rows' uids.
        rule: The rule that made it (``tfq.number``), ``pool``, ``teacher`` or ``fused``.
        rating: Its compressed rating, 4 or 5.
        rating_source: ``construction``, ``column`` or ``judge``.
        licence: Its licence, or "".
    """

    item: Item
    origins: tuple[str, ...]
    articles: tuple[str, ...]
    rule: str
    rating: int = 5
    rating_source: str = CONSTRUCTION
    licence: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """A training pair.

    Attributes:
        key: The content key of target, variants and revisions.
        target: The target.
        variants: 2 to 20 low-quality items, in the order of the prompt.
        plan: The plan of the degradations.
        keeps_facts: Whether that plan promises all facts in the union of the variants.
        thought: The chain of thought, or "".
    """

    key: str
    target: Target
    variants: tuple[Variant, ...]
    plan: str
    keeps_facts: bool
    thought: str


def rules_revision() -> str:
    """The content key of everything here that shapes an item, a variant or a thought by rule."""
    classes = {name: one.rating for name, one in DEGRADATIONS.items()} | dict(PLANNED)
    return content_key("mixture", RULES, classes)


def pair_key(target: Item, variants: Sequence[Variant], revisions: Sequence[str]) -> str:
    """The content key of a target, its variants in order, and the revisions that made them."""
    return content_key("pair", target.uid, [one.uid for one in variants], list(revisions))


def pair_of(
    target: Target,
    variants: Variants,
    *,
    seed: int,
    thought_share: float = 1.0,
    thought: str = "",
    revisions: Sequence[str] = (),
) -> Pair:
    """A target and its variants as a pair.

    Args:
        target: The target.
        variants: Its variants, without a reason.
        seed: The seed of the draw for the thought.
        thought_share: The share of pairs whose thought is written by rule; the others, and those of
            a lossy plan, have none.
        thought: A teacher's thought; taken instead of one by rule.
        revisions: Revisions of whatever else made it: the teacher, its prompts.

    Raises:
        ConfigError: There are no variants.
    """
    if not variants.variants:
        raise ConfigError(f"a pair needs variants; there are none: {variants.reason}")
    key = pair_key(target.item, variants.variants, [rules_revision(), *revisions])
    if not thought and generator_of("thought", key, seed).random() < thought_share:
        thought = thought_of(target.item, variants)
    return Pair(key, target, variants.variants, variants.plan, variants.keeps_facts, thought)
