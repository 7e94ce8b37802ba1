"""Splits by article: stable when articles are added, and never between near-duplicates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mixup.errors import ConfigError
from mixup.records import content_key

SPLITS = ("sft", "rl", "validation", "test")


@dataclass(frozen=True, slots=True)
class SplitShares:
    """Shares of the articles. Source: spec 2.1 (28K of 145K are for tests) and 2.2.

    Attributes:
        test: Of all.
        sft: Of what is not test; the rest is for RL.
        validation: Of the RL part.
    """

    test: float = 0.19
    sft: float = 0.3
    validation: float = 0.1

    def __post_init__(self) -> None:
        """Refuses what is no share.

        Raises:
            ConfigError: A share is not from 0 to 1.
        """
        if not all(0 <= share <= 1 for share in (self.test, self.sft, self.validation)):
            raise ConfigError(f"split shares must be from 0 to 1: {self}")


def split_of(article: str, *, seed: int, shares: SplitShares) -> str:
    """The split, one of ``SPLITS``, of an article on its own: by a hash of its key and the seed.

    Each share is drawn from its own hash, so that another share of one part moves no article
    between the others.
    """
    if _draw("test", article, seed) < shares.test:
        return "test"
    if _draw("sft", article, seed) < shares.sft:
        return "sft"
    return "validation" if _draw("validation", article, seed) < shares.validation else "rl"


def assign_splits(
    articles: Iterable[str],
    linked: Iterable[Sequence[str]] = (),
    *,
    seed: int,
    shares: SplitShares,
    known: Mapping[str, str] | None = None,
) -> dict[str, str | None]:
    """The split of each article, linked articles having the same.

    Linked articles that have no split yet follow the one with the smallest key.

    Args:
        articles: All articles' keys.
        linked: Groups of articles that belong together, such as those of near-duplicate targets.
        seed: The seed.
        shares: The shares.
        known: Splits given out before. They stay as they are.

    Returns:
        A split for each article; None for a new one that links two known splits, which no split
        can take without a leak.
    """
    given = known or {}
    splits: dict[str, str | None] = {}
    for group in _components(articles, linked):
        found = {given[article] for article in group if article in given}
        if len(found) > 1:
            split = None
        else:
            split = found.pop() if found else split_of(min(group), seed=seed, shares=shares)
        splits.update({article: given.get(article, split) for article in group})
    return splits


def _draw(part: str, article: str, seed: int) -> float:
    return int(content_key("split", part, article, seed)[:13], 16) / 16**13


def _components(articles: Iterable[str], linked: Iterable[Sequence[str]]) -> list[list[str]]:
    """The articles in groups that links hold together (union-find)."""
    parent = {article: article for article in articles}

    def root(article: str) -> str:
        parent.setdefault(article, article)
        while parent[article] != article:
            parent[article] = parent[parent[article]]
            article = parent[article]
        return article

    for group in linked:
        for article in group:
            root(article)
        for first, second in zip(group, group[1:], strict=False):
            a, b = sorted((root(first), root(second)))
            parent[b] = a
    groups: dict[str, list[str]] = {}
    for article in parent:
        groups.setdefault(root(article), []).append(article)
    return list(groups.values())
