"""Low-quality variants of a target: a plan of degradations, drawn by the target's key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mixup.mixture.items import Item
from mixup.records import Turn


@dataclass(frozen=True, slots=True)
class VariantSettings:
    """How many variants of which kind.

    Attributes:
        least: The fewest variants of a target, 2 or more.
        most: The most, up to 20. Source: spec 2.1.
        mean: About how many a target has on average.
        max_tokens: What all variants of a target may take together, in estimated tokens.
        lossy_share: The share of targets whose plan promises nothing about facts.
        noise_share: The share of variants with surface noise.
        neighbor_share: The share of the targets with neighbors that take some as variants.
    """

    least: int = 2
    most: int = 20
    mean: float = 4.0
    max_tokens: int = 1600
    lossy_share: float = 0.1
    noise_share: float = 0.3
    neighbor_share: float = 0.5


@dataclass(frozen=True, slots=True)
class Neighbor:
    """A row of the pool near a target and truly low-rated (compressed rating below 4).

    Attributes:
        uid: The row's uid.
        turns: Its turns; a single-turn pair.
        rating: Its compressed rating, 0 to 3.
        source: The rating's source: ``column`` or ``judge``.
    """

    uid: str
    turns: tuple[Turn, ...]
    rating: int
    source: str


@dataclass(frozen=True, slots=True)
class Variant:
    """One low-quality item of a pair.

    Attributes:
        turns: Its turns.
        text: It as the distiller reads it.
        degradations: The names of what was done to the target, in order; () for a pool row.
        rating: Its class: by construction, or the pool row's own.
        rating_source: ``construction``, or the pool row's source.
        uid: The content key of its turns (a pool row's uid).
    """

    turns: tuple[Turn, ...]
    text: str
    degradations: tuple[str, ...]
    rating: int
    rating_source: str
    uid: str


@dataclass(frozen=True, slots=True)
class Variants:
    """A target's variants in the order of the prompt, or the reason for none.

    Attributes:
        plan: The plan's name.
        keeps_facts: Whether the plan promises that all of the target's facts are in the union.
        variants: 2 to 20 variants; () with a reason.
        reason: Why there are none, or None.
    """

    plan: str
    keeps_facts: bool
    variants: tuple[Variant, ...]
    reason: str | None = None


def variants_of(
    item: Item, *, seed: int, settings: VariantSettings, neighbors: Sequence[Neighbor] = ()
) -> Variants:
    """The variants of a target; a function of (the item's uid, seed, settings, neighbors)."""
    raise NotImplementedError
