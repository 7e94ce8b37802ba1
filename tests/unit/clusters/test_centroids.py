"""Centroids: distinct unit vectors, each the nearest of some row."""

import numpy as np
import pytest

from mixup.clusters.centroids import fit_centroids, most_similar, nearest, sorted_rows


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def normal(rows, width=8, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(rows, width)))


def test_planted_directions_are_found():
    middles = np.eye(6, 32, dtype=np.float32)
    noise = np.random.default_rng(0).normal(size=(6, 50, 32)) * 0.05
    vectors = unit((middles[:, None] + noise).reshape(300, 32))
    found = fit_centroids(vectors, 6, 1)
    assert found.dtype == np.float32
    best = (middles @ found.T).max(axis=1)
    assert (best > 0.99).sum() >= 5  # k-means may join two of them


@pytest.mark.parametrize("seed", range(4))
def test_every_centroid_has_rows_though_most_rows_are_equal(seed):
    vectors = np.concatenate([np.repeat(normal(1), 500, axis=0), normal(12, seed=seed + 1)])
    found = fit_centroids(vectors, 10, seed)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert len(np.unique(nearest(vectors, found))) == len(found)


def test_opposite_rows_have_some_centroid():
    one = np.array([[1, 0], [-1, 0]] * 5, dtype=np.float32)
    found = fit_centroids(one, 1, 0)
    np.testing.assert_allclose(np.abs(found), [[1, 0]])


def test_a_place_does_not_depend_on_the_rows_around():
    vectors, centroids = normal(300, 384), normal(40, 384, seed=1)
    centroids[20:] = unit(centroids[:20] + 3e-8 * normal(20, 384, seed=2))  # all but equal
    whole = nearest(vectors, centroids)
    alone = [int(nearest(vectors[row : row + 1], centroids)[0]) for row in range(300)]
    assert whole.tolist() == alone


def test_an_owner_counts_once_a_row():
    row = np.array([0, 0, 0, 0, 2, 2])
    owner = np.array([5, 3, 5, 4, 1, 0])
    similarity = np.array([0.9, 0.8, 0.95, 0.8, 0.5, 0.5])
    pairs, ranks = most_similar(row, owner, similarity, 2)
    assert pairs.tolist() == [2, 1, 5, 4]
    assert ranks.tolist() == [0, 1, 0, 1]


def test_rows_are_sorted_by_content():
    vectors = normal(50)
    vectors[7] = vectors[3]
    vectors[:2] = [[0.0] * 7 + [1], [-0.0] * 7 + [1]]
    order, is_first = sorted_rows(vectors)
    assert is_first.sum() == 48
    again, _ = sorted_rows(vectors[::-1])
    np.testing.assert_array_equal(vectors[order] + 0, vectors[::-1][again] + 0)
