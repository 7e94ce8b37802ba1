"""The six rating classes, and the transition matrix between an example's and neighbors' ratings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mixup.errors import ConfigError, RecordError, ShapeError
from mixup.quality.neighbors import top_k

RATING_CLASSES = 6
UNRATED = -1
GIVEN_TRUTH, GIVEN_RATING = "truth", "rating"

_PRIOR_FLOOR = 1e-8  # added to each class's share, as in the released library builder


@dataclass(frozen=True)
class Transition:
    """How a neighbor's rating is distributed given an example's own class.

    Attributes:
        classes: The C rating classes it covers, ascending integers.
        matrix_CC: Row i is P(neighbor's rating = j | class i); rows sum to 1.
        prior_C: The share of each class.
        given: What class i is: ``GIVEN_TRUTH``, the true class, so that T holds the rater's errors;
            or ``GIVEN_RATING``, the example's own observed rating, as co-occurrence counts it.
    """

    classes: np.ndarray
    matrix_CC: np.ndarray
    prior_C: np.ndarray
    given: str = GIVEN_TRUTH

    def __post_init__(self) -> None:
        """Raises ShapeError where the parts do not fit each other, or ``given`` is neither."""
        if self.given not in (GIVEN_TRUTH, GIVEN_RATING):
            raise ShapeError(f"given {self.given!r}; expected {GIVEN_TRUTH} or {GIVEN_RATING}")
        count = len(self.classes)
        if self.matrix_CC.shape != (count, count) or self.prior_C.shape != (count,):
            raise ShapeError(
                f"{count} classes need a {count} x {count} matrix and {count} priors; got "
                f"{self.matrix_CC.shape} and {self.prior_C.shape}"
            )


def compress(overall: float) -> int:
    """A rater's overall mark, 1-10, as a rating class 0-5: 1..4 -> 0, 5 -> 1, ... 9, 10 -> 5.

    A mark that is not whole (the mean of several raters) is rounded, halves upwards: 7.5 counts
    as 8.

    Raises:
        RecordError: Not a number from 1 to 10 (reason ``bad_rating``). The released code turns an
            answer that it could not parse into 0 and so into the lowest class; here such a row
            stays unrated.

    Source: spec/lm-mixup.md, section 2.4.
    """
    if not 1 <= overall <= 10:
        raise RecordError("bad_rating", f"overall {overall!r} is not a number from 1 to 10")
    return min(max(math.floor(overall + 0.5), 4), 9) - 4


def compress_ratings(overall_N: np.ndarray) -> np.ndarray:
    """``compress`` of many marks as int8; ``UNRATED`` (-1) where one is NaN or out of range."""
    overall = np.asarray(overall_N, dtype=np.float64)
    valid = (overall >= 1) & (overall <= 10)
    classes = np.clip(np.floor(np.where(valid, overall, 1) + 0.5), 4, 9) - 4
    return np.where(valid, classes, UNRATED).astype(np.int8)


def rating_pairs(
    ratings_N: np.ndarray, neighbor_indices_MK: np.ndarray, rows_M: np.ndarray
) -> np.ndarray:
    """How often a row of rating i has a neighbor of rating j, int64 of shape (6, 6).

    Counts of parts of a pool, such as its cells, add up to those of the whole.

    Args:
        ratings_N: Observed ratings 0-5, all rated.
        neighbor_indices_MK: For each of M rows its nearest others.
        rows_M: Which rows these are.

    Raises:
        ShapeError: An unrated row, or neighbors that do not fit.
    """
    ratings, neighbors = check_ratings(ratings_N), np.asarray(neighbor_indices_MK, dtype=np.int64)
    if (ratings == UNRATED).any():
        raise ShapeError("the library has unrated rows; leave them out")
    if neighbors.ndim != 2 or len(neighbors) != len(rows_M):
        raise ShapeError(f"neighbors of shape {neighbors.shape} for {len(rows_M)} rows")
    if neighbors.size and not 0 <= neighbors.min() <= neighbors.max() < len(ratings):
        raise ShapeError(f"neighbor indices must be from 0 to {len(ratings) - 1}")
    counts = np.zeros((RATING_CLASSES, RATING_CLASSES), dtype=np.int64)
    np.add.at(counts, (ratings[rows_M][:, None], ratings[neighbors]), 1)
    return counts


def transition_of_pairs(
    pairs: np.ndarray, ratings_C: np.ndarray, *, smoothing: float = 0.01
) -> Transition:
    """The transition of the released library builder: observed ratings of neighbors, counted.

    The classes are those present among the ratings. Where no row has a neighbor, the rows of the
    matrix are uniform.

    Args:
        pairs: ``rating_pairs``, summed.
        ratings_C: How many rows have each of the six ratings.
        smoothing: Added to each count; above 0.

    Raises:
        ShapeError: No row is rated.
        ConfigError: Smoothing is not positive.

    Source: spec/lm-mixup.md, section 3.4 (library build). Unlike the transition of DS2 it takes
    the own rating for the truth.
    """
    classes = np.flatnonzero(ratings_C)
    if not len(classes):
        raise ShapeError("no row is rated; expected at least one row")
    if not smoothing > 0:
        raise ConfigError(f"smoothing is {smoothing}; expected a number above 0")
    counts = pairs[np.ix_(classes, classes)] + smoothing
    prior = ratings_C[classes] / ratings_C.sum() + _PRIOR_FLOOR
    return Transition(classes, counts / counts.sum(axis=1, keepdims=True), prior, GIVEN_RATING)


def cooccurrence(
    ratings_N: np.ndarray, neighbor_indices_NK: np.ndarray, *, smoothing: float = 0.01
) -> Transition:
    """``transition_of_pairs`` of one library, whose rows all count.

    Raises:
        ShapeError, ConfigError: As there and in ``rating_pairs``.
    """
    ratings = check_ratings(ratings_N)
    pairs = rating_pairs(ratings, neighbor_indices_NK, np.arange(len(ratings)))
    counts = np.bincount(ratings, minlength=RATING_CLASSES)
    return transition_of_pairs(pairs, counts, smoothing=smoothing)


def fit_transition(
    vectors_LD: np.ndarray, ratings_L: np.ndarray, *, neighbors: int = 3, smoothing: float = 0.01
) -> Transition:
    """The ``cooccurrence`` of a library of rated examples and their nearest others.

    Near-duplicates must have been left out: they would push the matrix towards the identity.

    Raises:
        ShapeError, ConfigError: As ``top_k`` and ``cooccurrence``.
    """
    near = top_k(vectors_LD, vectors_LD, neighbors, exclude_self=True)
    return cooccurrence(ratings_L, near.indices_MK, smoothing=smoothing)


def nearest_classes(ratings_L: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Each rating itself, or where it is not among the classes the nearest (lower) of them.

    Raises:
        ShapeError: An unrated row, or ratings out of range.
    """
    ratings = check_ratings(ratings_L)
    if (ratings == UNRATED).any():
        raise ShapeError("the library has unrated rows; leave them out")
    return np.asarray(classes)[np.abs(ratings[:, None] - classes).argmin(axis=1)]


def check_ratings(ratings_N: np.ndarray) -> np.ndarray:
    """The ratings as int64, checked to be whole numbers from -1 (unrated) to 5.

    Raises:
        ShapeError: Not a one-dimensional array of integers in range.
    """
    ratings = np.asarray(ratings_N)
    if ratings.ndim != 1 or (ratings.size and ratings.dtype.kind not in "iu"):
        raise ShapeError(f"ratings of shape {ratings.shape}, {ratings.dtype}; expected integers")
    if ratings.size and not UNRATED <= ratings.min() <= ratings.max() < RATING_CLASSES:
        raise ShapeError(f"ratings must be from -1 to 5; got {ratings.min()} to {ratings.max()}")
    return ratings.astype(np.int64)
