"""Places: the cell to which each row belongs, and the cells that it visits as a neighbor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mixup.clusters.cells import NO_BORDER, Cells
from mixup.clusters.nearby import Nearby, homes_of
from mixup.errors import ConfigError, ShapeError
from mixup.quality.neighbors import unit_vectors

COPIES = 2.95
"""Cells in which a row is on average, by default. ``bench_cells`` tells what others would see."""

MOST_COPIES = 5
"""Most cells in which a row is. With fewer or more, less is seen at equal copies on average."""

_DECIMALS = 4  # of a border
_ALL = 2.0  # no cosine similarities differ by more

_BLOCK_VALUES = 1 << 22  # similarities of rows and centroids that are held at a time


@dataclass(frozen=True)
class Places:
    """Where rows belong.

    Attributes:
        homes_N: int32 id of each row's own cell.
        visits_NV: int32 ids of the cells that it visits as a read-only row, nearest first; -1 for
            none. V is ``most - 1``.
        similarities_N: float32 cosine similarities to the nearest centroid of the home.
    """

    homes_N: np.ndarray
    visits_NV: np.ndarray
    similarities_N: np.ndarray

    @property
    def replication(self) -> float:
        """Mean number of cells that a row is in; 1 without rows."""
        return 1.0 + (self.visits_NV >= 0).sum() / max(1, len(self.homes_N))


def assign(
    vectors_ND: np.ndarray,
    cells: Cells,
    *,
    border: float | None = None,
    most: int = MOST_COPIES,
    uids: Sequence[str] | None = None,
) -> Places:
    """The home of each row, and the cells that it visits because it is a neighbor there.

    The home is found from node 0 down: at each node the child with the nearest centroid, the lower
    id among equals. So splitting one cell moves only its own rows. Each row is placed by itself:
    the order of the rows, and which others there are, do not matter.

    A row visits the cells with the nearest other centroids, while their similarity is at least
    that of the home's nearest centroid less ``border``. A cell whose rows had rows like it among
    their nearest at the fit counts as nearer than it is (``Cells.wanted_CF``). The parts of a cell
    whose rows are dealt by hash count as one: a row of one part does not visit the others (its
    likes are in its own).

    Args:
        vectors_ND: Unit vectors.
        cells: The partition.
        border: Width of the border, in cosine similarity; None: as fitted.
        most: Most cells that a row is in, its home among them.
        uids: The rows' uids; only needed where rows of a cell are dealt by hash.

    Raises:
        ShapeError: Vectors are not unit vectors of the centroids' dimension, or uids do not fit.
        ConfigError: The border is not finite or ``most`` not positive.
    """
    vectors = unit_vectors(vectors_ND)
    border = cells.border if border is None else border
    if vectors.shape[1] != cells.centroids_CD.shape[1]:
        raise ShapeError(f"vectors {vectors.shape}, centroids {cells.centroids_CD.shape}")
    if not (math.isfinite(border) and most >= 1):
        raise ConfigError(f"border {border}, most {most}: expected a finite number and at least 1")
    if uids is not None and len(uids) != len(vectors):
        raise ShapeError(f"{len(uids)} uids for {len(vectors)} vectors")
    homes = np.zeros(len(vectors), dtype=np.int32)
    visits = np.full((len(vectors), most - 1), -1, dtype=np.int32)
    similarities = np.zeros(len(vectors), dtype=np.float32)
    for rows in _blocks(len(vectors), cells):
        names = None if uids is None else uids[rows]
        found = homes_of(vectors[rows], names, cells)
        homes[rows], similarities[rows] = found.cells_N, found.similarities_N
        if most > 1:
            near = Nearby(vectors[rows], names, cells, found)
            visits[rows] = near.visits(border, most - 1)
    return Places(homes, visits, similarities)


def fitted_border(vectors_ND: np.ndarray, cells: Cells, copies: float) -> float:
    """The widest border with which some rows are in no more cells than so many on average.

    Args:
        vectors_ND: Unit vectors of rows like those to come.
        cells: The partition, before any split.
        copies: Cells a row, at least 1.
    """
    visits = int((copies - 1.0) * len(vectors_ND))
    if len(cells.ids) == 1 or not visits:
        return NO_BORDER
    found = []
    for rows in _blocks(len(vectors_ND), cells):
        homes = homes_of(vectors_ND[rows], None, cells)
        near = Nearby(vectors_ND[rows], None, cells, homes)
        found.append(near.gaps(MOST_COPIES - 1))
    gaps = np.sort(np.concatenate(found), axis=None)
    if visits >= len(gaps):
        return _ALL
    scale = 10.0**_DECIMALS
    return float(np.floor(gaps[visits] * scale) / scale)


def _blocks(rows: int, cells: Cells) -> Iterator[slice]:
    step = max(1, _BLOCK_VALUES // len(cells.centroids_CD))
    return (slice(start, start + step) for start in range(0, rows, step))
