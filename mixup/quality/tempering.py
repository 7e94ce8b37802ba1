"""How many votes the neighbors of an example are worth, judged by how they predict its rating."""

from __future__ import annotations

import numpy as np

from mixup.errors import ConfigError, ShapeError
from mixup.quality.posterior import posterior
from mixup.quality.transition import RATING_CLASSES, UNRATED, Transition, check_ratings

VOTES_GRID = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
"""Candidates for ``effective_votes`` of ``posterior``; 16 is each vote fully, by default."""

_SHARE_FLOOR = 1e-12  # of a rating that the model rules out


def tempering_sums(
    votes_MC: np.ndarray,
    ratings_M: np.ndarray,
    transition: Transition,
    grid: tuple[float, ...] = VOTES_GRID,
    *,
    rows_M: np.ndarray | None = None,
    is_pairs: bool = False,
) -> np.ndarray:
    """The log-likelihood of rows' own ratings given their neighbors' votes, float64 of (grid,).

    sum over rows of log sum_i q_i T_ij, where j is the own rating and q the ``posterior`` of the
    votes at each of the grid's ``effective_votes``. The own rating is not among the votes, so
    this leaves one out. Sums of cells are added up. Unrated rows, rows without votes and ratings
    that T lacks are not counted.

    Args:
        votes_MC: Votes of each row's neighbors per class of T, itself left out.
        ratings_M: Observed own ratings 0-5, -1 for unrated.
        transition: P(rating | true class), and p.
        grid: Candidates, each above 0.
        rows_M: How many rows each stands for; None: one.
        is_pairs: T is a ``cooccurrence``, whose classes are the rows' own ratings: then the sum is
            of log q_j.

    Raises:
        ShapeError: Votes, ratings and transition do not fit.
        ConfigError: A candidate is not positive, or there is none.
    """
    votes, own = np.asarray(votes_MC, dtype=np.float64), check_ratings(ratings_M)
    if len(votes) != len(own):
        raise ShapeError(f"{len(votes)} rows of votes, {len(own)} ratings")
    if not grid:
        raise ConfigError("the grid of effective votes is empty")
    column_of = np.full(RATING_CLASSES + 1, -1)  # the last entry is what UNRATED (-1) looks up
    column_of[transition.classes] = np.arange(len(transition.classes))
    column = np.where(own == UNRATED, -1, column_of[own])
    counted = (column >= 0) & votes.any(axis=1)
    own_CC = np.eye(len(transition.classes)) if is_pairs else transition.matrix_CC
    chances = own_CC[:, column[counted]].T
    weights = np.ones(len(own)) if rows_M is None else np.asarray(rows_M)
    sums = np.empty(len(grid))
    for place, effective_votes in enumerate(grid):
        q = posterior(votes, transition, effective_votes=effective_votes)[counted]
        likelihood = np.log(np.maximum((q * chances).sum(axis=1), _SHARE_FLOOR))
        sums[place] = (likelihood * weights[counted]).sum()
    return sums


def best_votes(sums: np.ndarray, grid: tuple[float, ...] = VOTES_GRID) -> float | None:
    """The candidate of the highest log-likelihood, the lower of equal ones.

    None where the sums tell no candidate from another: no row was counted, or T says nothing.

    Raises:
        ShapeError: Not one finite sum a candidate.
    """
    found = np.asarray(sums, dtype=np.float64)
    if found.shape != (len(grid),) or not np.isfinite(found).all():
        raise ShapeError(f"sums of shape {found.shape} for {len(grid)} candidates")
    if np.ptp(found) == 0:
        return None
    return float(
        min(votes for votes, total in zip(grid, found, strict=True) if total == found.max())
    )
