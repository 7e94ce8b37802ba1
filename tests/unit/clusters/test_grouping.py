"""Grouping: caps, floor, and independence of row order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixup.clusters.grouping import cluster_key, group
from mixup.errors import ConfigError, ShapeError


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def at_degrees(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def grouped(vectors, **changes):
    rows = len(vectors)
    arguments = {
        "tokens_N": np.full(rows, 10),
        "labels_N": np.full(rows, "qa"),
        "order_N": np.arange(rows),
        "floor": 0.9,
        "min_size": 2,
        "max_size": 5,
        "max_tokens": 1000,
    }
    return group(vectors, **(arguments | changes))


def lists(found):
    return [members.tolist() for members in found.members]


def test_by_hand():
    vectors = at_degrees(0, 90, 5, 94, 200, 10)
    found = grouped(vectors)
    assert lists(found) == [[0, 2, 5], [1, 3]]  # 200 degrees stays out
    expected = (2 * np.cos(np.radians(5)) + np.cos(np.radians(10))) / 3
    np.testing.assert_allclose(found.cohesion, [expected, np.cos(np.radians(4))], atol=1e-5)
    assert found.cohesion.dtype == np.float32


def test_a_chain_is_cut_where_its_ends_are_too_far_apart():
    # cos 25 degrees = .906, cos 26 = .899
    assert lists(grouped(at_degrees(0, 13, 26, 39), floor=0.9)) == [[0, 1], [2, 3]]


def test_the_tightest_pair_is_merged_first():
    # 10 and 16 go first, so 0 and 24 are too far from what is left (cos 14 degrees = .970).
    assert lists(grouped(at_degrees(0, 10, 16, 24), floor=0.975)) == [[1, 2]]
    assert lists(grouped(at_degrees(0, 10, 20, 26), max_size=2)) == [[0, 1], [2, 3]]


def test_caps():
    vectors = at_degrees(*np.linspace(0, 5, 9))
    assert max(map(len, lists(grouped(vectors, max_size=3)))) <= 3
    tokens = np.array([500, 10, 10, 10, 10, 10, 10, 10, 10])
    found = lists(grouped(vectors, tokens_N=tokens, max_tokens=40))
    assert all(tokens[members].sum() <= 40 for members in found)
    assert not any(0 in members for members in found)


def test_labels_are_never_mixed():
    vectors = at_degrees(0, 1, 2, 3)
    assert lists(grouped(vectors, labels_N=np.array(["qa", "tfq", "qa", "tfq"]))) == [
        [0, 2],
        [1, 3],
    ]


def test_groups_below_the_minimum_are_dissolved():
    vectors = at_degrees(0, 1, 90, 91, 92)
    assert lists(grouped(vectors, min_size=3)) == [[2, 3, 4]]


def test_identical_rows_are_all_grouped():
    vectors = np.repeat(at_degrees(20), 203, axis=0)
    found = grouped(vectors, neighbors=4)
    assert sum(map(len, found.members)) >= 200
    np.testing.assert_allclose(found.cohesion, 1, atol=1e-5)


def test_a_crowd_larger_than_the_neighbor_list_leaves_few_rows_out():
    rng = np.random.default_rng(0)
    center = unit(rng.normal(size=(1, 32)))
    vectors = unit(center + 0.2 * unit(rng.normal(size=(600, 32))))
    found = grouped(vectors, neighbors=4, max_size=4)
    assert sum(map(len, found.members)) > 540


def test_too_few_rows():
    for rows in (0, 1):
        found = grouped(at_degrees(*range(rows)).reshape(rows, 2))
        assert found.members == []
        assert found.cohesion.shape == (0,)


def clumps(rows, seed):
    rng = np.random.default_rng(seed)
    centers = unit(rng.normal(size=(max(1, rows // 6), 8)))
    vectors = unit(centers[rng.integers(len(centers), size=rows)] + rng.normal(size=(rows, 8)) / 8)
    vectors[rows - rows // 5 :] = vectors[: rows // 5]
    return vectors, rng


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 80),
    st.integers(0, 999),
    st.sampled_from([0.3, 0.7, 0.9, 0.99]),
    st.integers(2, 4),
    st.integers(0, 5),
    st.integers(1, 20),
)
def test_invariants(rows, seed, floor, min_size, more, neighbors):
    vectors, rng = clumps(rows, seed)
    arguments = {
        "tokens_N": rng.integers(1, 100, rows),
        "labels_N": rng.integers(0, 2, rows),
        "order_N": rng.permutation(rows),
    }
    limits = {
        "floor": floor,
        "min_size": min_size,
        "max_size": min_size + more,
        "max_tokens": 200,
        "neighbors": neighbors,
    }
    found = group(vectors, **arguments, **limits)
    flat = [row for members in lists(found) for row in members]
    assert len(flat) == len(set(flat))
    for members, cohesion in zip(found.members, found.cohesion, strict=True):
        assert (np.diff(members) > 0).all()
        assert min_size <= len(members) <= min_size + more
        assert arguments["tokens_N"][members].sum() <= 200
        assert len(set(arguments["labels_N"][members])) == 1
        similarities = vectors[members] @ vectors[members].T
        assert similarities.min() >= floor - 2e-6
        pairs = similarities[np.triu_indices(len(members), 1)]
        assert cohesion == pytest.approx(pairs.mean(), abs=1e-5)
    shuffle = rng.permutation(rows)
    shuffled = {name: value[shuffle] for name, value in arguments.items()}
    again = group(vectors[shuffle], **shuffled, **limits)
    order = arguments["order_N"]
    assert [sorted(order[members]) for members in found.members] == [
        sorted(order[shuffle][members]) for members in again.members
    ]
    np.testing.assert_array_equal(found.cohesion, again.cohesion)


def complete_linkage(vectors, floor, max_size):
    """Every pair compared at every step."""
    groups = [[row] for row in range(len(vectors))]
    similarities = vectors @ vectors.T
    while True:
        best = max(
            (
                (similarities[np.ix_(a, b)].min(), -i, -j)
                for i, a in enumerate(groups)
                for j, b in enumerate(groups[:i])
                if len(a) + len(b) <= max_size
            ),
            default=(-1, 0, 0),
        )
        if best[0] < floor:
            return sorted(sorted(members) for members in groups if len(members) > 1)
        later, earlier = -best[1], -best[2]
        groups[earlier] += groups.pop(later)


@pytest.mark.parametrize("seed", range(5))
def test_with_all_neighbors_the_first_round_is_complete_linkage(seed):
    rng = np.random.default_rng(seed)
    vectors = unit(rng.normal(size=(30, 4)))
    # Later rounds group only rows that could not be grouped before, so with no size cap in
    # reach there are none to find.
    assert lists(grouped(vectors, floor=0.6, max_size=30, neighbors=30)) == complete_linkage(
        vectors, 0.6, 30
    )


def test_what_does_not_fit_is_refused():
    vectors = at_degrees(0, 1, 2)
    broken = vectors.copy()
    broken[1, 1] = np.nan
    for bad in (broken, vectors * 0, vectors * 2):
        with pytest.raises(ShapeError):
            grouped(bad)
    for changes in (
        {"tokens_N": np.ones(2)},
        {"labels_N": np.ones(4)},
        {"order_N": np.zeros(3)},
    ):
        with pytest.raises(ShapeError):
            grouped(vectors, **changes)
    for changes in (
        {"min_size": 1},
        {"min_size": 6},
        {"neighbors": 0},
        {"floor": float("nan")},
        {"floor": 1.5},
    ):
        with pytest.raises(ConfigError):
            grouped(vectors, **changes)


def test_a_clusters_key_is_that_of_its_set_of_members():
    assert cluster_key(["b", "a"]) == cluster_key(["a", "b"])
    assert cluster_key(["ab", "c"]) != cluster_key(["a", "bc"])
    assert len(cluster_key(["a", "b"])) == 32
