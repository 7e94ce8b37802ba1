"""Calibration: counts by hand, and predictions that come true where T is what was planted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixup.errors import ShapeError
from mixup.quality.calibration import (
    CALIBRATION_BINS,
    CalibrationCounts,
    calibration_counts,
    expected_calibration_error,
    predicted_at_least,
    wilson_interval,
)
from mixup.quality.curation import curate
from mixup.quality.curation_settings import CurationSettings
from mixup.quality.posterior import neighbor_votes, posterior
from mixup.quality.transition import GIVEN_RATING, Transition, rating_pairs, transition_of_pairs

CLASSES = np.array([1, 4])
ERRORS = np.array([[0.9, 0.1], [0.25, 0.75]])
PRIOR = np.array([0.7, 0.3])


def test_the_raters_errors_are_drawn_once_more():
    # 0.4 of class 1, which is rated 4 one time in ten; 0.6 of class 4, rated 4 three times in four.
    q = np.array([[0.4, 0.6], [1.0, 0.0]])
    found = predicted_at_least(q, Transition(CLASSES, ERRORS, PRIOR), 4)
    assert found == pytest.approx([0.4 * 0.1 + 0.6 * 0.75, 0.1])


def test_co_occurrence_already_speaks_of_observed_ratings():
    q = np.array([[0.4, 0.6], [1.0, 0.0]])
    found = predicted_at_least(q, Transition(CLASSES, ERRORS, PRIOR, GIVEN_RATING), 4)
    assert found == pytest.approx([0.6, 0.0])


@pytest.mark.parametrize(("threshold", "expected"), [(1, 1.0), (2, 0.49), (4, 0.49), (5, 0.0)])
def test_the_threshold_need_not_be_among_the_classes(threshold, expected):
    transition = Transition(CLASSES, ERRORS, PRIOR)
    assert predicted_at_least(np.array([[0.4, 0.6]]), transition, threshold)[0] == pytest.approx(
        expected
    )


def test_a_posterior_of_other_classes_is_refused():
    with pytest.raises(ShapeError):
        predicted_at_least(np.ones((2, 3)) / 3, Transition(CLASSES, ERRORS, PRIOR), 4)


def planted(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Observed ratings of rows and of one neighbor of each, of the same true class."""
    rng = np.random.default_rng(seed)
    true = rng.choice(2, rows, p=PRIOR)
    own, near = (CLASSES[(rng.random(rows) < ERRORS[true, 1]).astype(int)] for _ in range(2))
    return own, near


def error_of(predicted: np.ndarray, own: np.ndarray) -> float:
    counts = calibration_counts(predicted, own >= 4)
    found = expected_calibration_error(counts.rows_B, counts.predicted_B, counts.high_B)
    assert found is not None
    return found


def test_each_transition_predicts_what_is_observed_in_its_own_way_only():
    own, near = planted(40_000)
    rows = np.arange(len(own))
    pairs = rating_pairs(np.concatenate([own, near]), (rows + len(own))[:, None], rows)
    counted = transition_of_pairs(pairs, np.bincount(own, minlength=6))
    votes = neighbor_votes(near, rows[:, None], CLASSES)
    for transition in (counted, Transition(CLASSES, ERRORS, PRIOR)):
        other = Transition(
            transition.classes,
            transition.matrix_CC,
            transition.prior_C,
            "truth" if transition.given == GIVEN_RATING else GIVEN_RATING,
        )
        q = posterior(votes, transition)
        assert error_of(predicted_at_least(q, transition, 4), own) < 0.01
        assert error_of(predicted_at_least(q, other, 4), own) > 0.05


def test_counts_by_hand():
    found = calibration_counts(
        np.array([0.0, 0.05, 0.1, 0.999, 1.0, np.nan]),
        np.array([False, True, False, True, False, True]),
    )
    assert found.rows_B.tolist() == [2, 1, 0, 0, 0, 0, 0, 0, 0, 2]
    assert found.high_B.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert found.predicted_B.tolist() == [0.05, 0.1, 0, 0, 0, 0, 0, 0, 0, 1.999]
    # (|0.05 - 1| + |0.1 - 0| + |1.999 - 1|) / 5
    error = expected_calibration_error(found.rows_B, found.predicted_B, found.high_B)
    assert error == pytest.approx((0.95 + 0.1 + 0.999) / 5)


