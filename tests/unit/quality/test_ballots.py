"""Votes and own ratings, counted: they add up, and give the quality that curation gives."""

import numpy as np
import pytest
from planted_ratings import topics

from mixup.errors import ShapeError
from mixup.quality.ballots import Ballots, ballot_quality
from mixup.quality.curation import curate
from mixup.quality.curation_settings import CurationSettings
from mixup.quality.neighbors import top_k
from mixup.quality.posterior import neighbor_votes
from mixup.quality.rater_errors import RaterErrors
from mixup.quality.transition import Transition, fit_transition


def as_rows(ballots):
    parts = (ballots.votes_BC.tolist(), ballots.own_B.tolist(), ballots.rows_B.tolist())
    return {(tuple(votes), own): rows for votes, own, rows in zip(*parts, strict=True)}


def test_equal_ballots_are_counted_together_and_parts_add_up():
    votes = np.array([[2, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 3], [2, 0, 0, 0, 1, 0]])
    own = np.array([4, -1, 4])
    whole = Ballots.of(votes, own)
    assert as_rows(whole) == {((2, 0, 0, 0, 1, 0), 4): 2, ((0, 0, 0, 0, 0, 3), -1): 1}
    parts = [Ballots.of(votes[row : row + 1], own[row : row + 1]) for row in (2, 0, 1)]
    assert as_rows(Ballots.sum([*parts, Ballots.none()])) == as_rows(whole)


def test_a_rating_that_t_lacks_votes_for_the_nearest_class():
    ballots = Ballots.of(np.array([[1, 2, 3, 4, 5, 6]]), np.array([0]))
    assert ballots.votes_for(np.array([1, 4])).tolist() == [[1 + 2 + 3, 4 + 5 + 6]]


def test_quality_is_that_of_curation():
    vectors, _, ratings = topics(300)
    ratings[::4] = -1
    rated = np.flatnonzero(ratings >= 0)
    own = np.full(300, -1)
    own[rated] = np.arange(len(rated))
    transition = fit_transition(vectors[rated], ratings[rated])
    near = top_k(vectors, vectors[rated], 16, own_M=own)
    votes = neighbor_votes(ratings[rated], near.indices_MK, np.arange(6))
    settings = CurationSettings(duplicate_similarity=1.0, effective_votes=2.5)
    found = curate(vectors, ratings, np.arange(300), transition=transition, settings=settings)
    for row in range(0, 300, 7):
        quality = ballot_quality(
            Ballots.of(votes[row : row + 1], ratings[row : row + 1]),
            transition,
            threshold=4,
            effective_votes=2.5,
            rater=RaterErrors(0.85),
        )
        assert quality == pytest.approx([found.quality_N[row]], abs=1e-6)


def test_no_ballot_has_no_quality():
    one = Transition(np.array([1, 4]), np.eye(2), np.array([0.5, 0.5]))
    quality = ballot_quality(
        Ballots.none(), one, threshold=4, effective_votes=None, rater=RaterErrors(0.85)
    )
    assert quality.shape == (0,)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ShapeError):
        Ballots.of(np.zeros((2, 6)), np.array([1]))
    with pytest.raises(ShapeError):
        Ballots.of(np.zeros((1, 5)), np.array([1]))
