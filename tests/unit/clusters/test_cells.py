"""Cells: a partition within the cap, the same whatever the order, split and kept as arrays."""

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_cells import at, by_hand, clumps, names, same, split_all

from mixup.clusters.cells import Cells, drift
from mixup.clusters.partition import fit_cells, sample_rows, split_over_cap
from mixup.clusters.places import assign
from mixup.errors import ConfigError, ShapeError


def test_a_small_pool_is_one_cell():
    vectors = clumps(50)
    cells = fit_cells(vectors, rows=50, full_rows=50)
    assert cells.ids.tolist() == [0]
    placed = assign(vectors, cells)
    assert (placed.homes_N == 0).all()
    assert (placed.visits_NV == -1).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 300), st.integers(0, 99), st.integers(1, 60), st.integers(1, 4))
def test_invariants(rows, seed, full_rows, most):
    vectors, uids = clumps(rows, seed), names(rows)
    vectors[: rows // 4] = vectors[rows // 2 : rows // 2 + rows // 4]
    cap = max(3, full_rows)
    cells = fit_cells(vectors, rows=rows, full_rows=full_rows, seed=seed)
    assert len(cells.ids) <= max(1, 2 * -(-rows // full_rows))
    cells = split_all(vectors, uids, cells, cap)
    placed = assign(vectors, cells, border=0.3, most=most, uids=uids)
    assert np.isin(placed.homes_N, cells.ids).all()
    assert np.bincount(placed.homes_N).max() <= cap
    assert placed.replication <= most
    for home, visits in zip(placed.homes_N, placed.visits_NV.tolist(), strict=True):
        kept = [cell for cell in visits if cell >= 0]
        assert visits == kept + [-1] * (most - 1 - len(kept))
        assert len({home, *kept}) == 1 + len(kept)
        assert np.isin(kept, cells.ids).all()
    shuffle = np.random.default_rng(seed).permutation(rows)
    again = assign(
        vectors[shuffle], cells, border=0.3, most=most, uids=[uids[row] for row in shuffle]
    )
    np.testing.assert_array_equal(again.homes_N, placed.homes_N[shuffle])
    np.testing.assert_array_equal(again.visits_NV, placed.visits_NV[shuffle])
    refit = fit_cells(vectors[shuffle], rows=rows, full_rows=full_rows, seed=seed)
    refit = split_all(vectors, uids, refit, cap)
    assert refit.revision == cells.revision


def test_a_split_moves_only_the_rows_of_its_cell():
    vectors, uids = clumps(1000, width=32, spread=1.0), names(1000)
    cells = fit_cells(vectors, rows=1000, full_rows=125)
    before = assign(vectors, cells)
    largest = int(np.bincount(before.homes_N).argmax())
    rows = np.flatnonzero(before.homes_N == largest)
    division = split_over_cap(vectors[rows], [uids[row] for row in rows], cap=len(rows) // 3)
    assert division is not None
    split = cells.with_split(largest, division)
    after = assign(vectors, split)
    elsewhere = before.homes_N != largest
    np.testing.assert_array_equal(after.homes_N[elsewhere], before.homes_N[elsewhere])
    assert (after.homes_N[rows] >= len(cells.parents_K)).all()
    assert np.bincount(after.homes_N[rows]).max() <= len(rows) // 3
    assert largest not in split.ids
    assert split.split_share == pytest.approx(1 / len(cells.ids))
    with pytest.raises(ConfigError, match="split before"):
        split.with_split(largest, division)


def test_duplicates_share_a_home():
    vectors = np.repeat(clumps(300), 3, axis=0)
    cells = fit_cells(vectors, rows=900, full_rows=30)
    cells = split_all(vectors, names(900), cells, 60)
    homes = assign(vectors, cells, uids=names(900)).homes_N.reshape(300, 3)
    assert (homes == homes[:, :1]).all()


def test_no_order_decides_a_split():
    vectors, uids = clumps(500, width=32, spread=1.0), names(500)
    vectors[:100] = vectors[0]
    shuffle = np.random.default_rng(3).permutation(500)
    split = split_over_cap(vectors, uids, cap=40)
    again = split_over_cap(vectors[shuffle], [uids[row] for row in shuffle], cap=40)
    assert split is not None
    assert again is not None
    assert split.revision == again.revision


def test_equal_rows_over_the_cap_are_dealt_by_their_uids():
    vectors = np.concatenate([np.repeat(clumps(1), 1000, axis=0), clumps(200, seed=1)])
    uids = names(1200)
    cells = split_all(vectors, uids, fit_cells(vectors, rows=1200, full_rows=1200), 150)
    placed = assign(vectors, cells, uids=uids, border=2)
    assert np.bincount(placed.homes_N).max() <= 150
    equal = np.unique(placed.homes_N[:1000])
    assert len(equal) >= 7
    assert not np.isin(placed.visits_NV[:1000], equal).any()
    # A row elsewhere visits one of the parts, and others in turn.
    visited = np.isin(placed.visits_NV[1000:], equal).sum(axis=1)
    assert visited.max() == 1
    with pytest.raises(ShapeError, match="uids"):
        assign(vectors, cells)
    more = [f"new {row}" for row in range(1000)]
    grown = split_all(np.repeat(vectors[:1], 2000, axis=0), uids[:1000] + more, cells, 150)
    placed = assign(np.repeat(vectors[:1], 2000, axis=0), grown, uids=uids[:1000] + more)
    assert np.bincount(placed.homes_N).max() <= 150


def test_what_is_within_the_cap_is_not_split():
    assert split_over_cap(clumps(40), names(40), cap=40) is None
    assert split_over_cap(np.empty((0, 8)), [], cap=40) is None
    assert split_over_cap(clumps(41), names(41), cap=40) is not None


def test_a_fit_has_no_more_cells_than_distinct_rows():
    for vectors in (np.repeat(clumps(3), 40, axis=0), np.repeat(clumps(1), 9, axis=0), clumps(30)):
        cells = fit_cells(vectors, rows=len(vectors) * 10, full_rows=1)
        homes = assign(vectors, cells).homes_N
        assert len(cells.ids) <= len(np.unique(vectors, axis=0))
        assert len(np.unique(homes)) >= 0.8 * len(cells.ids)  # a tenth of the rows was not fitted


def test_a_sample_grows_with_the_cells_up_to_what_memory_holds():
    assert sample_rows(1000) == 1000
    assert sample_rows(100_000) == 60_000
    assert sample_rows(1_000_000) == 512 * 295
    assert sample_rows(10**9) == 1_000_000
    assert sample_rows(1_000_000, full_rows=34_000) == 60_000


def test_a_cell_that_is_joined_is_nearly_full():
    vectors = clumps(4000, width=32, spread=1.0)
    cells = fit_cells(vectors, rows=4000, full_rows=400)
    rows = np.bincount(assign(vectors, cells).homes_N)[cells.ids]
    assert rows.max() <= 440  # a tenth was not fitted
    assert len(rows) <= 15
    assert sorted(rows)[1] > 100
    sampled = fit_cells(vectors[:1000], rows=4000, full_rows=400)
    assert 10 <= len(sampled.ids) <= 20
    assert np.bincount(assign(vectors, sampled).homes_N).max() <= 600


def test_opposite_rows_have_no_mean_and_still_a_cell():
    vectors = np.concatenate([at(30), at(210)])
    cells = fit_cells(vectors, rows=2)
    assert cells.ids.tolist() == [0]
    assert assign(vectors, cells).homes_N.tolist() == [0, 0]


def test_neither_threads_nor_order_decide_a_fit():
    vectors = clumps(2000, width=64, spread=1.0)
    expected = fit_cells(vectors, rows=3000, full_rows=100).revision
    assert fit_cells(vectors, rows=3000, full_rows=100, seed=1).revision != expected
    threads = faiss.omp_get_max_threads()
    try:
        for count in (1, 2):
            faiss.omp_set_num_threads(count)
            assert fit_cells(vectors[::-1], rows=3000, full_rows=100).revision == expected
            assert faiss.omp_get_max_threads() == count
    finally:
        faiss.omp_set_num_threads(threads)


def test_arrays_hold_all_of_it():
    vectors, uids = np.repeat(clumps(40), 5, axis=0), names(200)
    cells = split_all(vectors, uids, fit_cells(vectors, rows=200, full_rows=60), 4)
    again = Cells.from_arrays(cells.to_arrays())
    assert again.revision == cells.revision
    assert again.similarity == cells.similarity
    same(assign(vectors, again, uids=uids), assign(vectors, cells, uids=uids))
    broken = cells.to_arrays()
    for changes in (
        {"parents": broken["parents"][::-1]},
        {"parents": broken["parents"][:0]},
        {"nodes": broken["nodes"][1:]},
        {"salts": broken["salts"][1:]},
        {"centroids": broken["centroids"] * 2},
        {"nodes": np.append(broken["nodes"][:-1], len(broken["parents"]))},
        {"wanted_cells": broken["wanted_cells"] + 99},
        {"wanted_starts": broken["wanted_starts"][1:]},
        {"wanted_starts": broken["wanted_starts"][:-1]},
    ):
        with pytest.raises(ShapeError):
            Cells.from_arrays({**broken, **changes})


def test_drift():
    vectors = clumps(2000, width=32, spread=0.5)
    cells = fit_cells(vectors[:1000], rows=2000, full_rows=100)
    usual = float(assign(vectors[1000:], cells).similarities_N.mean())
    assert drift(usual, cells) < 0.1  # rows of the same kind
    strange = clumps(500, seed=5, width=32, spread=0.5)
    assert drift(float(assign(strange, cells).similarities_N.mean()), cells) > 0.25
    assert drift(cells.similarity, by_hand(0, 90, parents=[-1, 0, 0])) >= 0
    half = by_hand(0, 90, 45, 50, parents=[-1, 0, 0, 1, 1], nodes=[1, 2, 3, 4])
    assert drift(1.0, half) == 0.5


def test_what_does_not_fit_is_refused():
    vectors = clumps(20)
    cells = fit_cells(vectors, rows=20, full_rows=5)
    broken = vectors.copy()
    broken[3, 1] = np.nan
    for bad in (broken, vectors * 0, vectors[0]):
        for work in (
            lambda bad=bad: fit_cells(bad, rows=20),
            lambda bad=bad: assign(bad, cells),
            lambda bad=bad: split_over_cap(bad, names(len(bad)), cap=5),
        ):
            with pytest.raises(ShapeError, match=r"unit norm|expected \(rows"):
                work()
    with pytest.raises(ShapeError, match="no rows"):
        fit_cells(vectors[:0], rows=0)
    with pytest.raises(ShapeError, match="distinct"):
        split_over_cap(vectors, ["same"] * 20, cap=5)
    with pytest.raises(ShapeError):
        assign(clumps(5, width=4), cells)
    with pytest.raises(ShapeError, match="uids"):
        assign(vectors, cells, uids=["one"])
    for refused in (
        lambda: fit_cells(vectors, rows=0),
        lambda: fit_cells(vectors, rows=20, full_rows=0),
        lambda: fit_cells(vectors, rows=20, copies=0.9),
        lambda: split_over_cap(vectors, names(20), cap=0),
        lambda: assign(vectors, cells, border=float("nan")),
        lambda: assign(vectors, cells, border=float("inf")),
        lambda: fit_cells(vectors, rows=20, copies=float("inf")),
        lambda: assign(vectors, cells, most=0),
    ):
        with pytest.raises(ConfigError):
            refused()