def test_no_row_has_no_error():
    none = CalibrationCounts.none()
    assert expected_calibration_error(none.rows_B, none.predicted_B, none.high_B) is None


@pytest.mark.parametrize(
    ("predicted", "high"), [([0.5], [True, False]), ([1.1], [True]), ([-0.1], [True])]
)
def test_what_is_no_probability_is_refused(predicted, high):
    with pytest.raises(ShapeError):
        calibration_counts(np.array(predicted), np.array(high))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), max_size=40), st.integers(0))
def test_counts_of_parts_add_up_exactly_in_any_order(rows, cut):
    predicted = np.array([row[0] for row in rows], np.float32)
    high = np.array([row[1] for row in rows], bool)
    at = cut % (len(rows) + 1)
    parts = [calibration_counts(predicted[p], high[p]) for p in (slice(at), slice(at, None))]
    whole = calibration_counts(predicted, high)
    for found in (parts[0] + parts[1], parts[1] + parts[0]):
        for name in ("rows_B", "millionths_B", "high_B"):
            assert getattr(found, name).tolist() == getattr(whole, name).tolist()
    assert whole.rows_B.sum() == len(rows)
    assert len(whole.rows_B) == CALIBRATION_BINS


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634)],
)
def test_wilson_interval(count, total, low, high):
    assert wilson_interval(count, total) == pytest.approx((low, high), abs=1e-4)


def test_no_trials_have_no_interval():
    assert wilson_interval(0, 0) is None


# --- in the curation of a cell -------------------------------------------------------------------


def topics(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of two topics, the even rows of a good one, and the topics."""
    rng = np.random.default_rng(seed)
    topic = np.arange(rows) % 2
    vectors = np.eye(2, 24)[topic] + 0.15 * rng.normal(size=(rows, 24))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), topic


def test_the_own_rating_is_predicted_without_itself():
    vectors, topic = topics(60)
    ratings = np.where(topic == 0, 5, 1)
    one = CurationSettings(neighbors=3, transition_neighbors=3)
    before = curate(vectors, ratings, np.arange(60), settings=one).predicted_N
    assert ((before > 0.5) == (ratings == 5)).all()
    fitted = Transition(np.array([1, 5]), np.array([[0.9, 0.1], [0.1, 0.9]]), np.array([0.5, 0.5]))
    given_T = curate(vectors, ratings, np.arange(60), transition=fitted, settings=one).predicted_N
    ratings[6] = 1
    after = curate(vectors, ratings, np.arange(60), transition=fitted, settings=one).predicted_N
    assert after[6] == given_T[6] > 0.5
    # Three votes for 5: q is nearly one-hot, so that what is left is the rater's error.
    assert given_T[0] == pytest.approx(0.9, abs=0.01)


def test_unrated_rows_and_duplicates_have_no_prediction():
    vectors, topic = topics(60)
    ratings = np.where(topic == 0, 5, 1)
    vectors, ratings = np.concatenate([vectors, vectors[:1]]), np.append(ratings, 5)
    ratings[4] = -1
    found = curate(vectors, ratings, np.arange(61))
    assert np.flatnonzero(np.isnan(found.predicted_N)).tolist() == [4, 60]
    assert found.predicted_N.dtype == np.float32


def test_where_nothing_votes_nothing_is_predicted():
    vectors, topic = topics(10)
    found = curate(vectors, np.where(topic == 0, 5, 1), np.arange(10))
    assert set(found.reason_N) == {None}  # all are rated, and judged by their own ratings
    assert np.isnan(found.predicted_N).all()


def test_duplicates_know_how_similar_they_are():
    vectors, topic = topics(40)
    near = vectors[3] + 0.1 * np.eye(24)[5]
    vectors = np.concatenate([vectors, vectors[:1], (near / np.linalg.norm(near))[None]])
    vectors = vectors.astype(np.float32)
    found = curate(vectors, np.append(np.where(topic == 0, 5, 1), [5, 1]), np.arange(42))
    assert np.flatnonzero(~np.isnan(found.duplicate_similarity_N)).tolist() == [40, 41]
    assert found.duplicate_similarity_N[40] == pytest.approx(1.0, abs=1e-6)
    expected = vectors[3].astype(np.float64) @ vectors[41]
    assert found.duplicate_similarity_N[41] == pytest.approx(expected, abs=1e-6)
