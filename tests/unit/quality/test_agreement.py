"""The agreement score by hand, noise rates, and thresholds from sketches that are added up."""

import numpy as np
import pytest
from planted_ratings import PRIOR, topics, true_matrix

from mixup.errors import ShapeError
from mixup.quality.agreement import (
    SKETCH_BINS,
    SuspicionSettings,
    agreement,
    noise_rates,
    suspicion_sketch,
    suspicion_thresholds,
)
from mixup.quality.neighbors import Neighbors, top_k
from mixup.quality.transition import Transition

TRANSITION = Transition(np.arange(6), true_matrix(), PRIOR)


def near(indices, similarities):
    return Neighbors(np.array(indices), np.array(similarities, dtype=np.float32))


def test_agreement_by_hand():
    # Row 0 is rated 2, its neighbors 2 and 4: v_2 = .8 + (2 * .8 - .5) = 1.9, v_4 = .5.
    found = near([[1, 2], [0, 2], [0, 1]], [[0.8, 0.5], [0.8, 0.4], [0.5, 0.4]])
    score, voted = agreement(np.array([2, 2, 4]), found)
    # Row 1: v_2 = .8 + 1.2, v_4 = .4. Row 2: v_4 = .6, v_2 = .9.
    cosine = [1.9 / np.hypot(1.9, 0.5), 2.0 / np.hypot(2.0, 0.4), 0.6 / np.hypot(0.6, 0.9)]
    np.testing.assert_allclose(score, -np.log(cosine), atol=1e-6)
    assert voted.tolist() == [2, 2, 2]


def test_a_weight_counts_a_neighbor_as_often():
    found = near([[1, 2], [0, 2], [0, 1]], [[0.8, 0.5], [0.8, 0.4], [0.5, 0.4]])
    score, voted = agreement(np.array([2, 2, 4]), found, np.array([1, 0, 3]))
    np.testing.assert_allclose(score[0], -np.log(1.1 / np.hypot(1.1, 1.5)), atol=1e-6)
    assert voted[0] == 4


def test_a_far_second_neighbor_takes_the_own_vote_away():
    found = near([[1, 2]] * 3, [[0.4, 0.9]] * 3)
    score, _ = agreement(np.array([5, 1, 1]), found)
    assert score[0] == pytest.approx(-np.log(1e-8))


def test_unrated_rows_neither_vote_nor_are_scored():
    found = near([[1, 2], [0, 2], [0, 1]], [[0.8, 0.5], [0.8, 0.4], [0.5, 0.4]])
    score, voted = agreement(np.array([2, -1, 4]), found)
    assert np.isnan(score).tolist() == [False, True, False]
    np.testing.assert_allclose(score[0], -np.log(1.1 / np.hypot(1.1, 0.5)), atol=1e-6)
    assert voted[1] == 2
    score, voted = agreement(np.array([2, -1, -1]), found)
    assert np.isnan(score).all()  # none of its neighbors is rated
    assert voted.tolist() == [-1, 2, 2]


def test_without_neighbors_there_is_no_score():
    score, voted = agreement(np.array([3]), near(np.empty((1, 0), int), np.empty((1, 0))))
    assert np.isnan(score).all()
    assert voted.tolist() == [-1]


def test_noise_rates_by_hand():
    transition = Transition(
        np.array([1, 4]), np.array([[0.8, 0.2], [0.4, 0.6]]), np.array([0.5, 0.5])
    )
    rates = noise_rates(transition, np.array([0, 60, 0, 0, 40, 0]))
    assert np.isnan(rates[[0, 2, 3, 5]]).all()
    np.testing.assert_allclose(rates[[1, 4]], [1 - 0.4 / 0.6, 1 - 0.3 / 0.4])
    rates = noise_rates(transition, np.array([0, 10, 0, 0, 90, 0]))
    assert rates[1] == 0.05  # more than all of them would be right


