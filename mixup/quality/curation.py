"""Score curation of one cell: duplicates, quality, long-tail score and tier of each example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixup.errors import ConfigError, ShapeError
from mixup.quality.long_tail import long_tail_scores
from mixup.quality.neighbors import check_order, near_duplicate_of, top_k, unit_vectors
from mixup.quality.posterior import (
    at_least,
    most_likely_class,
    neighbor_votes,
    posterior,
    with_own_rating,
)
from mixup.quality.transition import (
    RATING_CLASSES,
    UNRATED,
    Transition,
    check_ratings,
    fit_transition,
    nearest_classes,
)

TIERS = ("high", "low", "unrated", "duplicate")
REASONS = ("too_few_ratings", "one_rating_class")


@dataclass(frozen=True)
class CurationSettings:
    """The numbers of score curation; similarities are those of the encoder in use.

    Attributes:
        threshold: Lowest rating, 0-5, that counts as high quality.
        neighbors: Library neighbors that vote on a row.
        transition_neighbors: Neighbors counted for the transition.
        long_tail_neighbors: Neighbors averaged for the long-tail score.
        effective_votes: All votes on a row count together as at most so many; None: each fully.
        reliability: P(an observed rating is right).
        smoothing: Added to each count of the transition.
        min_rated: Smaller libraries do not vote.
        keep_at: Quality from which a row is high.
        margin: How far beyond ``keep_at`` quality must go to change a previous tier.
        duplicate_similarity: Cosine similarity from which a row is a near-duplicate.
    """

    threshold: int = 4
    neighbors: int = 16
    transition_neighbors: int = 3
    long_tail_neighbors: int = 15
    effective_votes: float | None = 4.0
    reliability: float = 0.85
    smoothing: float = 0.01
    min_rated: int = 20
    keep_at: float = 0.5
    margin: float = 0.05
    duplicate_similarity: float = 0.95

    def __post_init__(self) -> None:
        """Raises ConfigError where the tier could not be decided or nothing could vote."""
        if not 0 <= self.margin <= min(self.keep_at, 1 - self.keep_at):
            raise ConfigError(f"keep_at {self.keep_at} -/+ margin {self.margin} leaves 0 to 1")
        if not 1 <= self.threshold < RATING_CLASSES or self.min_rated < 2:
            raise ConfigError(
                f"threshold {self.threshold} must be 1 to 5, min_rated {self.min_rated} at least 2"
            )


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


@dataclass(frozen=True)
class Curation:
    """The outcome for each of N rows, visitors left out.

    Attributes:
        quality_N: float32 P(true rating >= threshold); NaN where unknown.
        confidence_N: float32 probability of the curated rating; NaN where unknown.
        curated_rating_N: int8: the own rating where observed, else the most likely class;
            -1 where unknown. The latter is never an observation.
        long_tail_N: float32 mean distance to the nearest rows that are not duplicates; NaN for
            the only row.
        duplicate_of_N: int64 row that represents this one, -1 for none; it may be a visitor.
        tier_N: One of ``TIERS``.
        reason_N: One of ``REASONS`` where quality is unknown, else None.
    """

    quality_N: np.ndarray
    confidence_N: np.ndarray
    curated_rating_N: np.ndarray
    long_tail_N: np.ndarray
    duplicate_of_N: np.ndarray
    tier_N: np.ndarray
    reason_N: np.ndarray


def curate(
    vectors_ND: np.ndarray,
    ratings_N: np.ndarray,
    order_N: np.ndarray,
    previous_tier_N: Sequence[str | None] | None = None,
    library: Library | None = None,
    transition: Transition | None = None,
    settings: CurationSettings | None = None,
    *,
    uids_N: Sequence[str] | None = None,
    visitors: int = 0,
) -> Curation:
    """Curates the rows of one cell; the outcome does not depend on their order.

    - Duplicates come first, and the oldest row represents them. They get a quality too, but their
      tier is ``duplicate``.
    - The library, unless given, is the oldest rated row of each group of duplicates: the
      representative itself, or, where that is unrated, the oldest rated duplicate, whose rating
      is still an observation of the same content. No row votes on itself.
    - Quality is the tempered KNN-Bayes posterior times the likelihood of the own rating.
    - A library of fewer than ``min_rated`` rows, or a transition of one class only, cannot tell
      good from bad. Then a rated row is judged by its own rating alone, with a uniform prior, and
      an unrated row is ``unrated``, for the reason given.
    - A tier changes only when quality passes ``keep_at`` by the margin: a row that was high stays
      so until quality < keep_at - margin, a low one until quality > keep_at + margin. Any other
      previous tier, or none, leaves high = quality >= keep_at.

    Args:
        vectors_ND: Unit vectors.
        ratings_N: Observed ratings 0-5, -1 for unrated.
        order_N: Distinct ranks, smallest = oldest.
        previous_tier_N: The tiers of an earlier run; None for the first.
        library: Who votes; None: the rated rows themselves.
        transition: Fitted before; None: fitted from the library. A rating that it lacks votes for
            the nearest class that it has (the lower of two).
        settings: None: the defaults.
        uids_N: The rows' uids, to find them in a library that is given.
        visitors: How many of the last rows are at home in another cell. They vote, represent
            duplicates and are neighbors, and have no outcome here.

    Raises:
        ShapeError: Arrays that do not fit each other, vectors that are not of unit norm, or
            ratings out of range.

    Source: spec/lm-mixup.md, sections 3.4a, 4.2, 8 and 9.
    """
    settings = settings or CurationSettings()
    vectors, ratings = unit_vectors(vectors_ND), check_ratings(ratings_N)
    rows = len(vectors)
    parts = [x for x in (ratings, previous_tier_N, uids_N) if x is not None]
    if any(len(part) != rows for part in parts):
        raise ShapeError(f"ratings, previous tiers and uids must have {rows} rows as the vectors")
    # Oldest first throughout: float sums, ties and so the outcome cannot depend on row order.
    by_age = np.argsort(check_order(order_N, rows), kind="stable")
    vectors, ratings = vectors[by_age], ratings[by_age]
    leader = near_duplicate_of(vectors, np.arange(rows), settings.duplicate_similarity)
    library, own = _library(vectors, ratings, leader, library, uids_N, by_age)
    home = np.flatnonzero(by_age < rows - visitors)
    judged = _judge(vectors[home], ratings[home], library, own[home], transition, settings)
    duplicate = leader[home] != home
    previous = None if previous_tier_N is None else np.asarray(previous_tier_N, object)
    held = None if previous is None else previous[by_age[home]]
    tier = _tiers(judged.quality, held, settings)
    tier[duplicate] = "duplicate"
    back = np.argsort(by_age[home])
    return Curation(
        quality_N=judged.quality.astype(np.float32)[back],
        confidence_N=judged.confidence.astype(np.float32)[back],
        curated_rating_N=judged.rating.astype(np.int8)[back],
        long_tail_N=_long_tail(vectors, leader, home, settings.long_tail_neighbors)[back],
        duplicate_of_N=np.where(duplicate, by_age[leader[home]], -1)[back],
        tier_N=tier[back],
        reason_N=judged.reason[back],
    )


@dataclass(frozen=True)
class _Judged:
    quality: np.ndarray
    confidence: np.ndarray
    rating: np.ndarray
    reason: np.ndarray


def _library(
    vectors: np.ndarray,
    ratings: np.ndarray,
    leader: np.ndarray,
    library: Library | None,
    uids_N: Sequence[str] | None,
    by_age: np.ndarray,
) -> tuple[Library, np.ndarray]:
    """The library, and for each row its own place in it (-1: not in it)."""
    own = np.full(len(vectors), -1)
    if library is None:
        members = _rated_leaders(ratings, leader)
        own[members] = np.arange(len(members))
        return Library(vectors[members], ratings[members]), own
    if len(library.ratings_L) != len(library.vectors_LD):
        raise ShapeError(f"{len(library.ratings_L)} ratings, {len(library.vectors_LD)} vectors")
    if library.uids is not None and uids_N is not None:
        place = {uid: index for index, uid in enumerate(library.uids)}
        own[:] = [place.get(uids_N[int(row)], -1) for row in by_age]
    return library, own


def _rated_leaders(ratings: np.ndarray, leader: np.ndarray) -> np.ndarray:
    """The oldest rated row of each group of duplicates, where rows are ordered by age."""
    rated = np.flatnonzero(ratings != UNRATED)
    _, first = np.unique(leader[rated], return_index=True)
    return np.sort(rated[first])


def library_rows(
    vectors_ND: np.ndarray, ratings_N: np.ndarray, order_N: np.ndarray, similarity: float
) -> np.ndarray:
    """The rows that vote: of each group of near-duplicates the oldest that is rated, ascending.

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
    return np.sort(by_age[_rated_leaders(ratings[by_age], leader)])


