"""The compressed rating and the co-occurrence transition, by hand."""

import numpy as np
import pytest

from mixup.errors import ConfigError, RecordError, ShapeError
from mixup.quality.transition import (
    Transition,
    compress,
    compress_ratings,
    cooccurrence,
    fit_transition,
    nearest_classes,
)

COMPRESSED = [(1, 0), (2, 0), (3, 0), (4, 0), (5, 1), (6, 2), (7, 3), (8, 4), (9, 5), (10, 5)]


@pytest.mark.parametrize(("overall", "rating"), [*COMPRESSED, (7.5, 4), (7.49, 3), (4.5, 1)])
def test_compress(overall, rating):
    assert compress(overall) == rating
    assert compress_ratings(np.array([overall])).tolist() == [rating]


@pytest.mark.parametrize("overall", [0, 11, -1, float("nan"), float("inf")])
def test_what_is_not_a_mark_stays_unrated(overall):
    with pytest.raises(RecordError, match="bad_rating"):
        compress(overall)
    found = compress_ratings(np.array([overall, 8.0]))
    assert found.tolist() == [-1, 4]
    assert found.dtype == np.int8


def test_cooccurrence_by_hand():
    found = cooccurrence(
        np.array([0, 0, 4, 4]), np.array([[1, 2], [0, 2], [3, 0], [2, 1]]), smoothing=0.5
    )
    assert found.classes.tolist() == [0, 4]
    np.testing.assert_allclose(found.matrix_CC, np.full((2, 2), 0.5))
    found = cooccurrence(np.array([0, 0, 4]), np.array([[1], [0], [1]]), smoothing=0.01)
    np.testing.assert_allclose(
        found.matrix_CC, [[2.01 / 2.02, 0.01 / 2.02], [1.01 / 1.02, 0.01 / 1.02]]
    )
    np.testing.assert_allclose(found.prior_C, [2 / 3 + 1e-8, 1 / 3 + 1e-8])


def test_an_absent_class_has_no_row():
    found = cooccurrence(np.array([0, 2, 5]), np.array([[1], [2], [0]]))
    assert found.classes.tolist() == [0, 2, 5]
    np.testing.assert_allclose(found.matrix_CC.sum(axis=1), 1)


def test_one_row_has_a_uniform_transition():
    found = cooccurrence(np.array([3]), np.empty((1, 0), dtype=int))
    assert found.matrix_CC.tolist() == [[1.0]]


def test_what_does_not_fit_is_refused():
    one = np.array([[1], [0]])
    with pytest.raises(ShapeError, match="rated"):
        cooccurrence(np.array([3, -1]), one)
    with pytest.raises(ShapeError, match="at least one row"):
        cooccurrence(np.empty(0, dtype=int), np.empty((0, 1), dtype=int))
    with pytest.raises(ShapeError):
        cooccurrence(np.array([3, 6]), one)
    with pytest.raises(ShapeError):
        cooccurrence(np.array([3.0, 4.0]), one)
    with pytest.raises(ShapeError):
        cooccurrence(np.array([3, 4]), np.array([[1], [2]]))
    with pytest.raises(ShapeError):
        cooccurrence(np.array([3, 4]), np.array([[1]]))
    with pytest.raises(ConfigError):
        cooccurrence(np.array([3, 4]), one, smoothing=0.0)
    with pytest.raises(ShapeError):
        Transition(np.array([0, 1]), np.eye(3), np.ones(2))


def test_fit_leaves_the_own_row_out():
    angles = np.radians([0, 1, 90, 91])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = fit_transition(vectors, np.array([0, 5, 0, 5]), neighbors=1)
    np.testing.assert_allclose(np.diag(found.matrix_CC), 0.01 / 2.02)


def test_nearest_classes():
    assert nearest_classes(np.array([0, 1, 2, 3, 5]), np.array([0, 2, 4])).tolist() == [
        0,
        0,
        2,
        2,
        4,
    ]
    with pytest.raises(ShapeError):
        nearest_classes(np.array([-1]), np.array([0]))
