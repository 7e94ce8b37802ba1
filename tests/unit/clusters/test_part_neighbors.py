"""Which parts share neighbors, and how often rows of a part are wanted in another cell."""

import numpy as np
import pytest

from mixup.clusters import part_neighbors as module
from mixup.clusters.part_neighbors import part_neighbors, shared_neighbors, wanted_rows
from mixup.quality.neighbors import top_k


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def drawn(parts, width=8, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(parts, width)))


@pytest.fixture
def parted():
    sample, centroids = drawn(300, seed=4), drawn(9, seed=5)
    return sample, (sample @ centroids.T).argmax(axis=1), centroids


@pytest.mark.parametrize("asked_rows", [1, 100, 2048])
def test_neighbors_are_those_of_a_search_over_all(parted, monkeypatch, asked_rows):
    monkeypatch.setattr(module, "_ASKED_ROWS", asked_rows)
    sample, part, centroids = parted
    expected = top_k(sample, sample, 10, exclude_self=True).indices_MK
    np.testing.assert_array_equal(part_neighbors(sample, part, centroids), expected)


def test_only_some_rows_are_asked(parted):
    sample, part, centroids = parted
    some = part_neighbors(sample, part, centroids, every=3)
    np.testing.assert_array_equal(some[::3], part_neighbors(sample, part, centroids)[::3])
    assert (np.delete(some, np.s_[::3], axis=0) == -1).all()


def test_neighbors_are_looked_for_in_the_nearest_parts(parted, monkeypatch):
    sample, part, centroids = parted
    monkeypatch.setattr(module, "_ASKED_ROWS", 1)
    monkeypatch.setattr(module, "_SEARCHED_ROWS", 1)  # of each part only itself
    found = part_neighbors(sample, part, centroids)
    exact = top_k(sample, sample, 10, exclude_self=True).indices_MK
    for row, near in enumerate(found):
        assert set(part[near[near >= 0]]) <= {part[row]}
        own = [other for other in exact[row] if part[other] == part[row]]
        assert near[: len(own)].tolist() == own
    monkeypatch.setattr(module, "_SEARCHED_ROWS", 150)
    assert (found == exact).mean() < (part_neighbors(sample, part, centroids) == exact).mean() < 1


def test_all_rows_that_are_asked_together_are_searched(parted, monkeypatch):
    monkeypatch.setattr(module, "_ASKED_ROWS", 400)
    monkeypatch.setattr(module, "_SEARCHED_ROWS", 1)
    sample, part, centroids = parted
    expected = top_k(sample, sample, 10, exclude_self=True).indices_MK
    np.testing.assert_array_equal(part_neighbors(sample, part, centroids), expected)


def test_a_part_looks_in_itself_first_even_where_another_lies_at_the_same_place(monkeypatch):
    monkeypatch.setattr(module, "_ASKED_ROWS", 1)
    monkeypatch.setattr(module, "_SEARCHED_ROWS", 1)
    sample, centroids = drawn(40, seed=7), np.repeat(drawn(1), 2, axis=0)
    part = np.arange(40) % 2
    found = part_neighbors(sample, part, centroids)
    assert (found >= 0).all()
    assert (found != np.arange(40)[:, None]).all()
    np.testing.assert_array_equal(part[found], np.broadcast_to(part[:, None], found.shape))


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_a_sample_of_hardly_any_rows_has_few(rows):
    found = part_neighbors(drawn(2)[:rows], np.arange(rows), drawn(2))
    assert found[:, 0].tolist() == ([1, 0] if rows == 2 else [-1] * rows)
    assert (found[:, 1:] == -1).all()
    shared = shared_neighbors(found, np.arange(rows), 2)
    assert shared.toarray().tolist() == ([[0, 2], [2, 0]] if rows == 2 else [[0, 0], [0, 0]])


NEIGHBORS = np.array([[1, 2], [0, 4], [3, 4], [2, -1], [3, 0]])
PARTS = np.array([0, 0, 1, 1, 2])


def test_shared_neighbors_by_hand():
    # 0-1: row 0 has 2. 0-2: 1 has 4, 4 has 0. 1-2: 2 has 4, 4 has 3.
    expected = [[0, 1, 2], [1, 0, 2], [2, 2, 0]]
    assert shared_neighbors(NEIGHBORS, PARTS, 3).toarray().tolist() == expected


def test_wanted_rows_by_hand():
    # Parts 0 and 2 are cell 0, part 1 is cell 1: cell 1 wants row 4; cell 0 wants rows 2 and 3.
    # Of its own rows cell 0 wants 0 twice, 1 and 4, and cell 1 wants 2 and 3.
    wanted = wanted_rows(NEIGHBORS, PARTS, np.array([0, 1, 0]), np.array([2, 2, 1]))
    assert wanted.toarray().tolist() == [[1.5, 0], [1, 1], [1, 1]]
    # Each part a cell: of the two rows of part 0 one is wanted by cell 2, and so on.
    wanted = wanted_rows(NEIGHBORS, PARTS, np.arange(3), np.array([2, 2, 1]))
    assert wanted.toarray().tolist() == [[1, 0, 0.5], [0.5, 1, 0.5], [1, 1, 0]]