def _judge(
    vectors: np.ndarray,
    ratings: np.ndarray,
    library: Library,
    own: np.ndarray,
    transition: Transition | None,
    settings: CurationSettings,
) -> _Judged:
    reason = "too_few_ratings" if len(library.ratings_L) < settings.min_rated else None
    if reason is None and transition is None:
        transition = fit_transition(
            library.vectors_LD,
            library.ratings_L,
            neighbors=settings.transition_neighbors,
            smoothing=settings.smoothing,
        )
    if reason is None and transition is not None and len(transition.classes) < 2:
        reason = "one_rating_class"
    if reason is not None or transition is None:
        classes = np.arange(RATING_CLASSES)
        q = np.full((len(vectors), RATING_CLASSES), 1 / RATING_CLASSES)
    else:
        classes = transition.classes
        found = top_k(vectors, library.vectors_LD, settings.neighbors, own_M=own)
        voters = nearest_classes(library.ratings_L, classes)
        votes = neighbor_votes(voters, found.indices_MK, classes)
        q = posterior(votes, transition, effective_votes=settings.effective_votes)
    q = with_own_rating(q, ratings, classes, reliability=settings.reliability)
    return _judged(q, ratings, classes, settings.threshold, reason)


def _judged(
    q: np.ndarray, ratings: np.ndarray, classes: np.ndarray, threshold: int, reason: str | None
) -> _Judged:
    rating = np.where(ratings == UNRATED, most_likely_class(q, classes), ratings)
    # A curated rating that is not among the classes matches no column: probability 0.
    confidence = np.where(rating[:, None] == classes, q, 0.0).sum(axis=1)
    unknown = (ratings == UNRATED) & (reason is not None)
    reasons = np.full(len(ratings), None, dtype=object)
    reasons[unknown] = reason
    return _Judged(
        quality=np.where(unknown, np.nan, at_least(q, classes, threshold)),
        confidence=np.where(unknown, np.nan, confidence),
        rating=np.where(unknown, UNRATED, rating),
        reason=reasons,
    )


def _tiers(
    quality: np.ndarray, previous: np.ndarray | None, settings: CurationSettings
) -> np.ndarray:
    high = quality >= settings.keep_at
    if previous is not None:
        high = np.where(previous == "high", quality >= settings.keep_at - settings.margin, high)
        high = np.where(previous == "low", quality > settings.keep_at + settings.margin, high)
    tier = np.where(high, "high", "low").astype(object)
    tier[np.isnan(quality)] = "unrated"
    return tier


def _long_tail(vectors: np.ndarray, leader: np.ndarray, home: np.ndarray, k: int) -> np.ndarray:
    """Against representatives only; a duplicate leaves out the row that represents it."""
    base = np.unique(leader)
    if not len(home):
        return np.empty(0, dtype=np.float32)
    own = np.searchsorted(base, leader[home])
    return long_tail_scores(top_k(vectors[home], vectors[base], k, own_M=own), k)
