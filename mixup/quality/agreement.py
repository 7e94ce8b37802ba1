"""How little an example's neighbors agree with its rating, and from where on that is suspicious."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mixup.errors import ShapeError
from mixup.quality.neighbors import Neighbors
from mixup.quality.resampling import poisson_weights
from mixup.quality.transition import RATING_CLASSES, UNRATED, Transition, check_ratings

SKETCH_BINS = 2_432
"""Bins of the agreement score, 1/128 wide, from 0 to 19; the largest score is 18.4."""

_BINS_PER_UNIT = 128
_LOG_FLOOR = 1e-8  # inside the logarithm, as in the released code
_RATE_ENDS = (0.05, 0.95)  # of a class without noise, and of one that is little but noise
_LEAST_RIGHT = 0.02  # of a rating; below it T takes all of them for errors


@dataclass(frozen=True)
class SuspicionSettings:
    """How ratings are tested.

    Attributes:
        neighbors: Nearest other rows that vote; the row itself is one more voter.
        draws: M, the bootstrap replicates (or the reference's epochs).
        cure_at: Confidence from which a suspicious rating is replaced.
        draw_share: The share of the rows in an epoch of the reference.
        draw_rows: The most rows in an epoch of the reference.
    """

    neighbors: int = 9
    draws: int = 51
    cure_at: float = 0.5
    draw_share: float = 0.9
    draw_rows: int = 50_000


def agreement(
    ratings_N: np.ndarray,
    neighbors: Neighbors,
    weights_N: np.ndarray | None = None,
    *,
    rows_M: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """How little the neighbors agree with each rating, and what they say.

    v_c = sum over the row and its neighbors of similarity x weight where the rating is c;
    g = -log(v_own / ||v|| + 1e-8). The row's own similarity would be 1 and dominate, so it is
    replaced by 1 - (2 d_1 - d_2), d being the distances of the nearest two. Negative similarities
    count as 0.

    Args:
        ratings_N: Observed ratings 0-5, -1 for unrated, which do not vote.
        neighbors: The nearest other rows of each of the M rows, as rows of ``ratings_N``.
        weights_N: How often each row votes as a neighbor; None: once.
        rows_M: Which rows are scored; None: all N. The others are neighbors only.

    Returns:
        g, float64 of shape (M,), at least 0, NaN where unrated or where no neighbor votes; and
        the most voted class, int64 of shape (M,), the lower of equal ones, -1 without votes.

    Raises:
        ShapeError: Ratings, rows and neighbors do not fit.

    Source: spec/lm-mixup.md, section 8.4, items 1-3.
    """
    ratings = check_ratings(ratings_N)
    own = ratings if rows_M is None else ratings[rows_M]
    found = neighbors.indices_MK
    inside = not found.size or 0 <= found.min() <= found.max() < len(ratings)
    if len(found) != len(own) or not inside:
        raise ShapeError(f"neighbors of shape {found.shape} for {len(own)} of {len(ratings)} rows")
    nearby = np.maximum(neighbors.similarities_MK, 0.0) * (ratings != UNRATED)[found]
    if weights_N is not None:
        nearby = nearby * np.asarray(weights_N)[found]
    rows, rated, heard = np.arange(len(own)), own != UNRATED, nearby.any(axis=1)
    place = rows[:, None] * RATING_CLASSES + np.maximum(ratings[found], 0)
    size = len(own) * RATING_CLASSES
    votes = np.bincount(place.ravel(), weights=nearby.ravel(), minlength=size)
    votes = votes.astype(np.float64).reshape(-1, RATING_CLASSES)  # none at all: integers
    votes[rows[rated], own[rated]] += _own_vote(neighbors.similarities_MK)[rated]
    share = votes[rows, own] / np.maximum(np.linalg.norm(votes, axis=1), 1e-300)
    score = np.maximum(-np.log(share + _LOG_FLOOR), 0.0)
    return (
        np.where(rated & heard, score, np.nan),
        np.where(heard, votes.argmax(axis=1), UNRATED),
    )


def _own_vote(similarities: np.ndarray) -> np.ndarray:
    if not similarities.shape[1]:
        return np.zeros(len(similarities))
    second = similarities[:, min(1, similarities.shape[1] - 1)].astype(np.float64)
    return np.maximum(2.0 * similarities[:, 0] - second, 0.0)


def noise_rates(transition: Transition, observed_C: np.ndarray) -> np.ndarray:
    """P(true class is not j | rated j) of all six ratings; NaN where T does not cover one.

    r_j = 1 - min(1, T_jj p_j / p~_j), from 0.05 to 0.95.

    Args:
        transition: P(rating | true class); a co-occurrence is not.
        observed_C: Counts or shares p~ of all six ratings.

    Source: spec/lm-mixup.md, section 8.4, item 4.
    """
    return np.clip(1 - _right_shares(transition, observed_C), *_RATE_ENDS)


def _right_shares(transition: Transition, observed_C: np.ndarray) -> np.ndarray:
    """P(true class is j | rated j) of all six ratings; NaN where T does not cover one."""
    observed = np.asarray(observed_C, dtype=np.float64)
    shares = observed / max(observed.sum(), 1e-300)
    right = np.full(RATING_CLASSES, np.nan)
    right[transition.classes] = np.diag(transition.matrix_CC) * transition.prior_C
    return np.minimum(1.0, right / np.maximum(shares, 1e-300))


def suspicion_sketch(
    ratings_N: np.ndarray,
    neighbors: Neighbors,
    ids_N: np.ndarray,
    settings: SuspicionSettings | None = None,
    *,
    rows_M: np.ndarray | None = None,
) -> np.ndarray:
    """How often each agreement score occurs among the ratings j, over all draws of a cell.

    Sketches of cells are added up, and ``suspicion_thresholds`` reads the flagged share of each
    class from the sum; so cells are tested on their own against one threshold of the whole pool.

    Args:
        ratings_N: Observed ratings 0-5, -1 for unrated.
        neighbors: The nearest other rows of each of the M rows. Duplicates must have been left out.
        ids_N: A distinct 64-bit integer a row.
        settings: None: the defaults.
        rows_M: Which rows are scored; None: all N.

    Returns:
        int64 of shape (6, ``SKETCH_BINS``).

    Raises:
        ShapeError: Ratings, neighbors and ids do not fit.
    """
    ratings = check_ratings(ratings_N)
    own = ratings if rows_M is None else ratings[rows_M]
    sketch = np.zeros((RATING_CLASSES, SKETCH_BINS), dtype=np.int64)
    for tested, score, _ in bootstrap_scores(
        ratings, neighbors, ids_N, settings or SuspicionSettings(), rows_M
    ):
        place = own[tested] * SKETCH_BINS + score_bins(score)
        sketch += np.bincount(place, minlength=sketch.size).reshape(sketch.shape)
    return sketch


def suspicion_thresholds(sketch_CB: np.ndarray, transition: Transition) -> np.ndarray:
    """The first bin of each rating j from which at most the share r_j lies, int64 of shape (6,).

    Ratings that T does not cover, or that were not seen, get ``SKETCH_BINS``: none is flagged. So
    do those that T takes for nothing but errors: a T that knows no such class cannot say which.

    Args:
        sketch_CB: From ``suspicion_sketch``, added up over cells.
        transition: P(rating | true class).

    Raises:
        ShapeError: Not a sketch.

    Source: spec/lm-mixup.md, section 8.4, item 5; there a percentile in each epoch.
    """
    sketch = np.asarray(sketch_CB)
    if sketch.shape != (RATING_CLASSES, SKETCH_BINS):
        raise ShapeError(f"a sketch of shape {sketch.shape}")
    observed = sketch.sum(axis=1)
    rates = noise_rates(transition, observed)
    rates[~(_right_shares(transition, observed) >= _LEAST_RIGHT)] = 0.0
    allowed = rates * observed
    at_least = sketch[:, ::-1].cumsum(axis=1)[:, ::-1]
    within = at_least <= allowed[:, None]
    return np.where(within.any(axis=1) & (allowed > 0), within.argmax(axis=1), SKETCH_BINS)


def bootstrap_scores(
    ratings: np.ndarray,
    neighbors: Neighbors,
    ids_N: np.ndarray,
    settings: SuspicionSettings,
    rows_M: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """In each replicate: which of the M rows are tested, their scores, and the classes voted for.

    Raises:
        ShapeError: Ratings, neighbors and ids do not fit.
    """
    if len(ids_N) != len(ratings):
        raise ShapeError(f"{len(ratings)} ratings, {len(ids_N)} ids")
    k = settings.neighbors
    near = Neighbors(neighbors.indices_MK[:, :k], neighbors.similarities_MK[:, :k])
    for draw in range(settings.draws):
        weights = poisson_weights(ids_N, draw)
        score, voted = agreement(ratings, near, weights, rows_M=rows_M)
        drawn = weights > 0 if rows_M is None else weights[rows_M] > 0
        tested = np.flatnonzero(drawn & ~np.isnan(score))
        yield tested, score[tested], voted[tested]


def score_bins(score: np.ndarray) -> np.ndarray:
    """The bin of each agreement score in a sketch."""
    return np.minimum((score * _BINS_PER_UNIT).astype(np.int64), SKETCH_BINS - 1)