def test_a_rate_of_one_is_cut():
    transition = Transition(np.array([1, 4]), np.array([[0.5, 0.5], [1, 0]]), np.array([0.5, 0.5]))
    assert noise_rates(transition, np.array([0, 50, 0, 0, 50, 0]))[4] == 0.95


def test_thresholds_leave_the_flagged_share():
    sketch = np.zeros((6, SKETCH_BINS), dtype=int)
    sketch[1, :100], sketch[4, :100] = 60, 40
    transition = Transition(
        np.array([1, 4]), np.array([[0.8, 0.2], [0.4, 0.6]]), np.array([0.5, 0.5])
    )
    found = suspicion_thresholds(sketch, transition)
    # A third of class 1 is 33 whole bins, a quarter of class 4 is 25.
    assert found.tolist() == [SKETCH_BINS, 67, SKETCH_BINS, SKETCH_BINS, 75, SKETCH_BINS]


def test_ratings_that_are_all_errors_by_t_are_not_flagged_at_all():
    sketch = np.zeros((6, SKETCH_BINS), dtype=int)
    sketch[1, :100], sketch[4, :100] = 60, 2
    transition = Transition(
        np.array([1, 4]), np.array([[0.8, 0.2], [0.2, 0.8]]), np.array([1.0, 0.0])
    )
    found = suspicion_thresholds(sketch, transition)
    assert found[4] == SKETCH_BINS
    assert found[1] < SKETCH_BINS


def test_equal_scores_are_not_flagged():
    sketch = np.zeros((6, SKETCH_BINS), dtype=int)
    sketch[:, 7] = 100
    assert (suspicion_thresholds(sketch, TRANSITION) == 8).all()


def test_sketches_of_cells_add_up_and_flag_the_share():
    settings, parts, flagged, tested = SuspicionSettings(draws=5), [], 0, 0
    for seed in range(3):
        vectors, _, ratings = topics(800, seed=seed)
        found = top_k(vectors, vectors, 9, exclude_self=True)
        parts.append(suspicion_sketch(ratings, found, np.arange(800) + 800 * seed, settings))
    whole = np.sum(parts, axis=0)
    thresholds = suspicion_thresholds(whole, TRANSITION)
    rates = noise_rates(TRANSITION, whole.sum(axis=1))
    for rating in range(6):
        flagged, tested = whole[rating, thresholds[rating] :].sum(), whole[rating].sum()
        assert flagged <= rates[rating] * tested
        assert flagged >= (rates[rating] - 0.1) * tested


def test_what_does_not_fit_is_refused():
    found = near([[1], [0]], [[0.5], [0.5]])
    with pytest.raises(ShapeError):
        agreement(np.array([1, 2, 3]), found)
    with pytest.raises(ShapeError):
        agreement(np.array([1, 2]), near([[2], [0]], [[0.5], [0.5]]))
    with pytest.raises(ShapeError):
        suspicion_thresholds(np.zeros((6, 3)), TRANSITION)
    with pytest.raises(ShapeError):
        suspicion_sketch(np.array([1, 2]), found, np.arange(3))


def test_rows_beside_those_that_are_scored_are_neighbors_only():
    vectors, _, ratings = topics(400)
    rows, ids = np.arange(400)[::3], np.arange(400)
    found = top_k(vectors, vectors, 9, exclude_self=True)
    some = Neighbors(found.indices_MK[rows], found.similarities_MK[rows])
    whole, part = agreement(ratings, found), agreement(ratings, some, rows_M=rows)
    np.testing.assert_array_equal(part[0], whole[0][rows])
    np.testing.assert_array_equal(part[1], whole[1][rows])
    settings = SuspicionSettings(draws=5)
    rest = np.setdiff1d(np.arange(400), rows)
    others = Neighbors(found.indices_MK[rest], found.similarities_MK[rest])
    parts = [
        suspicion_sketch(ratings, near_rows, ids, settings, rows_M=of)
        for near_rows, of in ((some, rows), (others, rest))
    ]
    np.testing.assert_array_equal(sum(parts), suspicion_sketch(ratings, found, ids, settings))
