"""Rows and cells that the tests of cells and places make."""

import numpy as np

from mixup.clusters.cells import BY_CENTROID, Cells
from mixup.clusters.partition import split_over_cap
from mixup.clusters.places import assign


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clumps(rows, seed=0, width=8, spread=0.3):
    rng = np.random.default_rng(seed)
    centers = unit(rng.normal(size=(max(1, rows // 20), width)))
    noise = spread * rng.normal(size=(rows, width)) / np.sqrt(width)
    return unit(centers[rng.integers(len(centers), size=rows)] + noise)


def names(rows):
    return [f"row {row}" for row in range(rows)]


def split_all(vectors, uids, cells, cap):
    """Splits every cell over the cap, as tasks that see one cell each would."""
    homes = assign(vectors, cells, uids=uids).homes_N
    for cell in np.unique(homes).tolist():
        rows = np.flatnonzero(homes == cell)
        division = split_over_cap(vectors[rows], [uids[row] for row in rows], cap=cap)
        if division is not None:
            cells = cells.with_split(cell, division)
    return cells


def same(a, b):
    np.testing.assert_array_equal(a.homes_N, b.homes_N)
    np.testing.assert_array_equal(a.visits_NV, b.visits_NV)
    np.testing.assert_array_equal(a.similarities_N, b.similarities_N)


def by_hand(*degrees, parents=None, salts=None, nodes=None):
    """Cells with centroids on the unit circle; node 0 is above them all."""
    angles = np.radians([0, *degrees])
    centroids = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    nodes = np.arange(len(angles)) if nodes is None else np.array([0, *nodes])
    parents = [-1] + [0] * int(nodes.max()) if parents is None else parents
    salts = [BY_CENTROID] * len(parents) if salts is None else salts
    arrays = {"centroids": centroids, "nodes": nodes}
    arrays |= {"parents": np.array(parents), "salts": np.array(salts)}
    return Cells.from_arrays({**arrays, "similarity": np.array([0.9]), "border": np.array([0.3])})


def at(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
