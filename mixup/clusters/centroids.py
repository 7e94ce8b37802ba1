"""Centroids of unit vectors: fitted by spherical k-means, and the nearest one of a vector."""

from __future__ import annotations

import faiss
import numpy as np

SLACK = 1e-5
"""Float32 inner products of unit vectors differ by less than this between block layouts."""

_DECIMALS = 9  # of float64 inner products, so that equal ones are equal
_BLOCK_ROWS = 1024
_ROUNDS = 20
_ROWS_PER_CENTROID = 256  # more rows of a sample do not move a centroid by much


def nearest(vectors_ND: np.ndarray, centroids_KD: np.ndarray) -> np.ndarray:
    """The index of each unit vector's most similar centroid, the lower one among equals.

    Each vector is placed by itself: what rows are around it does not matter.

    Returns:
        int64 indices of shape (N,).
    """
    found = np.zeros(len(vectors_ND), dtype=np.int64)
    for start in range(0, len(vectors_ND), _BLOCK_ROWS):
        block = vectors_ND[start : start + _BLOCK_ROWS]
        rough = block @ centroids_KD.T
        row, column = np.nonzero(rough >= rough.max(axis=1, keepdims=True) - SLACK)
        if len(row) > len(block):
            exact = own_products(block[row], centroids_KD[column])
            column = column[most_similar(row, column, exact, 1)[0]]
        found[start : start + _BLOCK_ROWS] = column
    return found


def own_products(vectors_ND: np.ndarray, others_ND: np.ndarray) -> np.ndarray:
    """The inner product of each row of one with the same row of the other, as float64.

    Each is summed by itself, so it is the same whatever rows are around it, which a matrix product
    in blocks does not promise.
    """
    products = np.multiply(vectors_ND, others_ND, dtype=np.float64)
    return np.round(products.sum(axis=1), _DECIMALS)


def most_similar(
    row_P: np.ndarray, owner_P: np.ndarray, similarity_P: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """The most similar owners of each row, each once, of some pairs with centroids of theirs.

    Returns:
        The places of their pairs, by ascending row and then most similar first, and their ranks
        from 0; ties go to the lower owner.
    """
    order = np.lexsort((owner_P, -similarity_P, row_P))
    row, owner = row_P[order], owner_P[order]
    pair = row * (int(owner.max(initial=0)) + 1) + owner
    first = np.sort(np.unique(pair, return_index=True)[1])
    row = row[first]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    kept = rank < most
    return order[first[kept]], rank[kept]


def mean_direction(vectors_ND: np.ndarray) -> np.ndarray:
    """The unit vector (1, D) of the mean, or the first row where the mean has no direction."""
    mean = vectors_ND.mean(axis=0, dtype=np.float64, keepdims=True)
    norm = float(np.linalg.norm(mean))
    return (mean / norm).astype(np.float32) if norm > SLACK else vectors_ND[:1].copy()


def sorted_rows(vectors_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order that sorts rows by content, and which of the sorted rows are the first of equals.

    The order of rows in a file must not decide a fit.
    """
    rows = np.ascontiguousarray(vectors_ND + np.float32(0))  # -0.0 becomes 0.0
    content = rows.view(np.dtype((np.void, rows.shape[1] * rows.itemsize))).ravel()
    order = np.argsort(content, kind="stable")
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = content[order][1:] != content[order][:-1]
    return order, is_first


def fit_centroids(vectors_ND: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Centroids (K, D) by spherical k-means: distinct float32 unit vectors, each with some row.

    K is the count, or less where there are fewer distinct rows or clusters came out empty. Neither
    the order of the rows nor the number of threads decides the result.

    Args:
        vectors_ND: Unit vectors, at least one.
        count: Centroids wanted.
        seed: Of the rows from which k-means starts.
    """
    order, is_first = sorted_rows(vectors_ND)
    vectors = vectors_ND[order]
    if count >= is_first.sum():
        return _without_empty(vectors[is_first], vectors)
    kmeans = faiss.Kmeans(
        vectors.shape[1],
        max(1, count),
        niter=_ROUNDS,
        spherical=True,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=_ROWS_PER_CENTROID,
    )
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # sums by several threads are in no fixed order
    try:
        kmeans.train(vectors)
    finally:
        faiss.omp_set_num_threads(threads)
    return _without_empty(np.asarray(kmeans.centroids, dtype=np.float32), vectors)


def _without_empty(centroids: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The centroids that are unit vectors and the nearest of some row; FAISS makes up others."""
    norms = np.linalg.norm(centroids, axis=1)
    centroids = centroids[np.abs(norms - 1.0) < 1e-3]  # a NaN compares false
    if not len(centroids):
        return mean_direction(vectors)
    return centroids[np.unique(nearest(vectors, centroids))]
