"""How many of the exact neighbors are found inside cells, and how many rows that costs.

    MIXUP_BENCH_POOL=DIR make bench ARGS="-k bench_cells"

DIR is the workspace of ``make pool``. ``MIXUP_BENCH_ROWS`` (50,000) of its rows are drawn;
``MIXUP_BENCH_CAP`` (4,000) is the most own rows of a cell, for trials with fewer rows. Recall grows
with the rows at an equal number of cells: where rows are dense, neighbors are near.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import numpy as np
import pytest
from real_vectors import needs_pool, real_vectors

from mixup.clusters.cells import Cells, drift
from mixup.clusters.partition import CAP_ROWS, FULL_ROWS, fit_cells, split_over_cap
from mixup.clusters.places import COPIES, Places, assign, fitted_border
from mixup.quality.neighbors import Neighbors, top_k

pytestmark = [needs_pool, pytest.mark.timeout(3600)]
ROWS = int(float(os.environ.get("MIXUP_BENCH_ROWS", "50000")))
CAP = int(os.environ.get("MIXUP_BENCH_CAP", str(CAP_ROWS)))
NEIGHBORS = 10
FLOOR = 0.6
BUDGETS = (1.0, 1.5, 2.0, 2.5, COPIES)  # cells a row
FULL = (0.5, 0.65, 0.75, 0.95)  # of the cap


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return real_vectors()[:ROWS]


def partition(vectors: np.ndarray, uids: list[str], full_rows: int) -> tuple[Cells, Cells]:
    """Cells fitted on the rows, and the same with those over the cap split."""
    cells = fitted = fit_cells(vectors, rows=len(vectors), full_rows=full_rows)
    homes = assign(vectors, cells, most=1).homes_N
    for cell in cells.ids.tolist():
        rows = np.flatnonzero(homes == cell)
        division = split_over_cap(vectors[rows], [uids[row] for row in rows], cap=CAP)
        cells = cells if division is None else cells.with_split(cell, division)
    return fitted, cells


def rows_of(places: Places, cells: Cells) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The own rows and the visitors of each cell."""
    for cell in cells.ids.tolist():
        visitors = np.flatnonzero((places.visits_NV == cell).any(axis=1))
        yield np.flatnonzero(places.homes_N == cell), visitors


def found_in(cells: Cells, places: Places, exact: Neighbors) -> np.ndarray:
    """Which of the exact neighbors of each row are in the base of the row's cell."""
    found = np.zeros(exact.indices_MK.shape, dtype=bool)
    for own, visitors in rows_of(places, cells):
        is_there = np.zeros(len(found), dtype=bool)
        is_there[own] = is_there[visitors] = True
        found[own] = is_there[exact.indices_MK[own]]
    return found


def test_recall(vectors: np.ndarray) -> None:
    uids = [str(row) for row in range(len(vectors))]
    start = time.process_time()
    exact = top_k(vectors, vectors, NEIGHBORS, exclude_self=True)
    near = exact.similarities_MK >= FLOOR
    print(
        f"\n  {len(vectors):,} rows, cap {CAP:,}, {near.mean():.0%} of the neighbors at {FLOOR} or "
        f"above; all against all: {time.process_time() - start:.1f} s of CPU"
    )
    default = FULL_ROWS / CAP_ROWS
    for share in sorted({*FULL, default}):
        fitted, cells = partition(vectors, uids, max(1, int(share * CAP)))
        budgets = BUDGETS if share == default else (COPIES,)
        report(fitted, cells, vectors, uids, exact, near, budgets)


def report(
    fitted: Cells,
    cells: Cells,
    vectors: np.ndarray,
    uids: list[str],
    exact: Neighbors,
    near: np.ndarray,
    budgets: tuple[float, ...],
) -> None:
    """Print a line for every ascending budget of copies; a larger one sees no fewer neighbors."""
    sizes = np.bincount(assign(vectors, cells, most=1, uids=uids).homes_N)[cells.ids]
    assert sizes.sum() == len(vectors)
    assert sizes.max() <= CAP
    print(
        f"  {len(cells.ids)} cells ({cells.split_share:.0%} of those fitted were split) of "
        f"{sizes.min():,} to {sizes.max():,} own rows, median {int(np.median(sizes)):,}"
    )
    seen = np.zeros(exact.indices_MK.shape, dtype=bool)
    for copies in budgets:
        border = fitted_border(vectors[::10], fitted, copies)
        start = time.process_time()
        places = assign(vectors, cells, border=border, uids=uids)
        seconds = time.process_time() - start
        found = found_in(cells, places, exact)
        assert (found >= seen).all()
        seen = found
        pairs = sum(len(own) * (len(own) + len(more)) for own, more in rows_of(places, cells))
        print(
            f"    {copies:g} copies wanted: recall@{NEIGHBORS} {found.mean():.4f}, at {FLOOR} or "
            f"above {found[near].mean():.4f}; replication {places.replication:.2f}; pairs compared "
            f"{pairs / len(vectors) ** 2:.1%} of all; drift of the fit's own rows "
            f"{drift(float(places.similarities_N.mean()), cells):.2f}; assigned in {seconds:.1f} s"
        )


def test_neighbors_found_are_those_of_the_search_inside_a_cell(vectors: np.ndarray) -> None:
    """The figure above counts exact neighbors that are in a cell; the search in it finds them."""
    some = vectors[: min(len(vectors), 4 * CAP)]
    uids = [str(row) for row in range(len(some))]
    _, cells = partition(some, uids, CAP // 2)
    places = assign(some, cells, uids=uids)
    exact = top_k(some, some, NEIGHBORS, exclude_self=True)
    expected = found_in(cells, places, exact)
    missed = 0
    for own, visitors in rows_of(places, cells):
        base = np.concatenate([own, visitors])
        place = np.arange(len(own))
        near = top_k(some[own], some[base], NEIGHBORS, own_M=place)
        for row, of_row in zip(own, base[near.indices_MK], strict=True):
            missed += len(set(exact.indices_MK[row][expected[row]]) - set(of_row.tolist()))
    print(f"\n  of {expected.sum():,} neighbors in the cells, the search misses {missed} (ties)")
    assert missed <= expected.sum() / 1000
