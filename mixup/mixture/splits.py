"""Splits by article: stable when articles are added, and never between near-duplicates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

SPLITS = ("sft", "rl", "validation", "test")


@dataclass(frozen=True, slots=True)
class SplitShares:
    """Shares of the articles. Source: spec 2.1 and 2.2.

    Attributes:
        test: Of all.
        sft: Of what is not test; the rest is for RL.
        validation: Of the RL part.
    """

    test: float = 0.19
    sft: float = 0.3
    validation: float = 0.1


def split_of(article: str, *, seed: int, shares: SplitShares) -> str:
    """The split, one of ``SPLITS``, of an article on its own: by a hash of its key and the seed."""
    raise NotImplementedError


def assign_splits(
    articles: Iterable[str],
    linked: Iterable[Sequence[str]] = (),
    *,
    seed: int,
    shares: SplitShares,
    known: Mapping[str, str] | None = None,
) -> dict[str, str | None]:
    """The split of each article, linked articles having the same.

    Args:
        articles: All articles' keys.
        linked: Groups of articles that belong together: those of near-duplicate targets, and of
            fused ones.
        seed: The seed.
        shares: The shares.
        known: Splits given out before. They stay as they are.

    Returns:
        A split for each article; None for a new one that links two known splits, which no split
        can take without a leak.
    """
    raise NotImplementedError
