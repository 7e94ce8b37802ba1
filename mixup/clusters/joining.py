"""Small parts are joined to cells that are nearly full and cut few neighbors apart.

k-means alone makes cells of any size, and its borders run through crowds. Here it makes many small
parts, and these are joined: first those that share the most neighbors for their sizes, as long as
a cell has room; then single parts move to a cell of which they have more neighbors. That is a
partition of the graph of parts, by agglomeration and the moves of Fiduccia and Mattheyses (1982).
"""

from __future__ import annotations

import heapq

import numpy as np
from scipy.sparse import coo_array, csr_array

from mixup.quality.neighbors import top_k

_MOST_ROUNDS = 10
_ALIKE_PARTS = 4  # that are joined where they share no neighbors
_ALIKE = 1e-6  # what being alike counts, in neighbors: it decides where nothing else does


def join_parts(
    shared_CC: csr_array, centroids_CD: np.ndarray, rows_C: np.ndarray, most: float
) -> np.ndarray:
    """The cell of each part, from 0, so that no cell of several parts has more than ``most`` rows.

    No two cells fit into one before single parts move, so there are at most twice as many as need
    be. A part that is larger than ``most`` is a cell by itself.

    Args:
        shared_CC: Neighbors shared by parts, symmetric, with an empty diagonal.
        centroids_CD: Unit vectors; parts that share no neighbors are joined if these are alike.
        rows_C: Rows of each part, positive.
        most: Most rows of a cell.
    """
    linked = csr_array(shared_CC + _alike(centroids_CD))
    groups = _Groups(linked, centroids_CD, rows_C, most)
    groups.join_neighbors()
    groups.join_the_rest()
    cell = _moved(groups.cells(), shared_CC, rows_C, most)
    _, first, number = np.unique(cell, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number]


def _alike(centroids: np.ndarray) -> csr_array:
    """A weak link, symmetric, between each part and those that are most alike."""
    parts = len(centroids)
    near = top_k(centroids, centroids, _ALIKE_PARTS, exclude_self=True)
    row = np.repeat(np.arange(parts), near.indices_MK.shape[1])
    weight = _ALIKE * np.maximum(near.similarities_MK.ravel(), _ALIKE).astype(np.float64)
    one_way = coo_array((weight, (row, near.indices_MK.ravel())), shape=(parts, parts)).tocsr()
    return csr_array(one_way.maximum(one_way.T))


class _Groups:
    """Groups of parts as they grow; a group has the number of one of its parts."""

    def __init__(
        self, shared: csr_array, centroids: np.ndarray, rows: np.ndarray, most: float
    ) -> None:
        self._most = most
        self._rows: list[float] = rows.tolist()
        self._members = {part: [part] for part in range(len(rows))}
        self._sums = {part: rows[part] * centroids[part] for part in range(len(rows))}
        self._shared: list[dict[int, float]] = [
            dict(
                zip(
                    shared.indices[start:end].tolist(),
                    shared.data[start:end].tolist(),
                    strict=True,
                )
            )
            for start, end in zip(shared.indptr[:-1], shared.indptr[1:], strict=True)
        ]

    def join_neighbors(self) -> None:
        """Join groups with room for each other, those first that share the most for their sizes."""
        waiting = [
            self._entry(one, other)
            for one, others in enumerate(self._shared)
            for other in others
            if one < other and self._fits(one, other)
        ]
        heapq.heapify(waiting)
        while waiting:
            entry = heapq.heappop(waiting)
            _, one, other = entry
            are_left = one in self._members and other in self._members
            if not (are_left and entry == self._entry(one, other) and self._fits(one, other)):
                continue  # they have grown, or become part of others, since the entry was made
            self._join(one, other)
            for near in self._shared[one]:
                if self._fits(one, near):
                    heapq.heappush(waiting, self._entry(min(one, near), max(one, near)))

    def join_the_rest(self) -> None:
        """Join what has no room in its neighborhood, the smallest to the most alike with room."""
        while len(self._members) > 1:
            smallest = min(self._members, key=lambda group: (self._rows[group], group))
            room = [other for other in self._members if other != smallest]
            room = sorted(other for other in room if self._fits(smallest, other))
            if not room:
                return
            sums = np.array([self._sums[other] for other in room])
            norms = np.maximum(np.linalg.norm(sums, axis=1), np.finfo(np.float64).tiny)
            alike = sums @ self._sums[smallest] / norms
            other = room[int(alike.argmax())]
            self._join(min(smallest, other), max(smallest, other))

    def cells(self) -> np.ndarray:
        """The group of each part, numbered from 0."""
        found = np.empty(len(self._rows), dtype=np.int64)
        for number, members in enumerate(self._members.values()):
            found[members] = number
        return found

    def _fits(self, one: int, other: int) -> bool:
        return self._rows[one] + self._rows[other] <= self._most

    def _entry(self, one: int, other: int) -> tuple[float, int, int]:
        closeness = self._shared[one][other] / (self._rows[one] * self._rows[other])
        return -closeness, one, other

    def _join(self, one: int, other: int) -> None:
        """Make one group of two."""
        self._rows[one] += self._rows[other]
        self._members[one] += self._members.pop(other)
        self._sums[one] = self._sums[one] + self._sums.pop(other)
        for near, count in self._shared[other].items():
            del self._shared[near][other]
            if near != one:
                self._shared[one][near] = self._shared[one].get(near, 0.0) + count
                self._shared[near][one] = self._shared[one][near]
        self._shared[other] = {}


def _moved(cell: np.ndarray, shared: csr_array, rows: np.ndarray, most: float) -> np.ndarray:
    """The cells after each part could move to where it has more neighbors, and there is room."""
    cell = cell.copy()
    cells = int(cell.max()) + 1
    held = np.bincount(cell, weights=rows, minlength=cells)
    for _ in range(_MOST_ROUNDS):
        moved = False
        for part in range(len(cell)):
            near = slice(shared.indptr[part], shared.indptr[part + 1])
            counts = np.bincount(
                cell[shared.indices[near]], weights=shared.data[near], minlength=cells
            )
            here = cell[part]
            is_open = held + rows[part] <= most
            is_open[here] = True
            best = int(np.where(is_open, counts, -1.0).argmax())
            if counts[best] > counts[here]:
                held[here] -= rows[part]
                held[best] += rows[part]
                cell[part], moved = best, True
        if not moved:
            break
    return cell
