"""What rows tell of ratings, as counts that add up over cells, and what is fitted on their sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixup.quality.agreement import SuspicionSettings, suspicion_sketch
from mixup.quality.ballots import Ballots
from mixup.quality.consensus import consensus_counts
from mixup.quality.library import representatives
from mixup.quality.neighbors import Neighbors, top_k
from mixup.quality.posterior import neighbor_votes
from mixup.quality.rater_errors import RaterErrors
from mixup.quality.rating_noise import noise_of, rating_noise
from mixup.quality.rating_test import pool_thresholds
from mixup.quality.shrinkage import transition_of
from mixup.quality.tempering import best_votes, tempering_sums
from mixup.quality.transition import (
    RATING_CLASSES,
    UNRATED,
    Transition,
    rating_pairs,
    transition_of_pairs,
)
from mixup.stages.cell import CellSettings
from mixup.stages.reference import RatingFit

BOOTSTRAP = 100
"""Replicates of the bootstrap of T and p."""


@dataclass(frozen=True)
class RatingCounts:
    """What some rated rows and their neighbors say of ratings; counts of parts are added up.

    Attributes:
        pairs: ``rating_pairs`` of the rows.
        ratings_C: How many of these have each of the six ratings.
        triples_BCCC: ``consensus_counts`` of the rows.
        sketch_CB: ``suspicion_sketch`` of the rows.
        ballots: Of these and the unrated rows, of a draw where the pool is large.
    """

    pairs: np.ndarray
    ratings_C: np.ndarray
    triples_BCCC: np.ndarray
    sketch_CB: np.ndarray
    ballots: Ballots

    @classmethod
    def sum(cls, parts: Sequence[RatingCounts]) -> RatingCounts:
        """The counts of all parts, at least one."""
        return cls(
            np.sum([part.pairs for part in parts], axis=0),
            np.sum([part.ratings_C for part in parts], axis=0),
            np.sum([part.triples_BCCC for part in parts], axis=0),
            np.sum([part.sketch_CB for part in parts], axis=0),
            Ballots.sum([part.ballots for part in parts]),
        )


@dataclass(frozen=True)
class CountedRows:
    """The counts of a cell's own rows, and which rows vote in it or may become originals.

    Attributes:
        counts: The counts.
        voters: Rows that vote, visitors included.
        cast: Its own rows of which the ballots were counted.
    """

    counts: RatingCounts
    voters: np.ndarray
    cast: np.ndarray


def row_ids(uids_N: Sequence[str]) -> np.ndarray:
    """The leading 64 bits of uids: what decides a row's draws, wherever it is counted."""
    return np.array([int(uid[:16], 16) for uid in uids_N], np.uint64)


def count_rows(
    vectors_ND: np.ndarray,
    ratings_N: np.ndarray,
    ages_N: np.ndarray,
    uids_N: Sequence[str],
    home: int,
    settings: CellSettings,
    cast_N: np.ndarray | None = None,
) -> CountedRows:
    """Count the ratings of rows and of their nearest others, near-duplicates left out of both.

    Where fewer than ``min_rated`` rows may vote no rating is tested later and the library of the
    whole pool votes, which there is not yet: the sketch and the ballots are then empty.

    Args:
        vectors_ND: Unit vectors.
        ratings_N: Observed ratings, -1 for unrated.
        ages_N: Distinct ranks, smallest = oldest.
        uids_N: The rows' uids.
        home: So many of the first rows are counted; the others are neighbors only.
        settings: What decides.
        cast_N: Of which rows the ballots are counted; None: of all.
    """
    found = representatives(vectors_ND, ratings_N, ages_N, settings.similarity.near_duplicate)
    voters, ratings_N = found.voters, np.asarray(ratings_N)
    vectors, ratings = vectors_ND[voters], ratings_N[voters]
    own = np.flatnonzero(voters < home)
    pairs, test = settings.curate.transition_neighbors, SuspicionSettings()
    near = top_k(vectors[own], vectors, max(_TRIPLE, pairs, test.neighbors), own_M=own)
    observed = np.full((len(own), _TRIPLE), UNRATED)
    width = min(_TRIPLE, near.indices_MK.shape[1])
    observed[:, :width] = ratings[near.indices_MK[:, :_TRIPLE]]
    ids = row_ids([uids_N[int(row)] for row in voters])
    first, second = observed.T
    tested = own if len(voters) >= settings.curate.min_rated else own[:0]
    few = Neighbors(near.indices_MK[: len(tested)], near.similarities_MK[: len(tested)])
    cast = found.leaders[found.leaders < home]
    if cast_N is not None:
        cast = cast[cast_N[cast]]
    counts = RatingCounts(
        pairs=rating_pairs(ratings, near.indices_MK[:, :pairs], own),
        ratings_C=np.bincount(ratings[own], minlength=RATING_CLASSES),
        triples_BCCC=consensus_counts(ratings[own], first, second, ids[own], replicates=BOOTSTRAP),
        sketch_CB=suspicion_sketch(ratings, few, ids, test, rows_M=tested),
        ballots=_ballots(vectors_ND, ratings_N, voters, cast, settings),
    )
    return CountedRows(counts, voters, cast)


def _ballots(
    vectors_ND: np.ndarray,
    ratings_N: np.ndarray,
    voters: np.ndarray,
    rows: np.ndarray,
    settings: CellSettings,
) -> Ballots:
    if len(voters) < settings.curate.min_rated or not len(rows):
        return Ballots.none()
    own = np.full(len(vectors_ND), -1)
    own[voters] = np.arange(len(voters))
    wanted = settings.curate.neighbors
    near = top_k(vectors_ND[rows], vectors_ND[voters], wanted, own_M=own[rows]).indices_MK
    votes = neighbor_votes(ratings_N[voters], near, np.arange(RATING_CLASSES))
    return Ballots.of(votes, ratings_N[rows])


_TRIPLE = 2  # neighbors beside the row itself


def fit_ratings(counts: RatingCounts, settings: CellSettings) -> RatingFit:
    """What the counts of a whole pool tell of its ratings."""
    config = settings.curate
    transition = transition_of_pairs(counts.pairs, counts.ratings_C, smoothing=config.smoothing)
    chosen, is_pairs = transition_of(counts.triples_BCCC), True
    if config.transition == "consensus" and chosen.transition is not None:
        transition, is_pairs = chosen.transition, False
    noise = rating_noise(chosen)
    if config.reliability != "auto" and len(transition.classes) > 1:
        noise = noise_of(RaterErrors(config.reliability), counts.ratings_C, source="stated")
    return RatingFit(
        transition=transition,
        noise=noise,
        test=pool_thresholds(counts.sketch_CB, noise),
        effective_votes=_effective_votes(counts.ballots, transition, is_pairs=is_pairs),
        ballots=counts.ballots,
    )


def _effective_votes(ballots: Ballots, transition: Transition, *, is_pairs: bool) -> float | None:
    votes = ballots.votes_for(transition.classes)
    return best_votes(
        tempering_sums(votes, ballots.own_B, transition, rows_M=ballots.rows_B, is_pairs=is_pairs)
    )
