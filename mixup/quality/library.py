"""Who votes on quality: rated examples, each group of near-duplicates once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixup.errors import ShapeError
from mixup.quality.neighbors import check_order, near_duplicate_of, unit_vectors
from mixup.quality.transition import UNRATED, check_ratings


@dataclass(frozen=True)
class Library:
    """Rated examples that vote.

    Attributes:
        vectors_LD: Unit vectors.
        ratings_L: Observed ratings 0-5.
        uids: The records' uids, so that a row does not vote on itself; None if unknown.
    """

    vectors_LD: np.ndarray
    ratings_L: np.ndarray
    uids: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Raises ShapeError where vectors and ratings do not fit each other."""
        if len(self.ratings_L) != len(self.vectors_LD):
            raise ShapeError(f"{len(self.ratings_L)} ratings, {len(self.vectors_LD)} vectors")


@dataclass(frozen=True)
class Representatives:
    """The rows that stand for their groups of near-duplicates, ascending.

    Attributes:
        leaders: Of each group the oldest row.
        voters: Of each group the oldest row that is rated, where one is.
    """

    leaders: np.ndarray
    voters: np.ndarray


def representatives(
    vectors_ND: np.ndarray, ratings_N: np.ndarray, order_N: np.ndarray, similarity: float
) -> Representatives:
    """Who stands for the rows, and who votes.

    Args:
        vectors_ND: Unit vectors.
        ratings_N: Observed ratings 0-5, -1 for unrated.
        order_N: Distinct ranks, smallest = oldest.
        similarity: Cosine similarity from which rows are near-duplicates.

    Raises:
        ShapeError: As ``curate``.
    """
    vectors, ratings = unit_vectors(vectors_ND), check_ratings(ratings_N)
    by_age = np.argsort(check_order(order_N, len(vectors)), kind="stable")
    leader = near_duplicate_of(vectors[by_age], np.arange(len(vectors)), similarity)
    voters = np.sort(by_age[oldest_rated(ratings[by_age], leader)])
    return Representatives(np.sort(by_age[np.unique(leader)]), voters)


def oldest_rated(ratings_N: np.ndarray, leader_N: np.ndarray) -> np.ndarray:
    """The oldest rated row of each group of duplicates, where rows are ordered by age, ascending.

    Args:
        ratings_N: Observed ratings 0-5, -1 for unrated.
        leader_N: The row that represents each, from ``near_duplicate_of``.
    """
    rated = np.flatnonzero(ratings_N != UNRATED)
    _, first = np.unique(leader_N[rated], return_index=True)
    return np.sort(rated[first])
