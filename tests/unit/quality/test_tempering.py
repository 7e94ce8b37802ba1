"""The votes that neighbors are worth: by hand, over cells, and calibration on planted data."""

import numpy as np
import pytest
from planted_ratings import PRIOR, calibration_error, true_matrix, voted

from mixup.errors import ConfigError, ShapeError
from mixup.quality.posterior import at_least, posterior
from mixup.quality.tempering import VOTES_GRID, best_votes, tempering_sums
from mixup.quality.transition import Transition

TRANSITION = Transition(np.arange(6), true_matrix(), PRIOR)


def error_at(votes, truth, effective_votes):
    q = posterior(votes, TRANSITION, effective_votes=effective_votes)
    return calibration_error(at_least(q, np.arange(6), 4), truth >= 4)


@pytest.mark.parametrize("shared", [0.3, 0.5])
def test_the_choice_calibrates(shared):
    truth, votes, ratings = voted(20_000, shared=shared)
    chosen = best_votes(tempering_sums(votes, ratings, TRANSITION))
    assert chosen is not None
    assert chosen < 4
    error = error_at(votes, truth, chosen)
    assert error < 0.75 * error_at(votes, truth, 4.0)
    assert error < 0.5 * error_at(votes, truth, None)


def test_neighbors_that_never_miss_count_fully():
    truth, votes, ratings = voted(20_000, shared=1.0)
    chosen = best_votes(tempering_sums(votes, ratings, TRANSITION))
    assert chosen is not None
    assert chosen >= 8
    assert error_at(votes, truth, chosen) < 0.02


def test_by_hand():
    transition = Transition(
        np.array([1, 4]), np.array([[0.8, 0.2], [0.4, 0.6]]), np.array([0.5, 0.5])
    )
    # One vote for 1: q = (2/3, 1/3); half of it: in proportion to sqrt(.8) and sqrt(.4).
    half = np.sqrt(0.8) / (np.sqrt(0.8) + np.sqrt(0.4))
    found = tempering_sums(np.array([[1, 0]]), np.array([4]), transition, (0.5, 1.0))
    expected = [np.log(half * 0.2 + (1 - half) * 0.6), np.log(2 / 3 * 0.2 + 1 / 3 * 0.6)]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert best_votes(found, (0.5, 1.0)) == 0.5


def test_sums_of_cells_add_up():
    _, votes, ratings = voted(500, shared=0.5)
    parts = [
        tempering_sums(votes[rows], ratings[rows], TRANSITION)
        for rows in (slice(0, 120), slice(120, 121), slice(121, 500))
    ]
    np.testing.assert_allclose(sum(parts), tempering_sums(votes, ratings, TRANSITION))


def test_what_is_not_counted():
    transition = Transition(np.array([1, 4]), np.eye(2), np.array([0.5, 0.5]))
    votes = np.array([[3, 1], [0, 0], [2, 2]])
    found = tempering_sums(votes, np.array([-1, 1, 5]), transition)
    assert found.tolist() == [0] * len(VOTES_GRID)
    assert best_votes(found) is None


def test_what_does_not_fit_is_refused():
    votes, ratings = np.ones((2, 6)), np.array([1, 2])
    with pytest.raises(ShapeError):
        tempering_sums(votes, ratings[:1], TRANSITION)
    with pytest.raises(ConfigError):
        tempering_sums(votes, ratings, TRANSITION, ())
    with pytest.raises(ConfigError):
        tempering_sums(votes, ratings, TRANSITION, (0.0,))
    with pytest.raises(ShapeError):
        best_votes(np.array([1.0, np.nan]), (1.0, 2.0))


def test_rows_that_stand_for_several_count_as_often():
    _, votes, ratings = voted(300, shared=0.5)
    rows = np.arange(300) % 4
    counted = tempering_sums(votes, ratings, TRANSITION, rows_M=rows)
    repeated = tempering_sums(np.repeat(votes, rows, 0), np.repeat(ratings, rows), TRANSITION)
    np.testing.assert_allclose(counted, repeated)


def test_the_classes_of_a_cooccurrence_are_own_ratings():
    transition = Transition(
        np.array([1, 4]), np.array([[0.8, 0.2], [0.4, 0.6]]), np.array([0.5, 0.5])
    )
    # One vote for 1: q = (2/3, 1/3), and the row is rated 4.
    found = tempering_sums(np.array([[1, 0]]), np.array([4]), transition, (1.0,), is_pairs=True)
    np.testing.assert_allclose(found, [np.log(1 / 3)], atol=1e-9)
