"""Ratings that an example's neighbors contradict: which are suspicious, and what they should be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixup.errors import ShapeError
from mixup.quality.agreement import (
    SuspicionSettings,
    agreement,
    bootstrap_scores,
    noise_rates,
    score_bins,
    suspicion_sketch,
    suspicion_thresholds,
)
from mixup.quality.neighbors import Neighbors, top_k
from mixup.quality.resampling import hashes
from mixup.quality.transition import RATING_CLASSES, UNRATED, Transition, check_ratings


@dataclass(frozen=True)
class Suspicion:
    """The outcome for each of N rows; an unrated row is never suspicious.

    Attributes:
        misrated_N: float32 (times suspicious + 1) / (times drawn + 2); NaN where unrated.
        suspicious_N: Whether that is above one half.
        suggested_N: int8 the class, other than its own, that most suspicious draws suggest; the
            own rating where none suggests another, -1 where unrated.
        confidence_N: float32 of the suggestion, 0-1; 0 without one, NaN where unrated.
        curated_N: int8 the suggestion where suspicious and confident enough, else the own rating.
        draws_N: int64 times the row was tested.
    """

    misrated_N: np.ndarray
    suspicious_N: np.ndarray
    suggested_N: np.ndarray
    confidence_N: np.ndarray
    curated_N: np.ndarray
    draws_N: np.ndarray


def find_suspicions(
    ratings_N: np.ndarray,
    vectors_ND: np.ndarray,
    ids_N: np.ndarray,
    transition: Transition,
    settings: SuspicionSettings | None = None,
    *,
    faithful: bool = False,
) -> Suspicion:
    """Tests the ratings of a pool that is one cell.

    Args:
        ratings_N: Observed ratings 0-5, -1 for unrated.
        vectors_ND: Unit vectors. Duplicates must have been left out.
        ids_N: A distinct 64-bit integer a row.
        transition: P(rating | true class), as by consensus.
        settings: None: the defaults.
        faithful: Search within each draw as the reference does, M times, with thresholds of each
            draw; else once, in all rows.

    Raises:
        ShapeError: Arrays that do not fit each other, or vectors that are not of unit norm.

    Source: spec/lm-mixup.md, sections 8.4-8.6.
    """
    settings = settings or SuspicionSettings()
    ratings = check_ratings(ratings_N)
    if not len(ratings) == len(vectors_ND) == len(ids_N):
        raise ShapeError(f"{len(ratings)} ratings, {len(vectors_ND)} vectors, {len(ids_N)} ids")
    if faithful:
        return _suspicions_by_epoch(ratings, vectors_ND, np.asarray(ids_N), transition, settings)
    near = top_k(vectors_ND, vectors_ND, settings.neighbors, exclude_self=True)
    sketch = suspicion_sketch(ratings, near, ids_N, settings)
    thresholds = suspicion_thresholds(sketch, transition)
    return suspicions(ratings, near, ids_N, thresholds, settings)


def suspicions(
    ratings_N: np.ndarray,
    neighbors: Neighbors,
    ids_N: np.ndarray,
    thresholds_C: np.ndarray,
    settings: SuspicionSettings | None = None,
    *,
    rows_M: np.ndarray | None = None,
) -> Suspicion:
    """Tests each rating in bootstrap replicates of its neighbors.

    A replicate draws rows by their id, so the outcome does not depend on the order of the rows.
    The neighbors are searched once, in all rows; the reference searches in each draw anew.

    Args:
        ratings_N: Observed ratings 0-5, -1 for unrated.
        neighbors: The nearest other rows of each of the M rows, as rows of ``ratings_N``.
            Duplicates must have been left out.
        ids_N: A distinct 64-bit integer a row.
        thresholds_C: From ``suspicion_thresholds``.
        settings: None: the defaults.
        rows_M: Which rows are tested, such as those of one cell beside its visitors; None: all N.
            The outcome is of these.

    Raises:
        ShapeError: Ratings, rows, neighbors and ids do not fit.

    Source: spec/lm-mixup.md, sections 8.4-8.6.
    """
    settings = settings or SuspicionSettings()
    ratings = check_ratings(ratings_N)
    own = ratings if rows_M is None else ratings[rows_M]
    thresholds, tally = np.asarray(thresholds_C), _Tally.empty(len(own))
    for tested, score, voted in bootstrap_scores(ratings, neighbors, ids_N, settings, rows_M):
        tally.add(tested, score_bins(score) >= thresholds[own[tested]], voted)
    return _outcome(own, tally, settings.cure_at)


def _suspicions_by_epoch(
    ratings: np.ndarray,
    vectors: np.ndarray,
    ids: np.ndarray,
    transition: Transition,
    settings: SuspicionSettings,
) -> Suspicion:
    """Rows are drawn without replacement, by hashes of their ids."""
    rated = np.flatnonzero(ratings != UNRATED)
    size = int(min(settings.draw_rows, settings.draw_share * len(rated)))
    tally = _Tally.empty(len(ratings))
    for draw in range(settings.draws if size > 1 else 0):
        drawn = np.sort(rated[np.argsort(hashes(ids[rated], draw), kind="stable")[:size]])
        near = top_k(vectors[drawn], vectors[drawn], settings.neighbors, exclude_self=True)
        score, voted = agreement(ratings[drawn], near)
        heard = ~np.isnan(score)
        drawn, score, voted = drawn[heard], score[heard], voted[heard]
        limits = _percentiles(score, ratings[drawn], transition)
        tally.add(drawn, score > limits[ratings[drawn]], voted)
    return _outcome(ratings, tally, settings.cure_at)


def _percentiles(score: np.ndarray, own: np.ndarray, transition: Transition) -> np.ndarray:
    rates = noise_rates(transition, np.bincount(own, minlength=RATING_CLASSES))
    limits = np.full(RATING_CLASSES, np.inf)
    for rating in np.unique(own):
        if not np.isnan(rates[rating]):
            limits[rating] = np.quantile(score[own == rating], 1 - rates[rating])
    return limits


@dataclass(frozen=True)
class _Tally:
    draws: np.ndarray
    flags: np.ndarray
    suggested: np.ndarray

    @classmethod
    def empty(cls, rows: int) -> _Tally:
        counts = np.zeros((2, rows), dtype=np.int64)
        return cls(counts[0], counts[1], np.zeros((rows, RATING_CLASSES), dtype=np.int64))

    def add(self, tested: np.ndarray, flagged: np.ndarray, voted: np.ndarray) -> None:
        self.draws[tested] += 1
        self.flags[tested[flagged]] += 1
        self.suggested[tested[flagged], voted[flagged]] += 1


def _outcome(ratings: np.ndarray, tally: _Tally, cure_at: float) -> Suspicion:
    rated, rows = ratings != UNRATED, np.arange(len(ratings))
    misrated = np.where(rated, (tally.flags + 1) / (tally.draws + 2), np.nan)
    suspicious = rated & (misrated > 0.5)
    shares = (tally.suggested + 1) / (tally.suggested.sum(axis=1) + RATING_CLASSES)[:, None]
    shares[rows[rated], ratings[rated]] = -1
    best = shares.argmax(axis=1)
    is_suggested = rated & (tally.suggested[rows, best] > 0)
    suggested = np.where(is_suggested, best, ratings)
    confidence = np.where(is_suggested, shares[rows, best] * misrated, 0.0)
    cured = suspicious & (confidence >= cure_at)
    return Suspicion(
        misrated_N=misrated.astype(np.float32),
        suspicious_N=suspicious,
        suggested_N=suggested.astype(np.int8),
        confidence_N=np.where(rated, confidence, np.nan).astype(np.float32),
        curated_N=np.where(cured, suggested, ratings).astype(np.int8),
        draws_N=tally.draws,
    )
