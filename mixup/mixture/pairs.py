"""A pair of MIXTURE: variants, their distilled target, and where both come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mixup.mixture.items import Item
from mixup.mixture.variants import Variant, Variants


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
    rating_source: str = "construction"
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
    raise NotImplementedError


def pair_key(target: Item, variants: Sequence[Variant], revisions: Sequence[str]) -> str:
    """The content key of a target, its variants in order, and the revisions that made them."""
    raise NotImplementedError


def pair_of(
    target: Target,
    variants: Variants,
    *,
    seed: int,
    thought_share: float = 0.5,
    thought: str = "",
    revisions: Sequence[str] = (),
) -> Pair:
    """A target and its variants as a pair.

    Args:
        target: The target.
        variants: Its variants, without a reason.
        seed: The seed of the draw for the thought.
        thought_share: The share of pairs whose thought is written by rule.
        thought: A teacher's thought; taken instead of one by rule.
        revisions: Revisions of whatever else made it: the teacher, its prompts.
    """
    raise NotImplementedError
