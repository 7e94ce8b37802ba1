"""Cells: one home a row, bounded visits and sizes, and places that depend on the row alone."""

from dataclasses import replace

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from mixup.clusters import places as places_module
from mixup.clusters.cells import BY_CENTROID, Cells, drift
from mixup.clusters.partition import fit_cells, sample_rows, split_over_cap
from mixup.clusters.places import assign, fitted_border
from mixup.errors import ConfigError, ShapeError
from mixup.quality.neighbors import top_k


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clumps(rows, seed=0, width=8, spread=0.3):
    rng = np.random.default_rng(seed)
    centers = unit(rng.normal(size=(max(1, rows // 20), width)))
    noise = spread * rng.normal(size=(rows, width)) / np.sqrt(width)
    return unit(centers[rng.integers(len(centers), size=rows)] + noise)


def names(rows):
    return [f"row {row}" for row in range(rows)]


def split_all(vectors, uids, cells, cap):
    """Splits every cell over the cap, as tasks that see one cell each would."""
    homes = assign(vectors, cells, uids=uids).homes_N
    for cell in np.unique(homes).tolist():
        rows = np.flatnonzero(homes == cell)
        division = split_over_cap(vectors[rows], [uids[row] for row in rows], cap=cap)
        if division is not None:
            cells = cells.with_split(cell, division)
    return cells


def same(a, b):
    np.testing.assert_array_equal(a.homes_N, b.homes_N)
    np.testing.assert_array_equal(a.visits_NV, b.visits_NV)
    np.testing.assert_array_equal(a.similarities_N, b.similarities_N)


def by_hand(*degrees, parents=None, salts=None, nodes=None):
    """Cells with centroids on the unit circle; node 0 is above them all."""
    angles = np.radians([0, *degrees])
    centroids = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    nodes = np.arange(len(angles)) if nodes is None else np.array([0, *nodes])
    parents = [-1] + [0] * int(nodes.max()) if parents is None else parents
    salts = [BY_CENTROID] * len(parents) if salts is None else salts
    arrays = {"centroids": centroids, "nodes": nodes}
    arrays |= {"parents": np.array(parents), "salts": np.array(salts)}
    return Cells.from_arrays({**arrays, "similarity": np.array([0.9]), "border": np.array([0.3])})


def at(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_by_hand():
    cells = by_hand(0, 90, 180, 270)
    placed = assign(at(10, 44, 80, 190), cells, border=0.1, most=3)
    assert placed.homes_N.tolist() == [1, 1, 2, 3]
    # cos 44 = .719, cos 46 = .695: within .1
    assert placed.visits_NV.tolist() == [[-1, -1], [2, -1], [-1, -1], [-1, -1]]
    np.testing.assert_allclose(placed.similarities_N, np.cos(np.radians([10, 44, 10, 10])), 1e-5)
    assert placed.replication == 1.25
    wide = assign(at(10, 80), cells, border=2, most=3)
    assert wide.visits_NV.tolist() == [[2, 4], [1, 3]]  # 4 is at 100 degrees of 10; 3 of 80
    assert assign(at(10), cells, border=2, most=1).visits_NV.shape == (1, 0)
    assert assign(at(10), cells, border=2, most=9).visits_NV.tolist() == [[2, 4, 3] + [-1] * 5]


def test_ties_go_to_the_lower_id():
    cells = by_hand(0, 90, 180, 270)
    assert assign(at(0), cells, border=2, most=3).visits_NV.tolist() == [[2, 4]]
    flat = replace(cells, centroids_CD=np.eye(4, dtype=np.float32)[[0, 3, 2, 1, 0]])
    tied = np.full((1, 4), 0.5, dtype=np.float32)
    placed = assign(tied, flat, border=0, most=3)
    assert placed.homes_N.tolist() == [1]
    assert placed.visits_NV.tolist() == [[2, 3]]


def test_the_nearest_of_a_cells_centroids_counts():
    cells = by_hand(0, 60, 100, 200, nodes=[1, 1, 2, 3])
    placed = assign(at(70, 110), cells, border=0.15, most=3)
    assert placed.homes_N.tolist() == [1, 2]
    assert placed.visits_NV.tolist() == [[2, -1], [-1, -1]]
    assert assign(at(95), cells, border=2, most=3).visits_NV.tolist() == [[1, 3]]  # cell 1 once


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


def test_a_cell_that_wants_a_row_is_nearer():
    """Of 0.1 of distance a third by ln(1 + 20) is added where one row of a cell wants each row."""
    cells = by_hand(0, 90, 180, 270)
    rows = at(10)  # .985 like its home, .174 like cell 2, -.174 like cell 4, -.985 like cell 3
    one = csr_array(np.array([[0, 0, 1.0, 0]] + [[0.0] * 4] * 3))
    wanted = replace(cells, wanted_CF=one)
    nearer = 0.1 / 3 * np.log1p(1 / 0.05)
    assert nearer == pytest.approx(0.1015, abs=1e-4)
    gap = np.cos(np.radians(10)) - np.cos(np.radians(170))
    for border, expected in ((gap - nearer - 1e-3, [2, 4]), (gap - nearer + 1e-3, [2, 4, 3])):
        visits = assign(rows, wanted, border=border).visits_NV[0]
        assert visits[visits >= 0].tolist() == expected
    much = replace(cells, wanted_CF=csr_array(one * 1e30))
    assert assign(rows, much, border=2).visits_NV.tolist() == [[3, 2, 4, -1]]
    assert assign(at(80), much, border=2).visits_NV.tolist() == [[1, 3, 4, -1]]  # of another part
    assert assign(rows, much, border=0).homes_N.tolist() == [1]


def test_children_of_a_cell_are_wanted_as_it_was():
    much = csr_array(np.array([[0, 0, 1e30, 0]] + [[0.0] * 4] * 3))
    cells = replace(by_hand(0, 90, 180, 270), wanted_CF=much)
    halves = by_hand(170, 190, parents=[-1, 0, 0])
    division = replace(
        halves, centroids_CD=halves.centroids_CD[1:], nodes_C=np.array([1, 2]), wanted_CF=None
    )
    split = cells.with_split(3, division)
    assert split.first_K.tolist() == [0, 1, 2, 3, 4, 3, 3]
    assert assign(at(10), split, border=2).visits_NV.tolist() == [[5, 6, 2, 4]]


def test_rows_of_a_cell_that_is_split_visit_its_other_parts():
    vectors = clumps(3000, width=16, spread=1.5)
    cells = fit_cells(vectors, rows=3000, full_rows=300)
    before = assign(vectors, cells)
    largest = int(np.bincount(before.homes_N).argmax())
    rows = np.flatnonzero(before.homes_N == largest)
    division = split_over_cap(vectors[rows], names(len(rows)), cap=len(rows) // 2)
    assert division is not None
    split = cells.with_split(largest, division)
    after = assign(vectors, split)
    near = top_k(vectors, vectors, 10, exclude_self=True).indices_MK

    def seen(placed):
        there = np.concatenate([placed.homes_N[:, None], placed.visits_NV], axis=1)
        return (there[near[rows]] == placed.homes_N[rows, None, None]).any(axis=2).mean()

    assert seen(after) > seen(before) - 0.05
    other = replace(cells, similarity=cells.similarity - 0.2)
    assert other.revision != cells.revision  # how near a cell is that wants a row goes by it


def test_what_cells_want_finds_more_neighbors_in_no_more_copies():
    vectors = clumps(3000, width=16, spread=1.5)
    cells = fit_cells(vectors, rows=3000, full_rows=300)
    near = top_k(vectors, vectors, 10, exclude_self=True).indices_MK

    def seen(of):
        placed = assign(vectors, of, border=fitted_border(vectors, of, 2.0))
        assert 1.9 < placed.replication <= 2.0
        there = np.concatenate([placed.homes_N[:, None], placed.visits_NV], axis=1)
        return (there[near] == placed.homes_N[:, None, None]).any(axis=2).mean()

    assert seen(cells) > seen(replace(cells, wanted_CF=None)) + 0.01


def test_borders_are_as_wide_as_the_copies_allow():
    vectors = clumps(2000, width=16, spread=1.5)
    borders = []
    for copies in (1.0, 1.5, 2.5, 2.95):
        cells = fit_cells(vectors, rows=2000, full_rows=200, copies=copies)
        assert assign(vectors, cells).replication == pytest.approx(copies, abs=0.1)
        borders.append(cells.border)
    assert borders == sorted(borders)
    assert assign(vectors, fit_cells(vectors, rows=2000, full_rows=200, copies=1)).replication == 1
    two = fit_cells(vectors, rows=2000, full_rows=1100, copies=2.9)
    assert assign(vectors, two).replication == len(two.ids)  # there are no more


def test_rows_that_no_fit_saw_are_in_no_more_cells():
    vectors = clumps(8000, width=16, spread=1.5)
    cells = fit_cells(vectors[:2000], rows=8000, full_rows=400, copies=2.5)
    assert assign(vectors[2000:], cells).replication == pytest.approx(2.5, abs=0.1)
    assert assign(vectors[:2000], cells).replication < 2.4


def test_no_block_decides_a_place(monkeypatch):
    vectors = unit(np.random.default_rng(0).normal(size=(400, 16)))
    cells = fit_cells(vectors, rows=400, full_rows=80)
    whole = assign(vectors, cells)
    assert 2 < whole.replication < 3.2
    for values in (1, 1000, 20000):
        monkeypatch.setattr(places_module, "_BLOCK_VALUES", values)
        same(assign(vectors, cells), whole)


def test_new_rows_leave_the_old_ones_at_home():
    vectors = clumps(1000)
    cells = fit_cells(vectors, rows=1000, full_rows=50)
    before = assign(vectors, cells)
    after = assign(np.concatenate([clumps(10, seed=9), vectors]), cells)
    np.testing.assert_array_equal(after.homes_N[10:], before.homes_N)
    np.testing.assert_array_equal(after.visits_NV[10:], before.visits_NV)


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
        lambda: assign(vectors, cells, most=0),
    ):
        with pytest.raises(ConfigError):
            refused()


def test_no_rows_have_no_places():
    cells = fit_cells(clumps(20), rows=20, full_rows=5)
    placed = assign(np.empty((0, 8)), cells)
    assert placed.homes_N.shape == (0,)
    assert placed.visits_NV.shape == (0, 4)
    assert placed.replication == 1
