"""The variants of a target: what one is, how many there are, and whether they hold all facts."""

from __future__ import annotations

from dataclasses import dataclass

from mixup.errors import ConfigError
from mixup.records import Turn

VARIANT_REASONS = (
    "too_few_variants",  # fewer than two different low-quality items can be made of the target
    "too_long",  # those that hold all facts take more tokens than all variants may
)
"""Why a target gets no variants."""


@dataclass(frozen=True, slots=True)
class VariantSettings:
    """How many variants of which kind.

    Attributes:
        least: The fewest variants of a target, 2 or more.
        most: The most, up to 20. Source: spec 2.1.
        mean: About how many a target has on average, where it has enough to say.
        max_tokens: What all variants of a target may take together, in estimated tokens.
        lossy_share: The share of targets whose plan promises nothing about facts. Such a pair
            teaches to write what no input says, so it is small.
        noise_share: The share of variants with surface noise on top.
        neighbor_share: The share of the targets with neighbors that take some as variants.
    """

    least: int = 2
    most: int = 20
    mean: float = 4.0
    max_tokens: int = 1600
    lossy_share: float = 0.05
    noise_share: float = 0.3
    neighbor_share: float = 0.5

    def __post_init__(self) -> None:
        """Refuses settings that no target can meet.

        Raises:
            ConfigError: A bound or a share is out of its range.
        """
        shares = (self.lossy_share, self.noise_share, self.neighbor_share)
        if not 2 <= self.least <= self.most <= 20 or not self.least <= self.mean <= self.most:
            raise ConfigError(
                f"variants: at least {self.least}, at most {self.most}, mean {self.mean}; expected "
                "2 <= least <= mean <= most <= 20"
            )
        if not all(0 <= share <= 1 for share in shares) or self.max_tokens < 1:
            raise ConfigError(f"variants: shares {shares} must be 0 to 1, max_tokens 1 or more")


@dataclass(frozen=True, slots=True)
class Neighbor:
    """A row of the pool near a target, of its task and truly low-rated (compressed, below 4).

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
        plan: ``split`` (its facts are split over variants), ``redundant`` (two or more variants
            hold all of them) or ``lossy``.
        keeps_facts: Whether the plan promises that all of the target's facts are in the union.
        variants: 2 to 20 variants; () with a reason.
        reason: Why there are none, or None.
    """

    plan: str
    keeps_facts: bool
    variants: tuple[Variant, ...]
    reason: str | None = None
