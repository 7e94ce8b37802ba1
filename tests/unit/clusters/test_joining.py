"""Parts are joined by the neighbors that they share, within the room of a cell."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array, csr_array

from mixup.clusters.joining import join_parts
from mixup.clusters.part_neighbors import part_neighbors, shared_neighbors


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def graph(parts, *edges):
    """A symmetric matrix of (one, other, shared)."""
    one, other, shared = (np.array(values) for values in zip(*edges, strict=True))
    half = coo_array((shared.astype(float), (one, other)), shape=(parts, parts))
    return csr_array(half + half.T)


def drawn(parts, width=8, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(parts, width)))


def test_parts_that_share_the_most_for_their_sizes_come_together():
    # 0-1 share 10 of 100 rows; 1-2 share 12, but 2 is three times as large: 10/100 > 12/300.
    shared = graph(4, (0, 1, 10), (1, 2, 12), (2, 3, 5))
    cells = join_parts(shared, drawn(4), np.array([10.0, 10, 30, 10]), 40)
    assert cells.tolist() == [0, 0, 1, 1]


def test_no_cell_of_several_parts_is_over_full():
    shared = graph(3, (0, 1, 10), (1, 2, 10))
    assert join_parts(shared, drawn(3), np.array([10.0, 10, 10]), 19).tolist() == [0, 1, 2]
    assert join_parts(shared, drawn(3), np.array([50.0, 10, 10]), 20).tolist() == [0, 1, 1]
    assert join_parts(shared, drawn(3), np.array([10.0, 10, 10]), 30).tolist() == [0, 0, 0]


def test_what_has_grown_out_of_a_cell_is_not_joined_to_it():
    # The two share with 2 twice as much as one of them did, and are twice as large.
    shared = graph(3, (0, 1, 20), (0, 2, 5), (1, 2, 5))
    assert join_parts(shared, drawn(3), np.full(3, 10.0), 25).tolist() == [0, 0, 1]


def test_what_joined_parts_share_is_added_up():
    # 0-1 and 2-4 come together, and these two by 22 / 400, before 3 joins 2-4 by 10 / 200.
    shared = graph(5, (0, 1, 40), (2, 4, 40), (0, 2, 11), (1, 2, 11), (2, 3, 10))
    assert join_parts(shared, drawn(5), np.full(5, 10.0), 40).tolist() == [0, 0, 0, 1, 0]


def test_parts_that_share_nothing_join_what_is_most_alike():
    centroids = unit(np.array([[1, 0], [0, 1], [1, 0.1], [0.1, 1]]))
    cells = join_parts(csr_array((4, 4)), centroids, np.full(4, 10.0), 20)
    assert cells.tolist() == [0, 1, 0, 1]


def test_a_part_moves_to_where_it_has_more_neighbors():
    # 0-1 are joined first, by 9. Then 2-3-4, which fill a cell and of which 1 has 6 + 6 neighbors.
    edges = [(0, 1, 9), (2, 3, 8), (3, 4, 8), (2, 4, 8), (1, 2, 6), (1, 3, 6)]
    rows = np.array([10.0, 10, 10, 10, 10])
    assert join_parts(graph(5, *edges), drawn(5), rows, 30).tolist() == [0, 0, 1, 1, 1]
    # With room for one more the whole is still no cell, but 1 moves.
    assert join_parts(graph(5, *edges), drawn(5), rows, 40).tolist() == [0, 1, 1, 1, 1]


def test_a_part_without_room_near_it_joins_what_is_far():
    places = [*range(5), 20, *range(180, 185), *range(270, 275)]
    degrees = np.radians(places)
    centroids = unit(np.stack([np.cos(degrees), np.sin(degrees)], axis=1))
    rows = np.array([8.0] * 5 + [10] + [6] * 10)
    cells = join_parts(csr_array((16, 16)), centroids, rows, 40)
    assert cells.tolist() == [0] * 5 + [1] + [2] * 5 + [1] * 5  # 270 is nearer to 20 than 180 is


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(0, 99), st.integers(10, 200))
def test_invariants(parts, seed, most):
    rng = np.random.default_rng(seed)
    dense = rng.integers(0, 5, size=(parts, parts)) * (rng.random((parts, parts)) < 0.2)
    shared = csr_array((np.triu(dense, 1) + np.triu(dense, 1).T).astype(float))
    rows = rng.integers(1, 60, size=parts).astype(float)
    cells = join_parts(shared, drawn(parts, seed=seed), rows, most)
    held, size = np.bincount(cells, weights=rows), np.bincount(cells)
    assert (held[size > 1] <= most).all()
    assert len(held) <= max(1, 2 * np.ceil(rows.sum() / most))
    assert list(dict.fromkeys(cells.tolist())) == list(range(len(held)))  # numbered as they come


def test_joined_cells_cut_fewer_neighbors_than_parts_at_random():
    rng = np.random.default_rng(6)
    centroids = drawn(60, width=4, seed=6)
    sample = unit(rng.normal(size=(3000, 4)))
    part = (sample @ centroids.T).argmax(axis=1)
    shared = shared_neighbors(part_neighbors(sample, part, centroids), part, 60)
    rows = np.bincount(part, minlength=60).astype(float)
    cells = join_parts(shared, centroids, rows, 600)
    edges = coo_array(shared)

    def cut(of):
        return edges.data[of[edges.row] != of[edges.col]].sum() / edges.data.sum()

    assert cut(cells) < 0.6 * cut(rng.permutation(cells))
