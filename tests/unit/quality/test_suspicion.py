"""Suspicious ratings: planted errors are found and cured, in any order of the rows."""

from dataclasses import fields

import numpy as np
import pytest
from planted_ratings import PRIOR, topics, true_matrix

from mixup.errors import ShapeError
from mixup.quality.agreement import SKETCH_BINS, SuspicionSettings
from mixup.quality.neighbors import Neighbors
from mixup.quality.suspicion import find_suspicions, suspicions
from mixup.quality.transition import Transition

TRANSITION = Transition(np.arange(6), true_matrix(), PRIOR)
ROWS = 1_500
VECTORS, TRUTH, RATINGS = topics(ROWS)
IDS = np.random.default_rng(5).integers(-(2**63), 2**63, ROWS)
FEWER = SuspicionSettings(draws=15)


def found_in(ratings, *, rows=None, faithful=False, settings=FEWER, transition=TRANSITION):
    rows = np.arange(len(ratings)) if rows is None else rows
    return find_suspicions(
        ratings[rows], VECTORS[rows], IDS[rows], transition, settings, faithful=faithful
    )


def test_outcome_by_hand():
    # Row 0, rated 0 among 3s, is flagged in each draw that has it and a neighbor.
    near = Neighbors(
        np.array([[1, 2], [2, 0], [1, 0]]),
        np.array([[0.9, 0.9], [0.95, 0.9], [0.95, 0.9]], dtype=np.float32),
    )
    thresholds = np.array([0, *[SKETCH_BINS] * 5])
    found = suspicions(np.array([0, 3, 3]), near, np.arange(3), thresholds)
    draws = found.draws_N[0]
    assert 10 < draws < 51
    assert found.misrated_N[0] == pytest.approx((draws + 1) / (draws + 2))
    assert found.suggested_N.tolist() == [3, 3, 3]
    # Its own vote of .9 is below no other's: 3 is voted by .9 x the weights of two rows.
    assert found.suspicious_N.tolist() == [True, False, False]
    assert found.misrated_N[1] == pytest.approx(1 / (found.draws_N[1] + 2))
    assert found.confidence_N[1:].tolist() == [0, 0]


def test_where_all_agree_with_it_another_class_is_not_suggested():
    near = Neighbors(
        np.array([[1, 2], [2, 0], [1, 0]]),
        np.array([[0.9, 0.9], [0.95, 0.9], [0.95, 0.9]], dtype=np.float32),
    )
    found = suspicions(np.array([3, 3, 3]), near, np.arange(3), np.zeros(6, dtype=int))
    assert found.suspicious_N.all()
    assert found.suggested_N.tolist() == [3, 3, 3]
    assert found.confidence_N.tolist() == [0, 0, 0]
    assert found.curated_N.tolist() == [3, 3, 3]


@pytest.mark.parametrize("faithful", [False, True])
def test_planted_errors_are_found_and_cured(faithful):
    found = found_in(RATINGS, faithful=faithful)
    wrong = RATINGS != TRUTH
    assert 0.25 < wrong.mean() < 0.4
    precision = wrong[found.suspicious_N].mean()
    recall = found.suspicious_N[wrong].mean()
    assert precision > 0.8
    assert recall > 0.7
    assert (found.curated_N == TRUTH).mean() > 0.85
    cured = found.curated_N != RATINGS
    assert (found.curated_N == TRUTH)[cured].mean() > 0.85
    assert (found.confidence_N[cured] >= 0.5).all()


@pytest.mark.parametrize("faithful", [False, True])
def test_rows_in_another_order(faithful):
    order = np.random.default_rng(1).permutation(ROWS)
    settings = SuspicionSettings(draws=5)
    whole = found_in(RATINGS, faithful=faithful, settings=settings)
    other = found_in(RATINGS, rows=order, faithful=faithful, settings=settings)
    for field in fields(whole):
        np.testing.assert_array_equal(
            getattr(other, field.name), getattr(whole, field.name)[order], field.name
        )


def test_cells_are_tested_on_their_own():
    # The outcome of a row depends on its neighbors and the thresholds, on no other row.
    rows = np.arange(40)
    near = Neighbors(
        np.stack([(rows // 4) * 4 + (rows + step) % 4 for step in (1, 2, 3)], axis=1),
        np.tile(np.array([0.9, 0.8, 0.7], dtype=np.float32), (40, 1)),
    )
    thresholds = np.full(6, 60)
    whole = suspicions(RATINGS[:40], near, IDS[:40], thresholds)
    half = Neighbors(near.indices_MK[:20], near.similarities_MK[:20])
    part = suspicions(RATINGS[:20], half, IDS[:20], thresholds)
    assert whole.suspicious_N.any()
    np.testing.assert_array_equal(part.misrated_N, whole.misrated_N[:20])
    np.testing.assert_array_equal(part.confidence_N, whole.confidence_N[:20])


@pytest.mark.parametrize("faithful", [False, True])
def test_one_rating_is_never_suspicious(faithful):
    one = Transition(np.array([3]), np.array([[1.0]]), np.array([1.0]))
    found = found_in(np.full(300, 3), faithful=faithful, transition=one)
    assert not found.suspicious_N.any()
    assert (found.curated_N == 3).all()


@pytest.mark.parametrize("faithful", [False, True])
def test_unrated_rows_are_never_suspicious(faithful):
    ratings = RATINGS.copy()
    ratings[::3] = -1
    found = found_in(ratings, faithful=faithful)
    assert found.suspicious_N.any()
    unrated = ratings == -1
    assert not found.suspicious_N[unrated].any()
    assert (found.curated_N[unrated] == -1).all()
    assert (found.suggested_N[unrated] == -1).all()
    assert np.isnan(found.misrated_N[unrated]).all()
    assert np.isnan(found.confidence_N[unrated]).all()
    assert not np.isnan(found.misrated_N[~unrated]).any()


@pytest.mark.parametrize("faithful", [False, True])
def test_a_class_that_the_transition_lacks_is_not_flagged(faithful):
    present = np.flatnonzero(np.arange(6) != 4)
    matrix = true_matrix()[np.ix_(present, present)]
    lacking = Transition(present, matrix / matrix.sum(axis=1, keepdims=True), PRIOR[present])
    found = found_in(RATINGS, faithful=faithful, transition=lacking)
    assert found.suspicious_N.any()
    assert not found.suspicious_N[RATINGS == 4].any()


@pytest.mark.parametrize("faithful", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 2, 5])
def test_fewer_rows_than_neighbors(rows, faithful):
    found = found_in(RATINGS, rows=np.arange(rows), faithful=faithful)
    assert found.curated_N.shape == (rows,)
    assert not np.isnan(found.misrated_N).any()
    if rows < 2:
        assert found.misrated_N.tolist() == [0.5] * rows
        assert not found.suspicious_N.any()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ShapeError):
        find_suspicions(RATINGS[:5], VECTORS[:6], IDS[:6], TRANSITION)
