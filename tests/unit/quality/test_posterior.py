"""The posterior on the vectors of spec/lm-mixup.md, section 9.1."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup.errors import ConfigError, ShapeError
from mixup.quality.posterior import (
    at_least,
    expected_class,
    most_likely_class,
    neighbor_votes,
    posterior,
    with_own_rating,
)
from mixup.quality.rater_errors import RaterErrors
from mixup.quality.transition import Transition

CLASSES = np.array([0, 2, 3, 4, 5])
TRANSITION = Transition(
    CLASSES,
    np.array(
        [
            [0.30, 0.30, 0.20, 0.15, 0.05],
            [0.05, 0.40, 0.30, 0.22, 0.03],
            [0.03, 0.15, 0.42, 0.37, 0.03],
            [0.02, 0.06, 0.22, 0.63, 0.07],
            [0.01, 0.04, 0.12, 0.58, 0.25],
        ]
    ),
    np.array([0.02, 0.10, 0.28, 0.55, 0.05]),
)


def released(*votes):
    return posterior(np.array([votes]), TRANSITION)


def test_posterior_of_the_spec():
    np.testing.assert_allclose(
        released(0, 1, 3, 11, 1)[0], [0, 0, 0.0106, 0.9756, 0.0138], atol=5e-5
    )


@pytest.mark.parametrize(
    ("votes", "best", "mean"),
    [
        ((0, 1, 3, 11, 1), 4, 4.0032),
        ((0, 0, 2, 10, 4), 5, 4.6579),
        ((0, 4, 8, 4, 0), 3, 2.8695),
        ((0, 0, 0, 16, 0), 4, 4.0235),
    ],
)
def test_expected_and_most_likely_class_of_the_spec(votes, best, mean):
    q = released(*votes)
    assert most_likely_class(q, CLASSES).tolist() == [best]
    assert expected_class(q, CLASSES)[0] == pytest.approx(mean, abs=5e-5)


def test_no_votes_give_the_prior():
    np.testing.assert_allclose(released(0, 0, 0, 0, 0)[0], TRANSITION.prior_C, atol=1e-9)


def test_effective_votes_temper_only_what_is_above_them():
    sixteen = np.array([[0, 4, 8, 4, 0]])
    four = np.array([[0, 1, 2, 1, 0]])
    tempered = posterior(sixteen, TRANSITION, effective_votes=4)
    np.testing.assert_allclose(tempered, posterior(four, TRANSITION))
    np.testing.assert_allclose(
        posterior(four, TRANSITION, effective_votes=9), released(0, 1, 2, 1, 0)
    )


def test_votes_are_counted_by_class():
    ratings = np.array([0, 2, 2, 5])
    found = neighbor_votes(ratings, np.array([[0, 1, 2], [3, 3, 1]]), CLASSES)
    assert found.tolist() == [[1, 2, 0, 0, 0], [0, 1, 0, 0, 2]]
    assert neighbor_votes(ratings, np.empty((2, 0)), CLASSES).tolist() == [[0] * 5] * 2


@pytest.mark.parametrize("rating", [1, -1])
def test_a_vote_that_has_no_class_is_refused(rating):
    with pytest.raises(ShapeError):
        neighbor_votes(np.array([0, rating]), np.array([[1]]), CLASSES)


def test_at_least():
    assert at_least(np.array([[0.1, 0.2, 0.3, 0.3, 0.1]]), CLASSES, 4)[0] == pytest.approx(0.4)
    assert at_least(np.array([[1.0]]), np.array([2]), 4).tolist() == [0.0]


def test_own_rating_by_hand():
    # Observed 5. If truly 0 of 0, 1 and 5, the wrong ratings 1 and 5 share .2 as 16:1; if truly 1,
    # the wrong ratings 0 and 5 as 8:1.
    classes = np.array([0, 1, 5])
    q = with_own_rating(np.full((1, 3), 1 / 3), np.array([5]), classes, rater=RaterErrors(0.8))
    likelihood = np.array([0.2 / 17, 0.2 / 9, 0.8])
    np.testing.assert_allclose(q, [likelihood / likelihood.sum()])
    # A rater who gives two classes takes one for the other.
    q = with_own_rating(
        np.array([[0.5, 0.5]]), np.array([5]), np.array([0, 5]), rater=RaterErrors(0.8)
    )
    np.testing.assert_allclose(q, [[0.2, 0.8]])


def test_own_rating_outside_the_classes_counts_as_the_nearest():
    even, rater = np.full((1, 5), 0.2), RaterErrors(0.85)
    q = with_own_rating(even, np.array([1]), CLASSES, rater=rater)
    nearest = with_own_rating(even, CLASSES[:1], CLASSES, rater=rater)
    np.testing.assert_array_equal(q, nearest)


def test_unrated_rows_stay():
    before = np.array([[0.1, 0.2, 0.3, 0.3, 0.1]])
    np.testing.assert_allclose(
        with_own_rating(before, np.array([-1]), CLASSES, rater=RaterErrors(0.9)), before
    )


@given(st.lists(st.integers(0, 30), min_size=5, max_size=5), st.integers(-1, 5))
def test_posteriors_are_distributions(votes, own):
    q = posterior(np.array([votes]), TRANSITION, effective_votes=4.0)
    q = with_own_rating(q, np.array([own]), CLASSES, rater=RaterErrors(0.85))
    assert (q >= 0).all()
    assert q.sum() == pytest.approx(1)


@given(st.permutations(range(5)))
def test_renaming_classes_renames_the_posterior(permutation):
    p = np.array(permutation)
    renamed = Transition(CLASSES[p], TRANSITION.matrix_CC[np.ix_(p, p)], TRANSITION.prior_C[p])
    votes = np.array([[0, 1, 3, 11, 1]])
    np.testing.assert_allclose(
        posterior(votes[:, p], renamed), posterior(votes, TRANSITION)[:, p], atol=1e-12
    )


def test_what_does_not_fit_is_refused():
    with pytest.raises(ShapeError):
        posterior(np.ones((1, 4)), TRANSITION)
    with pytest.raises(ShapeError):
        posterior(np.full((1, 5), np.nan), TRANSITION)
    with pytest.raises(ConfigError):
        posterior(np.ones((1, 5)), TRANSITION, effective_votes=0)
    with pytest.raises(ShapeError):
        with_own_rating(np.ones((1, 5)), np.array([1, 2]), CLASSES, rater=RaterErrors(0.8))
    with pytest.raises(ConfigError):
        with_own_rating(np.ones((1, 5)), np.array([1]), CLASSES, rater=RaterErrors(1.0))
