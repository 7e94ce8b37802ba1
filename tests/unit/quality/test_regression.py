"""The regression on embeddings: by hand, planted classes and noise, folds, and what it refuses."""

import numpy as np
import pytest
from planted_ratings import calibration_error, rated

from mixup.errors import ShapeError
from mixup.quality.regression import FOLDS, STRENGTHS, Regression, fit_regression, folds_of
from mixup.quality.transition import UNRATED

ERRORS = np.array([[0.7, 0.2, 0.1], [0.15, 0.7, 0.15], [0.1, 0.2, 0.7]])
CLASSES = np.array([1, 3, 4])


def planted(rows, *, slope=6.0, seed=0, width=8):
    """Unit vectors, and classes 0-2 that are drawn by a logistic model of them; its chances too."""
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(rows, width))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    logits = slope * vectors[:, :3]
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (random.random((rows, 1)) > np.cumsum(chances, axis=1)).sum(axis=1)
    return vectors.astype(np.float32), np.minimum(truth, 2), chances, random


def fitted(vectors, columns, **more):
    return fit_regression(
        vectors, CLASSES[columns], np.arange(len(vectors)) % FOLDS, CLASSES, **more
    )


def unseen(rows):
    return np.full(rows, UNRATED)


def test_the_chances_of_a_planted_model_are_found():
    vectors, truth, chances, _ = planted(4_000)
    found = fitted(vectors[:3_000], truth[:3_000])
    q = found.probabilities(vectors[3_000:], unseen(1_000))
    assert np.abs(q - chances[3_000:]).mean() < 0.03
    np.testing.assert_allclose(q.sum(axis=1), 1)


def test_vectors_that_say_nothing_leave_the_shares():
    vectors = np.tile(np.array([[0.6, 0.8]], np.float32), (300, 1))
    columns = np.repeat([0, 1, 2], [60, 90, 150])
    found = fitted(vectors, columns[np.random.default_rng(0).permutation(300)])
    q = found.probabilities(vectors[:1], unseen(1))
    np.testing.assert_allclose(q, [[0.2, 0.3, 0.5]], atol=0.01)


def test_two_rows_by_hand():
    """Opposite vectors, one of each class: w = (g, -g) with strength * g = 2 sigmoid(-2 g)."""
    vectors = np.array([[1.0], [-1.0]], np.float32)
    found = fit_regression(
        vectors, np.array([1, 4]), np.zeros(2, int), np.array([1, 4]), None, [0.5]
    )
    g = 0.0
    for _ in range(200):
        g += 0.1 * (2 / (1 + np.exp(2 * g)) - 0.5 * g)
    np.testing.assert_allclose(found.weights_FCD[0], [[g], [-g]], atol=2e-3)
    np.testing.assert_allclose(found.offsets_FC[0, 0], found.offsets_FC[0, 1], atol=1e-3)


def test_known_errors_of_the_rater_are_undone():
    vectors, truth, _, random = planted(6_000, slope=8.0)
    heard = rated(truth, ERRORS, random)
    errors = []
    for matrix in (ERRORS, None):
        found = fitted(vectors[:5_000], heard[:5_000], errors_CC=matrix)
        high = found.probabilities(vectors[5_000:], unseen(1_000))[:, 2]
        errors.append(calibration_error(high, truth[5_000:] == 2))
    assert errors[0] < 0.05
    assert errors[0] < 0.5 * errors[1]


def test_no_row_is_judged_by_what_it_was_rated():
    vectors, truth, _, _ = planted(200)
    folds, changed = np.arange(200) % FOLDS, truth.copy()
    changed[7] = (truth[7] + 1) % 3
    q, other = (
        fitted(vectors, columns, strengths=[1.0]).probabilities(vectors, folds)
        for columns in (truth, changed)
    )
    np.testing.assert_array_equal(q[folds == folds[7]], other[folds == folds[7]])
    assert np.abs(q[folds != folds[7]] - other[folds != folds[7]]).max() > 1e-4


def test_the_order_of_rows_does_not_matter():
    vectors, truth, _, random = planted(400)
    folds, order = np.arange(400) % FOLDS, random.permutation(400)
    one = fit_regression(vectors, CLASSES[truth], folds, CLASSES)
    two = fit_regression(vectors[order], CLASSES[truth][order], folds[order], CLASSES)
    assert one.strength == two.strength
    np.testing.assert_allclose(
        one.probabilities(vectors, folds), two.probabilities(vectors, folds), atol=5e-3
    )


def test_the_prior_is_as_strong_as_the_vectors_say_little():
    vectors, truth, _, random = planted(1_000)
    assert fitted(vectors, random.permutation(truth)).strength == max(STRENGTHS)
    assert fitted(vectors, truth).strength < max(STRENGTHS)


def test_a_class_of_one_row_and_a_rating_outside_the_classes():
    vectors, truth, _, _ = planted(100)
    ratings = CLASSES[truth % 2]
    ratings[3], ratings[4] = 4, 5  # 5 is not among the classes; 4 is the nearest
    found = fit_regression(vectors, ratings, np.arange(100) % FOLDS, CLASSES)
    q = found.probabilities(vectors, np.arange(100) % FOLDS)
    assert (q > 1e-3).all()
    ratings[4] = 4
    again = fit_regression(vectors, ratings, np.arange(100) % FOLDS, CLASSES)
    np.testing.assert_array_equal(again.weights_FCD, found.weights_FCD)


def test_a_class_that_no_row_has_keeps_a_chance():
    vectors, truth, _, _ = planted(100)
    found = fitted(vectors, truth % 2)
    q = found.probabilities(vectors, unseen(100))
    # About a third of one row in a hundred; without the zero row it sinks to nothing.
    assert (q[:, 2] > 1e-3).all()
    assert (q[:, 2] < 0.02).all()


def test_folds_come_from_the_uids():
    uids = [f"{number:015x}" + 17 * "f" for number in (0, 4, 5, 7)]
    assert folds_of(uids).tolist() == [0, 4, 0, 2]
    assert folds_of([]).tolist() == []


@pytest.mark.parametrize("fault", ["one class", "no rows", "lengths", "errors", "nan", "unrated"])
def test_what_cannot_be_fitted(fault):
    vectors, truth, _, _ = planted(30)
    ratings, folds, classes, errors = CLASSES[truth], np.arange(30) % FOLDS, CLASSES, None
    if fault == "one class":
        classes = CLASSES[:1]
    elif fault == "no rows":
        vectors, ratings, folds = vectors[:0], ratings[:0], folds[:0]
    elif fault == "lengths":
        folds = folds[1:]
    elif fault == "errors":
        errors = np.eye(2)
    elif fault == "nan":
        vectors[3] = np.nan
    else:
        ratings[3] = UNRATED
    with pytest.raises(ShapeError):
        fit_regression(vectors, ratings, folds, classes, errors)


def test_what_cannot_be_predicted():
    vectors, truth, _, _ = planted(30)
    found = fitted(vectors, truth, strengths=[1.0])
    with pytest.raises(ShapeError, match="expected"):
        found.probabilities(vectors[:, :4], unseen(30))
    with pytest.raises(ShapeError, match="folds"):
        found.probabilities(vectors, np.full(30, FOLDS))
    with pytest.raises(ShapeError, match="weights"):
        Regression(CLASSES, found.weights_FCD[1:], found.offsets_FC, 1.0)
    assert found.probabilities(vectors[:0], unseen(0)).shape == (0, 3)
