"""The long-tail score, by hand."""

import numpy as np
import pytest

from mixup.errors import ShapeError
from mixup.quality.long_tail import long_tail_scores
from mixup.quality.neighbors import Neighbors, top_k


def neighbors(*rows):
    similarities = np.array(rows, dtype=np.float32)
    return Neighbors(np.zeros(similarities.shape, dtype=np.int64), similarities)


def test_the_mean_distance_of_the_k_nearest():
    found = long_tail_scores(neighbors([0.9, 0.7, 0.1], [0.5, 0.5, 0.5]), k=2)
    np.testing.assert_allclose(found, [0.2, 0.5], atol=1e-6)
    assert found.dtype == np.float32


def test_fewer_neighbors_than_k_are_averaged():
    np.testing.assert_allclose(long_tail_scores(neighbors([0.9, 0.7])), [0.2], atol=1e-6)


def test_similarity_above_one_is_no_negative_distance():
    assert long_tail_scores(neighbors([1.0000002])).tolist() == [0.0]


def test_a_row_alone_has_no_score():
    alone = np.array([[1.0, 0.0]], dtype=np.float32)
    assert np.isnan(long_tail_scores(top_k(alone, alone, 15, exclude_self=True))).all()


def test_k_must_be_positive():
    with pytest.raises(ShapeError):
        long_tail_scores(neighbors([0.9]), k=0)
