"""The quality of rows: the KNN-Bayes posterior of their neighbors' votes and their own rating."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixup.quality.calibration import predicted_at_least
from mixup.quality.curation_settings import CurationSettings
from mixup.quality.library import Library
from mixup.quality.neighbors import top_k
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
    fit_transition,
    nearest_classes,
)

REASONS = ("too_few_ratings", "one_rating_class")


@dataclass(frozen=True)
class Judged:
    """The outcome for each of N rows.

    Attributes:
        quality: P(true rating >= threshold); NaN where unknown.
        confidence: The probability of the curated rating; NaN where unknown.
        rating: The curated rating, -1 where unknown.
        reason: One of ``REASONS`` where quality is unknown, else None.
        predicted: P(observed rating >= threshold) by the votes alone, before the own rating enters;
            NaN for an unrated row and where nothing votes.
    """

    quality: np.ndarray
    confidence: np.ndarray
    rating: np.ndarray
    reason: np.ndarray
    predicted: np.ndarray


def judge(
    vectors: np.ndarray,
    ratings: np.ndarray,
    curated: np.ndarray,
    library: Library,
    own: np.ndarray,
    transition: Transition | None,
    settings: CurationSettings,
) -> Judged:
    """Judge rows by those who vote, or where they cannot tell, by their own rating alone.

    Args:
        vectors: Unit vectors, (N, D).
        ratings: Observed ratings, -1 for unrated, (N,).
        curated: The same, where suspicious ones have been replaced.
        library: Who votes.
        own: Each row's own place in the library, which does not vote on it; -1: not in it.
        transition: T and p; None: fitted from the library.
        settings: The numbers.
    """
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
        predicted = np.full(len(vectors), np.nan)
    else:
        classes = transition.classes
        found = top_k(vectors, library.vectors_LD, settings.neighbors, own_M=own)
        voters = nearest_classes(library.ratings_L, classes)
        votes = neighbor_votes(voters, found.indices_MK, classes)
        q = posterior(votes, transition, effective_votes=settings.effective_votes)
        predicted = predicted_at_least(q, transition, settings.threshold)
        predicted[(ratings == UNRATED) | ~votes.any(axis=1)] = np.nan
    q = with_own_rating(q, ratings, classes, rater=settings.rater)
    return judged_by(q, predicted, curated, classes, settings.threshold, reason)


def judged_by(
    q: np.ndarray,
    predicted: np.ndarray,
    curated: np.ndarray,
    classes: np.ndarray,
    threshold: int,
    reason: str | None,
) -> Judged:
    """The outcome of P(class), with the own rating in it.

    Args:
        q: Of the C classes, (N, C).
        predicted: See ``Judged``.
        curated: The ratings that are kept, -1 for unrated, (N,).
        classes: The classes.
        threshold: Lowest rating that counts as high.
        reason: Why quality is unknown where a row is unrated; None: it is known.
    """
    rating = np.where(curated == UNRATED, most_likely_class(q, classes), curated)
    # A curated rating that is not among the classes matches no column: probability 0.
    confidence = np.where(rating[:, None] == classes, q, 0.0).sum(axis=1)
    unknown = (curated == UNRATED) & (reason is not None)
    reasons = np.full(len(curated), None, dtype=object)
    reasons[unknown] = reason
    return Judged(
        quality=np.where(unknown, np.nan, at_least(q, classes, threshold)),
        confidence=np.where(unknown, np.nan, confidence),
        rating=np.where(unknown, UNRATED, rating),
        reason=reasons,
        predicted=predicted,
    )
