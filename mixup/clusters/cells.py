"""Cells: the coarse partition of a pool, inside which everything that needs neighbors runs.

The partition is a tree. Node 0 is the whole pool; a node's children divide its rows, and the leaves
are the cells. Splitting a cell adds nodes at the end, so no other cell's name or rows change.

A node has several centroids: a row near a corner of a cell has neighbors there, and may be far from
the cell's middle. That finds more neighbors with fewer visitors than one centroid a cell does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from scipy.sparse import csr_array

from mixup.errors import ConfigError, ShapeError
from mixup.quality.neighbors import unit_vectors
from mixup.records import content_key

BY_CENTROID = -1
"""The salt of a node whose rows go to the child with the nearest centroid."""

ROOT = 0
"""The node that is the whole pool; a cell while the pool is one."""

NO_BORDER = -2.0
"""A border so narrow that no row visits another cell."""

_LEAST_DISTANCE = 1e-6  # a pool of equal rows is at no distance from its centroid


@dataclass(frozen=True)
class Cells:
    """The fitted tree. A cell's id is its leaf's index, and stays its id until it is split.

    Attributes:
        centroids_CD: float32 unit vectors. Children of a node whose rows are dealt by a hash have
            none.
        nodes_C: int32 node that has each centroid, ascending.
        parents_K: int32 parent of each node, smaller than the node itself; -1 for node 0.
        salts_K: int64; how a node's rows are dealt to its children: ``BY_CENTROID``, or by a hash
            of their uids with this salt.
        similarity: Mean cosine similarity, at the fit, of rows that it did not see to the nearest
            centroid.
        border: How much less similar than its home another cell may be to a row that visits it.
        wanted_CF: For each centroid of the F children of node 0, in their order, how many rows of
            each of these cells have a row near it among their nearest, for each such row
            (``wanted_rows``); None: not counted.
    """

    centroids_CD: np.ndarray
    nodes_C: np.ndarray
    parents_K: np.ndarray
    salts_K: np.ndarray
    similarity: float
    border: float = NO_BORDER
    wanted_CF: csr_array | None = None

    @cached_property
    def revision(self) -> str:
        """The content key of the tree."""
        return content_key(
            "cells",
            self.centroids_CD.tobytes().hex(),
            self.nodes_C.tolist(),
            self.parents_K.tolist(),
            self.salts_K.tolist(),
            self.similarity,
            self.border,
            [part.tolist() for part in _parts(self.wanted_CF).values()],
        )

    @cached_property
    def children(self) -> dict[int, np.ndarray]:
        """The children of each divided node, ascending."""
        order = np.argsort(self.parents_K, kind="stable")[1:]
        divided, starts = np.unique(self.parents_K[order], return_index=True)
        return dict(zip(divided.tolist(), np.split(order, starts[1:]), strict=False))

    @cached_property
    def ids(self) -> np.ndarray:
        """The ids of the cells: the leaves, ascending."""
        return np.setdiff1d(np.arange(len(self.parents_K)), self.parents_K)

    @cached_property
    def places_K(self) -> np.ndarray:
        """For each node the highest node at or above it whose rows are dealt by hash, or itself.

        The cells of one place are alike, and have its centroids.
        """
        found = np.arange(len(self.parents_K))
        for node, parent in enumerate(self.parents_K.tolist()[1:], start=1):
            above = found[parent]
            found[node] = node if self.salts_K[above] == BY_CENTROID else above
        return found

    @cached_property
    def first_K(self) -> np.ndarray:
        """For each node the child of node 0 at or above it; 0 for node 0."""
        found = np.arange(len(self.parents_K))
        for node, parent in enumerate(self.parents_K.tolist()[1:], start=1):
            found[node] = found[parent] or node
        return found

    @property
    def split_share(self) -> float:
        """The share of the cells of the fit that were split since."""
        first = self.children.get(0, np.array([], dtype=np.int64)).tolist()
        return sum(node in self.children for node in first) / max(1, len(first))

    def centroids_of(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The centroids of some ascending nodes, and which of them has each, as a position."""
        kept = np.isin(self.nodes_C, nodes)
        return self.centroids_CD[kept], np.searchsorted(nodes, self.nodes_C[kept])

    def with_split(self, cell: int, division: Cells) -> Cells:
        """The tree in which a cell is divided as ``split_over_cap`` found.

        The division's node j becomes node ``len(parents_K) + j - 1``. Splits of several cells are
        added by ascending cell, so that ids do not depend on which was found first.

        Raises:
            ConfigError: There is no such cell.
        """
        if cell not in self.ids:
            raise ConfigError(f"there is no cell {cell}; it may have been split before")
        shift = len(self.parents_K) - 1
        parents = division.parents_K[1:]
        salts = np.concatenate([self.salts_K, division.salts_K[1:]])
        salts[cell] = division.salts_K[0]
        above = np.where(parents == 0, cell, parents + shift)
        return replace(
            self,
            centroids_CD=np.concatenate([self.centroids_CD, division.centroids_CD]),
            nodes_C=np.concatenate([self.nodes_C, division.nodes_C + shift]).astype(np.int32),
            parents_K=np.append(self.parents_K, above).astype(np.int32),
            salts_K=salts,
        )

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The tree as plain arrays; what cells want is as the parts of a sparse matrix."""
        return {
            "centroids": self.centroids_CD,
            "nodes": self.nodes_C,
            "parents": self.parents_K,
            "salts": self.salts_K,
            "similarity": np.array([self.similarity]),
            "border": np.array([self.border]),
            **_parts(self.wanted_CF),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """The tree that ``to_arrays`` gave.

        Raises:
            ShapeError: The arrays are no tree.
        """
        centroids = unit_vectors(arrays["centroids"])
        nodes, parents = (np.asarray(arrays[name], np.int32) for name in ("nodes", "parents"))
        salts = np.asarray(arrays["salts"], dtype=np.int64)
        is_tree = len(parents) > 0 and parents[0] == -1 and (parents[1:] >= 0).all()
        is_tree = is_tree and (parents < np.arange(len(parents))).all()
        fits = len(salts) == len(parents) and len(nodes) == len(centroids)
        fits = fits and (np.diff(nodes) >= 0).all() and (nodes < len(parents)).all()
        if not (is_tree and fits and np.isin(0, nodes)):
            raise ShapeError(f"{len(parents)} nodes with {len(centroids)} centroids are no tree")
        similarity, border = (float(np.ravel(arrays[name])[0]) for name in ("similarity", "border"))
        of_first = int((parents[nodes] == 0).sum())
        wanted = _wanted(arrays, of_first, int((parents == 0).sum()))
        return cls(centroids, nodes, parents, salts, similarity, border, wanted)


def _parts(wanted: csr_array | None) -> dict[str, np.ndarray]:
    """A sparse matrix as its parts; nothing for none."""
    if wanted is None:
        return {}
    return {
        "wanted": wanted.data,
        "wanted_cells": wanted.indices.astype(np.int32),
        "wanted_starts": wanted.indptr.astype(np.int64),
    }


def _wanted(arrays: Mapping[str, np.ndarray], rows: int, cells: int) -> csr_array | None:
    """The matrix that ``_parts`` took apart.

    Raises:
        ShapeError: The parts are of no such matrix.
    """
    if "wanted" not in arrays:
        return None
    parts = (arrays["wanted"], arrays["wanted_cells"], arrays["wanted_starts"])
    try:
        wanted = csr_array(parts, shape=(rows, cells))
        wanted.check_format(full_check=True)
        return wanted
    except ValueError as error:
        raise ShapeError(f"what cells want is no matrix: {error}") from error


def drift(similarity: float, cells: Cells) -> float:
    """How far the pool has moved from the fit, 0 for not at all. Refit at 0.25 and above.

    The larger of two: how much further new rows lie from the nearest centroids than rows did at the
    fit, as a share of that distance; and the share of the fit's cells that were split since. The
    first says that there are topics which no cell is for, so that borders, and with them visitors,
    grow; the second that the pool has outgrown the number of cells.

    Args:
        similarity: Mean of ``Places.similarities_N`` over the rows that came since the fit.
        cells: The partition as it is now.
    """
    further = (1.0 - similarity) / max(1.0 - cells.similarity, _LEAST_DISTANCE) - 1.0
    return max(0.0, further, cells.split_share)
