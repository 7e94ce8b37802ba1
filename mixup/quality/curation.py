"""Score curation of one cell: duplicates, quality, long-tail score and tier of each example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixup.errors import ShapeError
from mixup.quality.curation_settings import CurationSettings
from mixup.quality.knn_bayes import Judged, judge, judged_by
from mixup.quality.library import Library, oldest_rated
from mixup.quality.long_tail import long_tail_scores
from mixup.quality.neighbors import check_order, near_duplicate_of, top_k, unit_vectors
from mixup.quality.posterior import at_least, with_own_rating
from mixup.quality.rating_test import RatingOutcome, RatingTest, ratings_after_test
from mixup.quality.regression import Regression, folds_of_rated
from mixup.quality.threshold import tiers
from mixup.quality.transition import UNRATED, Transition, check_ratings

TIERS = ("high", "low", "unrated", "duplicate")
ORIGINS = ("own", "neighbors", "posterior")


@dataclass(frozen=True)
class Curation:
    """The outcome for each of N rows, visitors left out.

    Attributes:
        quality_N: float32 P(true rating >= threshold); NaN where unknown.
        confidence_N: float32 probability of the curated rating; NaN where unknown.
        curated_rating_N: int8; -1 where unknown. What it is says ``origin_N``.
        origin_N: One of ``ORIGINS``, None where the rating is unknown. ``own``: the rating that was
            observed. ``neighbors``: what they suggest in place of an observed rating that is
            suspicious. ``posterior``: the most likely class of an unrated row. Only the first is
            an observation, and only observations vote.
        misrated_N: float32 share of the tests in which the own rating was suspicious; NaN where it
            was not tested: an unrated row, one whose rating a near-duplicate stands for, or a cell
            with too few ratings. As the next three, see ``Suspicion``.
        suspicious_N: Whether it is more than half.
        suggested_rating_N: int8, -1 where not tested or never suspicious.
        suggested_confidence_N: float32 of the suggestion; NaN where there is none.
        long_tail_N: float32 mean distance to the nearest rows that are not duplicates; NaN for
            the only row.
        duplicate_of_N: int64 row that represents this one, -1 for none; it may be a visitor.
        tier_N: One of ``TIERS``.
        reason_N: One of ``REASONS`` where quality is unknown, else None.
        predicted_N: float32 P(observed rating >= threshold) by the neighbors alone, to be held
            against the rating that was observed; NaN for an unrated row, a duplicate, and where
            nothing votes.
        duplicate_similarity_N: float32 cosine similarity to the row that represents this one; NaN
            for none.
    """

    quality_N: np.ndarray
    confidence_N: np.ndarray
    curated_rating_N: np.ndarray
    origin_N: np.ndarray
    misrated_N: np.ndarray
    suspicious_N: np.ndarray
    suggested_rating_N: np.ndarray
    suggested_confidence_N: np.ndarray
    long_tail_N: np.ndarray
    duplicate_of_N: np.ndarray
    tier_N: np.ndarray
    reason_N: np.ndarray
    predicted_N: np.ndarray
    duplicate_similarity_N: np.ndarray


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
    fallback: Library | None = None,
    test: RatingTest | None = None,
    ids_N: np.ndarray | None = None,
    regression: Regression | None = None,
) -> Curation:
    """Curates the rows of one cell; the outcome does not depend on their order.

    - Duplicates come first, and the oldest row represents them. They get a quality too, but their
      tier is ``duplicate``.
    - The library, unless given, is the oldest rated row of each group of duplicates: the
      representative itself, or, where that is unrated, the oldest rated duplicate, whose rating
      is still an observation of the same content. No row votes on itself. Where these are fewer
      than ``min_rated``, the fallback votes, if there is one.
    - The ratings of those who vote are tested: a suspicious one is replaced by what its neighbors
      suggest, if they are sure enough. The suggestion is the curated rating and no more: votes and
      quality are those of observed ratings, whose errors T and ``rater`` already weigh. With
      curated ratings in their place quality ranked real rows worse (AUC 0.90 against 0.93).
    - Quality is the tempered KNN-Bayes posterior times the likelihood of the own rating. A
      regression, where one is given, takes the posterior's place; it tells a rated row by the
      model that did not see that row's fold.
    - A library of fewer than ``min_rated`` rows, or a transition of one class only, cannot tell
      good from bad. Then a rated row is judged by its own rating alone, with a uniform prior, and
      an unrated row is ``unrated``, for the reason given.
    - A tier changes only when quality passes ``keep_at`` by the margin (``threshold.tiers``).

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
        fallback: Who votes where too few of the rated rows may; of the whole pool.
        test: How ratings are tested; None: they are not.
        ids_N: A distinct 64-bit integer a row, needed for a test.
        regression: Fitted before; it needs uids. None: votes tell quality.

    Raises:
        ShapeError: Arrays that do not fit each other, vectors that are not of unit norm, or
            ratings out of range.

    Source: spec/lm-mixup.md, sections 3.4a, 4.2, 8 and 9.
    """
    settings = settings or CurationSettings()
    vectors, ratings = unit_vectors(vectors_ND), check_ratings(ratings_N)
    rows = len(vectors)
    parts = [x for x in (ratings, previous_tier_N, uids_N, ids_N) if x is not None]
    if any(len(part) != rows for part in parts) or (test is not None and ids_N is None):
        raise ShapeError(
            f"ratings, previous tiers, uids and ids must have {rows} rows as the vectors"
        )
    # Oldest first throughout: float sums, ties and so the outcome cannot depend on row order.
    by_age = np.argsort(check_order(order_N, rows), kind="stable")
    vectors, ratings = vectors[by_age], ratings[by_age]
    leader = near_duplicate_of(vectors, np.arange(rows), settings.duplicate_similarity)
    voters = oldest_rated(ratings, leader)
    is_home = by_age < rows - visitors
    home = np.flatnonzero(is_home)
    outcome = RatingOutcome.untested(ratings)
    if test is not None and ids_N is not None and len(voters) >= settings.min_rated:
        ids = np.asarray(ids_N)[by_age]
        outcome = ratings_after_test(vectors, ratings, ids, voters, is_home[voters], test)
    if library is None and len(voters) < settings.min_rated:
        library = fallback
    library, own = _library(vectors, ratings, voters, library, uids_N, by_age)
    curated = outcome.curated_N[home]
    if regression is None:
        near, given = own[home], ratings[home]
        judged = judge(vectors[home], given, curated, library, near, transition, settings)
    else:
        if uids_N is None:
            raise ShapeError("a regression needs uids, to leave the fold of a rated row out")
        uids = [uids_N[int(row)] for row in by_age[home]]
        judged = _regressed(vectors[home], ratings[home], curated, uids, regression, settings)
    duplicate = leader[home] != home
    previous = None if previous_tier_N is None else np.asarray(previous_tier_N, object)
    held = None if previous is None else previous[by_age[home]]
    tier = tiers(judged.quality, held, keep_at=settings.keep_at, margin=settings.margin)
    tier[duplicate] = "duplicate"
    back = np.argsort(by_age[home])
    there = home[back]
    return Curation(
        quality_N=judged.quality.astype(np.float32)[back],
        confidence_N=judged.confidence.astype(np.float32)[back],
        curated_rating_N=judged.rating.astype(np.int8)[back],
        origin_N=_origins(judged.rating, ratings[home], curated)[back],
        misrated_N=outcome.misrated_N[there],
        suspicious_N=outcome.suspicious_N[there],
        suggested_rating_N=outcome.suggested_N[there],
        suggested_confidence_N=outcome.confidence_N[there],
        long_tail_N=_long_tail(vectors, leader, home, settings.long_tail_neighbors)[back],
        duplicate_of_N=np.where(duplicate, by_age[leader[home]], -1)[back],
        tier_N=tier[back],
        reason_N=judged.reason[back],
        predicted_N=np.where(duplicate, np.nan, judged.predicted).astype(np.float32)[back],
        duplicate_similarity_N=_similarities(vectors, home, leader[home], duplicate)[back],
    )


def _regressed(
    vectors: np.ndarray,
    ratings: np.ndarray,
    curated: np.ndarray,
    uids: Sequence[str],
    regression: Regression,
    settings: CurationSettings,
) -> Judged:
    classes = regression.classes
    q = regression.probabilities(vectors, folds_of_rated(ratings, uids))
    predicted = at_least(regression.observed(q), classes, settings.threshold)
    predicted[ratings == UNRATED] = np.nan
    q = with_own_rating(q, ratings, classes, rater=settings.rater)
    return judged_by(q, predicted, curated, classes, settings.threshold, None)


def _similarities(
    vectors: np.ndarray, rows: np.ndarray, leaders: np.ndarray, duplicate: np.ndarray
) -> np.ndarray:
    found = np.full(len(rows), np.nan, dtype=np.float32)
    pairs = (vectors[rows[duplicate]] * vectors[leaders[duplicate]]).sum(axis=1)
    found[duplicate] = np.minimum(pairs, 1.0)  # rounding would make equal rows more than equal
    return found


def _origins(rating: np.ndarray, own: np.ndarray, curated: np.ndarray) -> np.ndarray:
    found = np.where(own == curated, "own", "neighbors").astype(object)
    found[own == UNRATED] = "posterior"
    found[rating == UNRATED] = None
    return found


def _library(
    vectors: np.ndarray,
    ratings: np.ndarray,
    voters: np.ndarray,
    library: Library | None,
    uids_N: Sequence[str] | None,
    by_age: np.ndarray,
) -> tuple[Library, np.ndarray]:
    """The library, and for each row its own place in it (-1: not in it)."""
    own = np.full(len(vectors), -1)
    if library is None:
        own[voters] = np.arange(len(voters))
        return Library(vectors[voters], ratings[voters]), own
    if library.uids is not None and uids_N is not None:
        place = {uid: index for index, uid in enumerate(library.uids)}
        own[:] = [place.get(uids_N[int(row)], -1) for row in by_age]
    return library, own


def _long_tail(vectors: np.ndarray, leader: np.ndarray, home: np.ndarray, k: int) -> np.ndarray:
    """Against representatives only; a duplicate leaves out the row that represents it."""
    base = np.unique(leader)
    if not len(home):
        return np.empty(0, dtype=np.float32)
    own = np.searchsorted(base, leader[home])
    return long_tail_scores(top_k(vectors[home], vectors[base], k, own_M=own), k)
