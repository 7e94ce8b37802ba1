"""Nearest neighbors and near-duplicates against brute force and hand-worked cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixup.errors import ShapeError
from mixup.quality.neighbors import near_duplicate_of, rounded, top_k, unit_vectors


def unit(rows):
    rows = np.asarray(rows, dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def at_degrees(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def random_units(rows, seed, dimensions=16, copies=0):
    rng = np.random.default_rng(seed)
    vectors = unit(rng.normal(size=(rows, dimensions)))
    vectors[rows - copies :] = vectors[:copies]
    return vectors


def test_top_k_by_hand():
    base = at_degrees(0, 10, 40, 90)
    found = top_k(at_degrees(12), base, 2)
    assert found.indices_MK.tolist() == [[1, 0]]
    assert found.indices_MK.dtype == np.int64
    assert found.similarities_MK.dtype == np.float32
    np.testing.assert_allclose(found.similarities_MK[0], np.cos(np.radians([2, 12])), atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 60), st.integers(1, 70), st.integers(0, 1000))
def test_top_k_is_the_full_sort(rows, k, seed):
    vectors = random_units(rows, seed, dimensions=6, copies=rows // 3)
    found = top_k(vectors, vectors, k, exclude_self=True)
    width = min(k, rows - 1)
    similarities = rounded(vectors @ vectors.T)
    np.fill_diagonal(similarities, -np.inf)
    assert found.indices_MK.shape == (rows, width)
    best = np.sort(similarities, axis=1)[:, ::-1][:, :width]
    np.testing.assert_allclose(found.similarities_MK, best, atol=2e-6)
    assert (found.indices_MK != np.arange(rows)[:, None]).all()
    assert all(len(set(row)) == width for row in found.indices_MK.tolist())


def test_equal_rows_are_ordered_by_index_and_only_the_own_row_is_left_out():
    vectors = np.repeat(at_degrees(30), 40, axis=0)
    found = top_k(vectors, vectors, 3, exclude_self=True)
    assert found.indices_MK[0].tolist() == [1, 2, 3]
    assert found.indices_MK[2].tolist() == [0, 1, 3]
    assert found.indices_MK[39].tolist() == [0, 1, 2]
    assert (found.similarities_MK == 1).all()


def test_ties_beyond_the_slack_keep_what_is_nearer_first():
    vectors = np.concatenate([np.repeat(at_degrees(30), 40, axis=0), at_degrees(0, 1)])
    found = top_k(at_degrees(0), vectors, 4)
    assert found.indices_MK.tolist() == [[40, 41, 0, 1]]


def test_own_rows_in_a_partial_base():
    base = at_degrees(0, 10, 40)
    queries = at_degrees(0, 5, 40)
    found = top_k(queries, base, 9, own_M=np.array([0, -1, 2]))
    assert found.indices_MK.tolist() == [[1, 2], [0, 1], [1, 0]]


def test_small_and_empty_bases():
    one = at_degrees(0)
    assert top_k(one, one, 5).indices_MK.tolist() == [[0]]
    assert top_k(one, one, 5, exclude_self=True).indices_MK.shape == (1, 0)
    assert top_k(one, one[:0], 5).indices_MK.shape == (1, 0)
    assert top_k(one[:0], one, 5).indices_MK.shape == (0, 1)


@pytest.mark.parametrize("bad", [[[np.nan, 1.0]], [[0.0, 0.0]], [[3.0, 4.0]], [1.0, 0.0]])
def test_vectors_that_are_not_unit_vectors_are_refused(bad):
    with pytest.raises(ShapeError):
        unit_vectors(np.array(bad))
    with pytest.raises(ShapeError):
        top_k(np.array(bad), at_degrees(0), 1)


def test_arguments_that_do_not_fit_are_refused():
    base = at_degrees(0, 10)
    with pytest.raises(ShapeError):
        top_k(random_units(2, 0, dimensions=3), base, 1)
    with pytest.raises(ShapeError):
        top_k(base, base, 0)
    with pytest.raises(ShapeError):
        top_k(base[:1], base, 1, exclude_self=True)
    with pytest.raises(ShapeError):
        top_k(base, base, 1, own_M=np.array([0, 2]))


def test_a_chain_is_not_glued_into_one_duplicate():
    # Neighbors on the chain are 10 degrees apart (cosine .985), the ends 30 (cosine .866).
    vectors = at_degrees(0, 10, 20, 30)
    leaders = near_duplicate_of(vectors, np.arange(4), 0.98)
    assert leaders.tolist() == [0, 0, 2, 2]


def test_the_oldest_row_represents_and_keeps_doing_so():
    vectors = at_degrees(0, 10, 20)
    assert near_duplicate_of(vectors, np.array([2, 0, 1]), 0.98).tolist() == [1, 1, 1]
    # Row 1 is near both older leaders, and nearer to the second; it belongs to the oldest.
    vectors = at_degrees(0, 10, 19)
    assert near_duplicate_of(vectors, np.array([0, 2, 1]), 0.98).tolist() == [0, 0, 2]


def test_large_groups_of_duplicates_are_complete():
    vectors = np.repeat(random_units(3, 0), 700, axis=0)
    leaders = near_duplicate_of(vectors, np.arange(2100), 0.99)
    assert leaders.tolist() == [0] * 700 + [700] * 700 + [1400] * 700


def brute_force_leaders(vectors, order, threshold):
    similarities = rounded(vectors @ vectors.T)
    leaders, result = [], np.arange(len(vectors))
    for row in np.argsort(order):
        near = [leader for leader in leaders if similarities[row, leader] >= threshold]
        result[row] = near[0] if near else row
        leaders += [] if near else [row]
    return result.tolist()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(0, 1000))
def test_duplicates_are_the_greedy_leaders_whatever_the_row_order(rows, seed):
    vectors = random_units(rows, seed, dimensions=3, copies=rows // 4)
    rng = np.random.default_rng(seed)
    order = rng.permutation(rows)
    leaders = near_duplicate_of(vectors, order, 0.9)
    assert leaders.tolist() == brute_force_leaders(vectors, order, 0.9)
    shuffle = rng.permutation(rows)
    again = near_duplicate_of(vectors[shuffle], order[shuffle], 0.9)
    assert order[leaders][shuffle].tolist() == order[shuffle][again].tolist()


def test_duplicates_across_blocks():
    vectors = random_units(1300, 3, copies=400)
    leaders = near_duplicate_of(vectors, np.arange(1300), 0.99)
    assert leaders.tolist() == [*range(900), *range(400)]


def test_no_row_one_row_and_bad_ranks():
    assert near_duplicate_of(np.empty((0, 4)), np.empty(0), 0.9).tolist() == []
    assert near_duplicate_of(at_degrees(0), np.array([7]), 0.9).tolist() == [0]
    assert near_duplicate_of(at_degrees(0, 90), np.arange(2), 1.0).tolist() == [0, 1]
    with pytest.raises(ShapeError, match="repeated"):
        near_duplicate_of(at_degrees(0, 1), np.array([1, 1]), 0.9)
    with pytest.raises(ShapeError):
        near_duplicate_of(at_degrees(0, 1), np.array([0.0, np.nan]), 0.9)
    with pytest.raises(ShapeError):
        near_duplicate_of(at_degrees(0, 1), np.array([1]), 0.9)
