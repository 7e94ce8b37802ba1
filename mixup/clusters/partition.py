"""The partition of a pool into cells is fitted on a sample, and cells that outgrow it are split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixup.clusters.cells import BY_CENTROID, Cells
from mixup.clusters.centroids import (
    fit_centroids,
    mean_direction,
    nearest,
    own_products,
    sorted_rows,
)
from mixup.clusters.places import part_of
from mixup.errors import ConfigError, ShapeError
from mixup.quality.neighbors import unit_vectors

TARGET_ROWS = 2000
"""Mean rows of a cell: cells are of uneven size, and few of them then exceed the cap."""

CAP_ROWS = 4000
"""Most rows of a cell of its own: what a task holds in memory, and searches exactly."""

CENTROIDS_PER_CELL = 16
"""More do not find more neighbors, and cost more to compare with."""

_HELD_OUT = 10  # every tenth row of the sample is not fitted: it says how near unseen rows are
_MOST_LEVELS = 8  # of k-means inside one cell; only rows that are nearly all equal need more
_FILL = 0.75  # of the cap, on average, by parts that a hash deals


def fit_cells(
    sample_SD: np.ndarray, *, rows: int, target_rows: int = TARGET_ROWS, seed: int = 0
) -> Cells:
    """The partition of a pool into about ``rows / target_rows`` cells, fitted on a sample of it.

    There may be fewer cells: as many as the sample has distinct rows. A pool of up to
    ``target_rows`` rows is one cell, in which results are exact. The order of the sample's rows
    does not matter.

    Args:
        sample_SD: Unit vectors of a random sample, at least one; 256 a cell are plenty.
        rows: Rows of the whole pool.
        target_rows: Mean rows wanted in a cell.
        seed: Of the k-means.

    Raises:
        ShapeError: The sample is empty, or has rows that are not unit vectors.
        ConfigError: Rows or target are not positive.
    """
    sample = unit_vectors(sample_SD)
    if not len(sample):
        raise ShapeError("the sample has no rows; cells are fitted when there is an embedding")
    if rows < 1 or target_rows < 1:
        raise ConfigError(f"rows {rows}, target_rows {target_rows}: expected at least 1 of each")
    sample = sample[sorted_rows(sample)[0]]
    tree, count = _Tree(sample.shape[1]), -(-rows // target_rows)
    tree.centroids.append(mean_direction(sample))
    tree.nodes.append(0)
    unseen = np.arange(len(sample)) % _HELD_OUT == 0
    fitted = sample[~unseen] if len(sample) >= _HELD_OUT else sample
    if count > 1:
        found, owner = _parts(fitted, count, seed)
        if owner[-1] > 0:
            tree.add(0, found, owner)
    leaves = tree.centroids[-1]
    near = own_products(sample[unseen], leaves[nearest(sample[unseen], leaves)])
    return tree.cells(float(near.mean()))


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


def _parts(vectors: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The centroids of at most so many parts, and the part of each, ascending from 0."""
    middles = fit_centroids(vectors, count, seed)
    part = nearest(vectors, middles)
    found = [
        fit_centroids(vectors[part == at], CENTROIDS_PER_CELL, seed) for at in range(len(middles))
    ]
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
