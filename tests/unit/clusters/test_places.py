"""Places: a row's home and visits by hand, within a budget, and by the row alone."""

from dataclasses import replace

import numpy as np
import pytest
from made_cells import at, by_hand, clumps, names, same, unit
from scipy.sparse import csr_array

from mixup.clusters import places as places_module
from mixup.clusters.partition import fit_cells, split_over_cap
from mixup.clusters.places import assign, fitted_border
from mixup.quality.neighbors import top_k


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


def test_no_rows_have_no_places():
    cells = fit_cells(clumps(20), rows=20, full_rows=5)
    placed = assign(np.empty((0, 8)), cells)
    assert placed.homes_N.shape == (0,)
    assert placed.visits_NV.shape == (0, 4)
    assert placed.replication == 1
