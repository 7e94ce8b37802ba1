"""The partition of a pool into cells is fitted on a sample, and cells that outgrow it are split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array

from mixup.clusters.cells import BY_CENTROID, Cells
from mixup.clusters.centroids import (
    fit_centroids,
    mean_direction,
    nearest,
    own_products,
    sorted_rows,
)
from mixup.clusters.joining import join_parts
from mixup.clusters.nearby import part_of
from mixup.clusters.part_neighbors import part_neighbors, shared_neighbors, wanted_rows
from mixup.clusters.places import COPIES, fitted_border
from mixup.errors import ConfigError, ShapeError
from mixup.quality.neighbors import unit_vectors

CAP_ROWS = 4000
"""Most rows of a cell of its own: what a task holds in memory, and searches exactly."""

FULL_ROWS = 3400
"""Most rows of a new cell, by the sample: a larger cell has more neighbors, and it is to grow."""

CENTROIDS_PER_CELL = 48
"""Each that of a small part: cells are joined of them, and more cost more to compare with."""

_ROWS_PER_CENTROID = 4  # of the sample, at least
_SAMPLE_PER_CELL = 512
_SAMPLE_LEAST, _SAMPLE_MOST = 60_000, 1_000_000
_HELD_OUT = 10  # every tenth row of the sample is not fitted: it says how near unseen rows are
_EVERY_TO_JOIN = 16  # row's neighbors are enough to join parts, where none are to visit
_BORDER_ROWS = 8000  # or so, of a pool that was fitted whole, tell how wide borders are
_MOST_LEVELS = 8  # of k-means inside one cell; only rows that are nearly all equal need more
_FILL = 0.75  # of the cap, on average, by parts that a hash deals


def sample_rows(rows: int, *, full_rows: int = FULL_ROWS) -> int:
    """Rows of a sample on which cells are fitted well, of a pool of so many rows.

    The more rows, the fewer neighbors come into different cells; beyond these, what is gained is
    small for its memory.
    """
    wanted = max(_SAMPLE_LEAST, _SAMPLE_PER_CELL * -(-rows // full_rows))
    return min(rows, wanted, _SAMPLE_MOST)


def fit_cells(
    sample_SD: np.ndarray,
    *,
    rows: int,
    full_rows: int = FULL_ROWS,
    copies: float = COPIES,
    seed: int = 0,
) -> Cells:
    """The partition of a pool into cells of up to about ``full_rows`` rows, fitted on a sample.

    Small parts by k-means are joined to cells (``joining``): at most twice as many as need be, and
    most of them nearly full. A pool of up to ``full_rows`` rows is one cell, in which results are
    exact. The order of the sample's rows does not matter.

    Args:
        sample_SD: Unit vectors of a random sample, at least one (``sample_rows``).
        rows: Rows of the whole pool.
        full_rows: Most rows wanted in a cell.
        copies: Cells in which a row is to be on average, its home among them; at least 1.
        seed: Of the k-means.

    Raises:
        ShapeError: The sample is empty, or has rows that are not unit vectors.
        ConfigError: Rows of pool or cell are not positive, or there are fewer copies than one.
    """
    sample = unit_vectors(sample_SD)
    if not len(sample):
        raise ShapeError("the sample has no rows; cells are fitted when there is an embedding")
    if not (rows >= 1 and full_rows >= 1 and 1 <= copies < math.inf):
        raise ConfigError(
            f"rows {rows}, full_rows {full_rows}, copies {copies}: expected at least 1 of each"
        )
    sample = sample[sorted_rows(sample)[0]]
    tree = _Tree(sample.shape[1])
    tree.centroids.append(mean_direction(sample))
    tree.nodes.append(0)
    unseen, wanted = np.arange(len(sample)) % _HELD_OUT == 0, None
    if rows > full_rows:
        fitted = sample[~unseen] if len(sample) >= _HELD_OUT else sample
        parts, _ = _parts(fitted, -(-rows // full_rows), seed)
        every = 1 if copies > 1 else _EVERY_TO_JOIN
        found, owner, joined = _joined(parts, sample, rows, full_rows, every)
        if owner[-1] > 0:
            tree.add(0, found, owner)
            wanted = joined if copies > 1 else None
    leaves = tree.centroids[-1]
    near = own_products(sample[unseen], leaves[nearest(sample[unseen], leaves)])
    cells = replace(tree.cells(float(near.mean())), wanted_CF=wanted)
    # Rows that were fitted are nearer to their centroids than those of the rest of the pool are.
    step = max(1, len(sample) // _BORDER_ROWS)
    like_the_pool = sample[::step] if rows <= len(sample) else sample[unseen]
    return replace(cells, border=fitted_border(like_the_pool, cells, copies))


def split_over_cap(
    vectors_ND: np.ndarray, uids: Sequence[str], *, cap: int = CAP_ROWS, seed: int = 0
) -> Cells | None:
    """How one cell is divided so that no part has more than ``cap`` rows; None if it fits.

    The rows are divided by a local k-means, and parts that are still too large again. Rows that
    k-means cannot divide, because they are all equal, are dealt by a hash of their uids. The result
    is a tree whose node 0 stands for the cell, for ``Cells.with_split``; it depends on neither
    order.

    Args:
        vectors_ND: Unit vectors of the cell's own rows, without its visitors.
        uids: Their distinct uids.
        cap: Most own rows of a cell.
        seed: Of the k-means.

    Raises:
        ShapeError: Vectors are not unit vectors, or uids are not one distinct uid a row.
        ConfigError: The cap is not positive.
    """
    vectors = unit_vectors(vectors_ND)
    if not (len(uids) == len(vectors) == len(set(uids))):
        raise ShapeError(f"{len(uids)} uids, {len(set(uids))} distinct, of {len(vectors)} rows")
    if cap < 1:
        raise ConfigError(f"cap {cap}: expected at least 1")
    if len(vectors) <= cap:
        return None
    tree = _Tree(vectors.shape[1])
    _divide(tree, 0, vectors, np.asarray(uids), _Limits(cap, seed), _MOST_LEVELS)
    return tree.cells(float("nan"))


@dataclass(frozen=True)
class _Limits:
    cap: int
    seed: int


class _Tree:
    """A tree of cells as it grows, from node 0 without centroids."""

    def __init__(self, width: int) -> None:
        self.centroids = [np.empty((0, width), dtype=np.float32)]
        self.nodes: list[int] = []
        self.parents, self.salts = [-1], [BY_CENTROID]

    def add(self, parent: int, centroids: np.ndarray, owner: np.ndarray) -> None:
        """Adds children that have these centroids."""
        self.centroids.append(centroids)
        self.nodes += (owner + len(self.parents)).tolist()
        self.add_empty(parent, int(owner[-1]) + 1)

    def add_empty(self, parent: int, children: int) -> None:
        """Adds children without centroids."""
        self.parents += [parent] * children
        self.salts += [BY_CENTROID] * children

    def cells(self, similarity: float) -> Cells:
        """The tree as it is now, whose rows have this mean similarity to their centroids."""
        return Cells(
            np.concatenate(self.centroids),
            np.array(self.nodes, dtype=np.int32),
            np.array(self.parents, dtype=np.int32),
            np.array(self.salts, dtype=np.int64),
            similarity,
        )


def _joined(
    centroids: np.ndarray, sample: np.ndarray, rows: int, full_rows: int, every: int
) -> tuple[np.ndarray, np.ndarray, csr_array]:
    """The centroids of small parts by cell, the cell of each from 0, and what cells want."""
    part = nearest(sample, centroids)
    drawn = np.maximum(np.bincount(part, minlength=len(centroids)), 1)
    neighbors = part_neighbors(sample, part, centroids, every=every)
    shared = shared_neighbors(neighbors, part, len(centroids))
    cell = join_parts(shared, centroids, drawn * (rows / len(sample)), full_rows)
    order = np.argsort(cell, kind="stable")
    wanted = wanted_rows(neighbors, part, cell, drawn)
    return centroids[order], cell[order], csr_array(wanted[order])


def _parts(vectors: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The centroids of at most so many parts, and the part of each, ascending from 0."""
    middles = fit_centroids(vectors, count, seed)
    part = nearest(vectors, middles)
    of_each = min(CENTROIDS_PER_CELL, max(1, len(vectors) // (count * _ROWS_PER_CENTROID)))
    found = [fit_centroids(vectors[part == at], of_each, seed) for at in range(len(middles))]
    return np.concatenate(found), np.repeat(np.arange(len(found)), [len(of) for of in found])


def _divide(
    tree: _Tree, node: int, vectors: np.ndarray, uids: np.ndarray, limits: _Limits, levels: int
) -> None:
    """Adds what divides the rows of a node, down to parts that fit."""
    if len(vectors) <= limits.cap:
        return
    count = max(2, -(-len(vectors) * 2 // limits.cap))  # half full: room to grow
    centroids, owner = _parts(vectors, count if levels else 1, limits.seed)
    first, parts = len(tree.parents), int(owner[-1]) + 1
    if parts > 1:
        part = owner[nearest(vectors, centroids)]
        tree.add(node, centroids, owner)
    else:
        tree.salts[node] = len(vectors)
        part, parts = _dealt(uids.tolist(), len(vectors), limits.cap)
        tree.add_empty(node, parts)
    for at in range(parts):
        rows = np.flatnonzero(part == at)
        _divide(tree, first + at, vectors[rows], uids[rows], limits, levels - 1)


def _dealt(uids: Sequence[str], salt: int, cap: int) -> tuple[np.ndarray, int]:
    """The part of each row, and of how many, so that none has more than the cap."""
    parts = max(2, math.ceil(len(uids) / (_FILL * cap)))
    while True:
        part = np.array([part_of(uid, salt, parts) for uid in uids])
        if np.bincount(part).max() <= cap:
            return part, parts
        parts += max(1, parts // 8)
