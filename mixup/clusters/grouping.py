"""Groups of rows that say nearly the same, grown bottom-up from the neighbor graph of one cell."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from mixup.clusters.centroids import sorted_rows
from mixup.errors import ConfigError, ShapeError
from mixup.quality.neighbors import check_order, rounded, top_k, unit_vectors
from mixup.records import content_key

_ROUNDS = 4  # of searching again among the rows left over; the second finds nearly all there is


@dataclass(frozen=True)
class Groups:
    """Disjoint groups, the one with the oldest member first.

    Attributes:
        members: Row indices of each group, ascending.
        cohesion: float32 mean cosine similarity of each group's pairs.
    """

    members: list[np.ndarray]
    cohesion: np.ndarray


def cluster_key(member_uids: Sequence[str]) -> str:
    """The content key of a cluster: of its members' uids, in any order."""
    return content_key(sorted(member_uids))


def cohesion(vectors_ND: np.ndarray) -> float:
    """The mean cosine similarity of the pairs of a group of at least two unit vectors."""
    return float((vectors_ND @ vectors_ND.T)[_pairs(len(vectors_ND))].mean())


@cache
def _pairs(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of so many rows, as two arrays; a pool has few sizes of groups."""
    return np.triu_indices(rows, 1)


def group(
    vectors_ND: np.ndarray,
    *,
    tokens_N: np.ndarray,
    labels_N: np.ndarray,
    order_N: np.ndarray,
    floor: float,
    min_size: int,
    max_size: int,
    max_tokens: int,
    neighbors: int = 16,
) -> Groups:
    """Agglomerates rows of one label by complete linkage, under caps of size and tokens.

    Groups start as single rows. Of all groups joined by an edge of the neighbor graph, the two
    whose least similar cross pair is the most similar are merged, while that pair reaches the
    floor and the caps hold: so every pair in a group is at least ``floor``, and groups are tight.
    Groups smaller than ``min_size`` are dissolved. A row whose neighbors all went elsewhere may
    have others further away, so the rows left over are searched and agglomerated again, a few
    times. What has no near neighbor stays out.

    The result does not depend on the order of the rows: ties go to the older rows. The work is
    linear in rows x neighbors but for the neighbor search.

    Args:
        vectors_ND: Unit vectors.
        tokens_N: Tokens of each row.
        labels_N: Only rows of the same label (the task) are grouped.
        order_N: Distinct ranks, smallest = oldest.
        floor: Lowest cosine similarity of a pair in a group.
        min_size: Fewest rows of a group, at least 2.
        max_size: Most rows of a group.
        max_tokens: Most tokens of a group, summed over its rows.
        neighbors: Edges per row in the neighbor graph.

    Raises:
        ShapeError: Arrays that do not fit each other, or vectors that are not of unit norm.
        ConfigError: Sizes or the floor are out of range.

    Source: replaces the capacity-constrained k-means of spec/lm-mixup.md, section 4.2, which has
    no floor and forces outliers into groups (sections 6.3 and 9, decision 7).
    """
    if not (2 <= min_size <= max_size and neighbors >= 1 and -1 <= floor <= 1):
        raise ConfigError(
            f"min_size {min_size}, max_size {max_size}, neighbors {neighbors}, floor {floor}: "
            "expected 2 <= min_size <= max_size, neighbors >= 1, floor from -1 to 1"
        )
    vectors = unit_vectors(vectors_ND)
    tokens, labels = np.asarray(tokens_N), np.asarray(labels_N)
    if tokens.shape != (len(vectors),) or labels.shape != (len(vectors),):
        raise ShapeError(f"tokens {tokens.shape}, labels {labels.shape}, vectors {vectors.shape}")
    # Oldest first throughout: float sums, ties and so the outcome cannot depend on row order.
    by_age = np.argsort(check_order(order_N, len(vectors)), kind="stable")
    vectors, tokens, labels = vectors[by_age], tokens[by_age].astype(np.int64), labels[by_age]
    limits = _Limits(float(np.float32(floor)), min_size, max_size, max_tokens)
    found: list[np.ndarray] = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        parts = _grouped(vectors[rows], tokens[rows], limits, neighbors)
        found.extend(rows[part] for part in parts)
    found.sort(key=lambda part: int(part[0]))
    similar = np.array([cohesion(vectors[part]) for part in found], dtype=np.float32)
    return Groups([np.sort(by_age[part]) for part in found], similar)


@dataclass(frozen=True)
class _Limits:
    floor: float
    min_size: int
    max_size: int
    max_tokens: int


def _grouped(
    vectors: np.ndarray, tokens: np.ndarray, limits: _Limits, neighbors: int
) -> list[np.ndarray]:
    left = np.arange(len(vectors))
    found: list[np.ndarray] = []
    for _ in range(_ROUNDS):
        if len(left) < limits.min_size:
            break
        first, second, similarity = _edges(vectors[left], limits.floor, neighbors)
        forest = _Forest(vectors[left], tokens[left].tolist(), limits)
        fits = tokens[left[first]] + tokens[left[second]] <= limits.max_tokens
        edges = (first[fits], second[fits], similarity[fits])
        forest.grow(*(values.tolist() for values in edges))
        parts = [part for part in forest.members.values() if len(part) >= limits.min_size]
        found.extend(left[np.sort(part)] for part in parts)
        if not parts:
            break
        # A row with no edge now will have none later: only the others are searched again.
        connected = np.union1d(first, second)
        left = left[np.setdiff1d(connected, np.concatenate(parts))]
    return found


def _edges(
    vectors: np.ndarray, floor: float, neighbors: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (first < second) at or above the floor, each once, and their similarities."""
    near = top_k(vectors, vectors, neighbors, exclude_self=True)
    row = np.repeat(np.arange(len(vectors)), near.indices_MK.shape[1])
    other, similarity = near.indices_MK.ravel(), near.similarities_MK.ravel()
    # Among many equal rows all neighbors are the first few of them; a chain reaches the rest.
    same, after = _equal_rows(vectors)
    row, other = np.concatenate([row, same]), np.concatenate([other, after])
    similarity = np.concatenate([similarity, np.ones(len(same), dtype=np.float32)])
    kept = similarity >= floor
    row, other, similarity = row[kept], other[kept], similarity[kept]
    pair = np.minimum(row, other) * len(vectors) + np.maximum(row, other)
    pair, place = np.unique(pair, return_index=True)
    return pair // len(vectors), pair % len(vectors), similarity[place]


def _equal_rows(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each row that has an equal one after it, and the next such row."""
    order, is_first = sorted_rows(vectors)
    equal = ~is_first[1:]
    return order[:-1][equal], order[1:][equal]


@dataclass
class _Forest:
    """The groups so far; a group's name is its oldest member.

    ``links[a][b]`` is the least similar cross pair of the groups a and b, for groups that an edge
    joins and that may still be merged.
    """

    vectors: np.ndarray
    tokens: list[int]
    limits: _Limits
    members: dict[int, list[int]] = field(init=False)
    links: dict[int, dict[int, float]] = field(init=False)

    def __post_init__(self) -> None:
        """Starts with one group a row."""
        self.members = {row: [row] for row in range(len(self.tokens))}
        self.links = {row: {} for row in range(len(self.tokens))}

    def grow(self, first: list[int], second: list[int], similarity: list[float]) -> None:
        """Merges the closest two groups until no two may be merged.

        The edges are of rows that fit together.
        """
        for a, b, value in zip(first, second, similarity, strict=True):
            self.links[a][b] = self.links[b][a] = value
        heap = [(-value, a, b) for a, b, value in zip(first, second, similarity, strict=True)]
        heapq.heapify(heap)
        while heap:
            value, a, b = heapq.heappop(heap)
            if self.links.get(a, {}).get(b) == -value:  # else the entry is out of date
                for other, link in self._merge(a, b).items():
                    heapq.heappush(heap, (-link, min(a, other), max(a, other)))

    def _with_room(self, links: dict[int, float], group: int) -> dict[int, float]:
        """The links to groups that fit into one with this group."""
        rows = self.limits.max_size - len(self.members[group])
        tokens = self.limits.max_tokens - self.tokens[group]
        return {
            other: value
            for other, value in links.items()
            if len(self.members[other]) <= rows and self.tokens[other] <= tokens
        }

    def _merge(self, a: int, b: int) -> dict[int, float]:
        """Moves b into a; returns a's new links. a is the older, so it keeps its name."""
        links_a, links_b = self.links.pop(a), self.links.pop(b)
        del links_a[b], links_b[a]
        for other in links_a:
            del self.links[other][a]
        for other in links_b:
            del self.links[other][b]
        moved = self.members.pop(b)
        kept = list(self.members[a])
        self.members[a] = kept + moved
        self.tokens[a] += self.tokens[b]
        links_a, links_b = self._with_room(links_a, a), self._with_room(links_b, a)
        self._complete(links_a, links_b, moved)
        self._complete(links_b, links_a, kept)
        merged = {other: min(value, links_b[other]) for other, value in links_a.items()}
        merged = {other: value for other, value in merged.items() if value >= self.limits.floor}
        self.links[a] = merged
        for other, value in merged.items():
            self.links[other][a] = value
        return merged

    def _complete(self, known: dict[int, float], other: dict[int, float], rows: list[int]) -> None:
        """Adds to ``other`` the links of its group, which has these rows, that only known has."""
        missing = [name for name in known if name not in other]
        if not missing:
            return
        counts = [len(self.members[name]) for name in missing]
        columns = [row for name in missing for row in self.members[name]]
        least = (self.vectors[rows] @ self.vectors[columns].T).min(axis=0)
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        values = rounded(np.minimum.reduceat(least, starts)).tolist()
        other.update(zip(missing, values, strict=True))
