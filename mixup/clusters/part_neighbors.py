"""The neighbors of a sample's rows: which small parts share them, and which cells want them.

A row that another cell's rows have among their nearest should be visible there. How near it is to
that cell's centroids tells it only roughly: rows far from everything are near to no cell, and a
cell may lack what lies in one direction only. So the fit counts it, for all rows of a part alike.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array, csr_array

from mixup.quality.neighbors import rounded, top_k

NEIGHBORS = 10
"""Nearest rows that are counted."""

_SEARCHED_ROWS = 30_000  # of the parts that are nearest, in which neighbors are looked for
_ASKED_ROWS = 2048  # or so, of parts numbered together, look in the same ones
_DECIMALS = 4


def part_neighbors(
    sample_SD: np.ndarray, part_S: np.ndarray, centroids_CD: np.ndarray, *, every: int = 1
) -> np.ndarray:
    """The nearest rows of each row of a sample, looked for in the parts nearest to its own.

    Args:
        sample_SD: Unit vectors.
        part_S: The part of each. Those that lie together should be numbered together.
        centroids_CD: The centroid of each part.
        every: Only of every so many rows neighbors are looked for, among all.

    Returns:
        int64 rows (S, K), -1 where there are fewer or none were looked for.
    """
    found = np.full((len(sample_SD), NEIGHBORS), -1, dtype=np.int64)
    order = np.argsort(part_S, kind="stable")
    rows_C = np.bincount(part_S, minlength=len(centroids_CD))
    rows_of = np.split(order, np.cumsum(rows_C)[:-1])
    for chunk in np.split(np.arange(len(rows_C)), _chunk_starts(rows_C, _ASKED_ROWS * every)):
        near = rounded(centroids_CD[chunk] @ centroids_CD.T).max(axis=0)
        near[chunk] = np.inf  # a row that is asked is among those that are searched
        nearest = np.argsort(-near, kind="stable")
        before = np.cumsum(rows_C[nearest]) - rows_C[nearest]
        searched = nearest[: max(len(chunk), int((before < _SEARCHED_ROWS).sum()))]
        own = np.concatenate([rows_of[part] for part in chunk])
        own = own[own % every == 0]
        base = np.concatenate([rows_of[part] for part in searched])
        if len(own) and len(base) > 1:
            base = np.sort(base)
            place = np.searchsorted(base, own)
            close = top_k(sample_SD[own], sample_SD[base], NEIGHBORS, own_M=place).indices_MK
            found[own, : close.shape[1]] = base[close]
    return found


def _chunk_starts(rows_C: np.ndarray, rows: int) -> np.ndarray:
    """Where parts are divided into chunks of about so many rows."""
    chunk = (np.cumsum(rows_C) - rows_C) // rows
    return np.flatnonzero(np.diff(chunk)) + 1


def shared_neighbors(neighbors_SK: np.ndarray, part_S: np.ndarray, parts: int) -> csr_array:
    """How many neighbors cross from one part to another, either way.

    Args:
        neighbors_SK: The nearest rows of each row, -1 for none.
        part_S: The part of each row.
        parts: How many there are.

    Returns:
        A symmetric matrix (C, C) with nothing on its diagonal.
    """
    one_way = _crossing(neighbors_SK, part_S, part_S, part_S, (parts, parts))
    return csr_array(one_way + one_way.T)


def wanted_rows(
    neighbors_SK: np.ndarray, part_S: np.ndarray, cell_C: np.ndarray, rows_C: np.ndarray
) -> csr_array:
    """How many rows of each cell have a row of each part among their nearest, for a row of it.

    Args:
        neighbors_SK: The nearest rows of each row, -1 for none.
        part_S: The part of each row.
        cell_C: The cell of each part, from 0.
        rows_C: Rows of the sample in each part, positive.

    Returns:
        float64 (C, F) for F cells. What a part's own cell wants counts where that cell is split:
        its rows visit one another's parts then.
    """
    cell_S = cell_C[part_S]
    shape = (len(cell_C), int(cell_C.max()) + 1)
    found = _crossing(neighbors_SK, np.arange(len(part_S)), part_S, cell_S, shape)
    found.data = np.round(found.data / np.repeat(rows_C, np.diff(found.indptr)), _DECIMALS)
    return found


def _crossing(
    neighbors: np.ndarray,
    inside: np.ndarray,
    row_of: np.ndarray,
    column_of: np.ndarray,
    shape: tuple[int, int],
) -> csr_array:
    """Counts of pairs by the neighbor's ``row_of`` and the row's ``column_of``, across borders."""
    row, place = np.nonzero(neighbors >= 0)
    other = neighbors[row, place]
    across = inside[row] != inside[other]
    row, other = row[across], other[across]
    pairs = coo_array((np.ones(len(row)), (row_of[other], column_of[row])), shape=shape)
    pairs.sum_duplicates()
    return csr_array(pairs)
