"""Rows and the cells near to them: their homes, and which others want to see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixup.clusters.cells import BY_CENTROID, Cells
from mixup.clusters.centroids import SLACK, most_similar, nearest, own_products
from mixup.errors import ShapeError
from mixup.quality.neighbors import rounded
from mixup.records import content_key

_WANTED = 1 / 3
"""A cell that wants a row e times as much counts as nearer by this share of a row's mean distance
from its centroid. By a Poisson regression of what cells want of real rows it is about a half where
rows may visit any number of cells; with ``MOST_COPIES`` at most, a third finds the most."""

_HARDLY_WANTED = 0.05  # rows of a cell that want a row, from which it counts
_DECIMALS = 4  # of what cells are nearer by


def part_of(uid: str, salt: int, parts: int) -> int:
    """The part, 0 to parts - 1, to which a hash deals a row."""
    return int(content_key(salt, uid)[:16], 16) % parts


@dataclass(frozen=True)
class Homes:
    """Where some rows are at home.

    Attributes:
        cells_N: int32 id of each row's own cell.
        similarities_N: float64 cosine similarities to the nearest of its centroids.
        parts_N: The nearest centroid of each row among those of node 0's children, by its place.
    """

    cells_N: np.ndarray
    similarities_N: np.ndarray
    parts_N: np.ndarray


def homes_of(vectors_ND: np.ndarray, uids: Sequence[str] | None, cells: Cells) -> Homes:
    """The homes of some rows, each found by itself.

    Args:
        vectors_ND: Unit vectors.
        uids: Their uids; only needed where rows of a cell are dealt by hash.
        cells: The partition.

    Raises:
        ShapeError: Uids are needed, and there are none.
    """
    root = np.zeros(len(vectors_ND), dtype=np.int32)
    leaves, centroids, parts = _descend(vectors_ND, uids, cells, root)
    return Homes(leaves, own_products(vectors_ND, cells.centroids_CD[centroids]), parts)


def _descend(
    vectors: np.ndarray, uids: Sequence[str] | None, cells: Cells, nodes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The leaf below each row's node, the last centroid on the way, and the place of the first."""
    nodes = nodes.copy()
    last, first = np.zeros(len(nodes), dtype=np.int64), np.zeros(len(nodes), dtype=np.int64)
    while divided := [node for node in np.unique(nodes).tolist() if node in cells.children]:
        for node in divided:
            rows, children = np.flatnonzero(nodes == node), cells.children[node]
            salt = int(cells.salts_K[node])
            if salt == BY_CENTROID:
                of_children = np.flatnonzero(np.isin(cells.nodes_C, children))
                near = nearest(vectors[rows], cells.centroids_CD[of_children])
                last[rows] = of_children[near]
                if node == 0:
                    first[rows] = near
                nodes[rows] = cells.nodes_C[last[rows]]
            elif uids is None:
                raise ShapeError(f"the rows of cell {node} are dealt by hash; give their uids")
            else:
                part = [part_of(uids[int(row)], salt, len(children)) for row in rows]
                nodes[rows] = children[part]
    return nodes, last, first


class Nearby:
    """Some rows, and how near they are to all cells but their own."""

    def __init__(
        self, vectors: np.ndarray, uids: Sequence[str] | None, cells: Cells, homes: Homes
    ) -> None:
        self._vectors, self._uids, self._cells = vectors, uids, cells
        self._to_home_N = homes.similarities_N
        self._places = np.unique(cells.places_K[cells.ids])
        self._centroids, self._owner = cells.centroids_of(self._places)
        self._nearer_NP = _nearer(homes.parts_N, cells, self._places)
        self._rough_NC = vectors @ self._centroids.T
        starts = np.flatnonzero(np.diff(self._owner, prepend=-1))
        self._rough_NP = np.maximum.reduceat(self._rough_NC, starts, axis=1)
        home = np.searchsorted(self._places, cells.places_K[homes.cells_N])[:, None]
        np.put_along_axis(self._rough_NP, home, -np.inf, axis=1)
        self._near_NP = self._rough_NP + self._nearer_NP

    def visits(self, border: float, most: int) -> np.ndarray:
        """The cells visited by each row, nearest first, -1 for none (N, most)."""
        found = np.full((len(self._vectors), most), -1, dtype=np.int32)
        least = np.maximum(self._cut(most), self._to_home_N - border) - SLACK
        row, column = np.nonzero(self._is_nearest(self._near_NP >= least[:, None]))
        place = self._owner[column]
        similarity = self._exact(row, column) + self._nearer_NP[row, place]
        near = np.flatnonzero(similarity >= self._to_home_N[row] - border)
        best, rank = most_similar(row[near], place[near], similarity[near], most)
        row, place = row[near[best]], place[near[best]]
        names = None if self._uids is None else [self._uids[int(at)] for at in row]
        below = _descend(self._vectors[row], names, self._cells, self._places[place])
        found[row, rank] = below[0]
        return found

    def gaps(self, most: int) -> np.ndarray:
        """By how much the home is nearer than each of the nearest other cells, (N, most) or less.

        Rounded, as ``quality.neighbors`` does.
        """
        others = rounded(self._rough_NP) + self._nearer_NP
        others = -np.sort(-others, axis=1)[:, : min(most, others.shape[1] - 1)]
        return self._to_home_N[:, None] - others

    def _cut(self, most: int) -> np.ndarray:
        """How near the last of the nearest other cells is, roughly, for each row."""
        last = min(most, self._near_NP.shape[1]) - 1
        return -np.partition(-self._near_NP, last, axis=1)[:, last]

    def _is_nearest(self, among_NP: np.ndarray) -> np.ndarray:
        """Which centroids (N, C) may be the nearest of their place, for some places of each row."""
        least = np.where(among_NP, self._rough_NP - SLACK, np.inf)
        return self._rough_NC >= least[:, self._owner]

    def _exact(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """The similarities of pairs of row and centroid."""
        return own_products(self._vectors[row], self._centroids[column])


def _nearer(part: np.ndarray, cells: Cells, places: np.ndarray) -> np.ndarray:
    """By how much each place counts as nearer to rows of some parts, in cosine similarity."""
    if cells.wanted_CF is None:
        return np.zeros((len(part), len(places)))
    wanted = cells.wanted_CF[part].toarray()[:, cells.first_K[places] - 1]
    scale = _WANTED * max(0.0, 1.0 - cells.similarity)
    return np.round(scale * np.log1p(wanted / _HARDLY_WANTED), _DECIMALS)
