"""Places: the cell to which each row belongs, and the cells that it visits as a neighbor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixup.clusters.cells import BY_CENTROID, Cells
from mixup.clusters.centroids import SLACK, most_similar, nearest, own_products
from mixup.errors import ConfigError, ShapeError
from mixup.quality.neighbors import unit_vectors
from mixup.records import content_key

BORDER = 0.3
"""The default width of the border: about 2.5 cells a row with MiniLM. ``bench_cells`` has more."""

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
    border: float = BORDER,
    most: int = 3,
    uids: Sequence[str] | None = None,
) -> Places:
    """The home of each row, and the cells that it visits because it is near their border.

    The home is found from node 0 down: at each node the child with the nearest centroid, the lower
    id among equals. So splitting one cell moves only its own rows. Each row is placed by itself:
    the order of the rows, and which others there are, do not matter.

    A row visits the cells with the nearest other centroids, while their similarity is at least
    that of the home's nearest centroid less ``border``. The parts of a cell whose rows are dealt by
    hash count as one: a row of one part does not visit the others (its likes are in its own).

    Args:
        vectors_ND: Unit vectors.
        cells: The partition.
        border: Width of the border, in cosine similarity.
        most: Most cells that a row is in, its home among them.
        uids: The rows' uids; only needed where rows of a cell are dealt by hash.

    Raises:
        ShapeError: Vectors are not unit vectors of the centroids' dimension, or uids do not fit.
        ConfigError: The border is negative or ``most`` not positive.
    """
    vectors = unit_vectors(vectors_ND)
    if vectors.shape[1] != cells.centroids_CD.shape[1]:
        raise ShapeError(f"vectors {vectors.shape}, centroids {cells.centroids_CD.shape}")
    if not (border >= 0 and most >= 1):
        raise ConfigError(f"border {border}, most {most}: expected border >= 0, most >= 1")
    if uids is not None and len(uids) != len(vectors):
        raise ShapeError(f"{len(uids)} uids for {len(vectors)} vectors")
    homes = np.zeros(len(vectors), dtype=np.int32)
    visits = np.full((len(vectors), most - 1), -1, dtype=np.int32)
    similarities = np.zeros(len(vectors), dtype=np.float32)
    step = max(1, _BLOCK_VALUES // len(cells.centroids_CD))
    for start in range(0, len(vectors), step):
        rows = slice(start, start + step)
        names = None if uids is None else uids[rows]
        homes[rows] = _leaves(vectors[rows], names, cells, np.zeros(len(homes[rows]), np.int32))
        block = _Block(vectors[rows], names, homes[rows], cells)
        similarities[rows] = block.to_home_N
        if most > 1:
            visits[rows] = block.visits(border, most - 1)
    return Places(homes, visits, similarities)


def part_of(uid: str, salt: int, parts: int) -> int:
    """The part, 0 to parts - 1, to which a hash deals a row."""
    return int(content_key(salt, uid)[:16], 16) % parts


def _leaves(
    vectors: np.ndarray, uids: Sequence[str] | None, cells: Cells, nodes: np.ndarray
) -> np.ndarray:
    """The leaf below each row's node."""
    nodes = nodes.copy()
    while divided := [node for node in np.unique(nodes).tolist() if node in cells.children]:
        for node in divided:
            rows, children = np.flatnonzero(nodes == node), cells.children[node]
            salt = int(cells.salts_K[node])
            if salt == BY_CENTROID:
                centroids, owner = cells.centroids_of(children)
                part = owner[nearest(vectors[rows], centroids)]
            elif uids is None:
                raise ShapeError(f"the rows of cell {node} are dealt by hash; give their uids")
            else:
                part = np.array([part_of(uids[int(row)], salt, len(children)) for row in rows])
            nodes[rows] = children[part]
    return nodes


class _Block:
    """Some rows whose homes are known, and their similarities to all centroids."""

    def __init__(
        self,
        vectors: np.ndarray,
        uids: Sequence[str] | None,
        homes: np.ndarray,
        cells: Cells,
    ) -> None:
        self._vectors, self._uids, self._cells = vectors, uids, cells
        self._places = np.unique(cells.places_K[cells.ids])
        self._centroids, self._owner = cells.centroids_of(self._places)
        home = np.searchsorted(self._places, cells.places_K[homes])
        self._others = vectors @ self._centroids.T
        at_home = self._owner == home[:, None]
        inside = np.where(at_home, self._others, -np.inf)
        self._others[at_home] = -np.inf
        row, _, exact = self._exact(inside, inside.max(axis=1))
        self.to_home_N = np.maximum.reduceat(exact, np.searchsorted(row, np.arange(len(homes))))

    def _exact(
        self, rough: np.ndarray, least: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The pairs of row and centroid at or above a rough limit; their exact similarities."""
        row, column = np.nonzero(rough >= least[:, None] - SLACK)
        return row, column, own_products(self._vectors[row], self._centroids[column])

    def visits(self, border: float, most: int) -> np.ndarray:
        """The cells visited by each row, nearest first, -1 for none."""
        found = np.full((len(self._vectors), most), -1, dtype=np.int32)
        starts = np.flatnonzero(np.diff(self._owner, prepend=-1))
        of_places = np.maximum.reduceat(self._others, starts, axis=1)
        last = min(most, len(starts)) - 1
        cut = -np.partition(-of_places, last, axis=1)[:, last]
        least = self.to_home_N - border
        row, column, exact = self._exact(self._others, np.maximum(cut, least))
        near = exact >= least[row]
        row, place, rank = most_similar(row[near], self._owner[column[near]], exact[near], most)
        names = None if self._uids is None else [self._uids[int(at)] for at in row]
        found[row, rank] = _leaves(self._vectors[row], names, self._cells, self._places[place])
        return found
