"""Exact nearest neighbors by cosine similarity, and near-duplicates, inside one cell."""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np

from mixup.errors import ShapeError

SIMILARITY_DECIMALS = 6
"""Similarities are rounded to this many decimals: float32 sums differ below it by block layout."""

_NORM_TOLERANCE = 1e-2  # vectors that went through float16 are off by about 1e-3
_QUERY_ROWS = 4096
_LEADER_ROWS = 512
_TIED_ROWS = 256
_SLACK = 8  # extra candidates per query, so that most ties at the cut are settled at once


@dataclass(frozen=True)
class Neighbors:
    """The nearest base rows of each query, most similar first.

    Attributes:
        indices_MK: int64 rows of the base.
        similarities_MK: float32 cosine similarities, rounded to ``SIMILARITY_DECIMALS``.
    """

    indices_MK: np.ndarray
    similarities_MK: np.ndarray


def unit_vectors(vectors_ND: np.ndarray) -> np.ndarray:
    """The vectors as C-contiguous float32, checked to be finite and of unit norm.

    Raises:
        ShapeError: Not a matrix, or a row that is not finite or not of unit norm (within 0.01).
    """
    vectors = np.ascontiguousarray(vectors_ND, dtype=np.float32)
    if vectors.ndim != 2:
        raise ShapeError(f"vectors have shape {vectors.shape}; expected (rows, dimensions)")
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    bad = np.flatnonzero(~(np.abs(norms - 1.0) <= _NORM_TOLERANCE))  # a NaN compares false
    if bad.size:
        raise ShapeError(
            f"{bad.size} of {len(vectors)} vectors are not of unit norm, first row {bad[0]} "
            f"(norm {norms[bad[0]]}); normalize them and leave out rows without an embedding"
        )
    return vectors


def check_order(order_N: np.ndarray, rows: int) -> np.ndarray:
    """The ranks as an array, checked to be one distinct finite number a row.

    Raises:
        ShapeError: The length is not ``rows``, or two rows have the same rank, or one is NaN.
    """
    order = np.asarray(order_N)
    if order.shape != (rows,):
        raise ShapeError(f"order has shape {order.shape}; expected ({rows},)")
    if np.unique(order).size != rows or (order.dtype.kind == "f" and np.isnan(order).any()):
        raise ShapeError("order has repeated or missing ranks; expected one distinct rank a row")
    return order


def rounded(similarities: np.ndarray) -> np.ndarray:
    """Similarities as float32 rounded to ``SIMILARITY_DECIMALS``, so that equal ones are equal."""
    return np.round(np.asarray(similarities, dtype=np.float32), SIMILARITY_DECIMALS)


def top_k(
    queries_MD: np.ndarray,
    base_ND: np.ndarray,
    k: int,
    *,
    exclude_self: bool = False,
    own_M: np.ndarray | None = None,
) -> Neighbors:
    """The k most similar base rows of each query, by exact inner product.

    Equal similarities (after rounding) are ordered by base row, also at the cut. K is k, or less
    when the base is smaller; where any query leaves a row out, every query gets at most N - 1.

    Args:
        queries_MD: Unit vectors.
        base_ND: Unit vectors.
        k: Neighbors wanted, at least 1.
        exclude_self: The queries are the base's rows in order; each leaves out its own row. Exact
            duplicates of it stay in.
        own_M: For each query the base row to leave out, -1 for none; for a base that holds only
            some of the queries.

    Raises:
        ShapeError: Vectors are not unit vectors of the same dimension, k is not positive, or the
            excluded rows do not fit.
    """
    queries, base = unit_vectors(queries_MD), unit_vectors(base_ND)
    if queries.shape[1] != base.shape[1] or k < 1:
        raise ShapeError(f"queries {queries.shape}, base {base.shape}, k={k} do not fit together")
    own = _own_rows(len(queries), len(base), own_M, exclude_self=exclude_self)
    width = min(k, len(base) - int((own >= 0).any()))
    indices = np.empty((len(queries), width), dtype=np.int64)
    similarities = np.empty((len(queries), width), dtype=np.float32)
    if width > 0:
        index = faiss.IndexFlatIP(base.shape[1])
        index.add(base)
        for start in range(0, len(queries), _QUERY_ROWS):
            rows = slice(start, start + _QUERY_ROWS)
            indices[rows], similarities[rows] = _search(
                index, queries[rows], base, own[rows], width
            )
    return Neighbors(indices, similarities)


def _own_rows(
    queries: int, base: int, own_M: np.ndarray | None, *, exclude_self: bool
) -> np.ndarray:
    if exclude_self and (own_M is not None or queries != base):
        raise ShapeError(f"exclude_self needs the base as queries: {queries} against {base} rows")
    if exclude_self:
        return np.arange(queries)
    own = np.full(queries, -1) if own_M is None else np.asarray(own_M)
    if own.shape != (queries,) or (own >= base).any():
        raise ShapeError(f"excluded rows of shape {own.shape} do not fit {queries} queries")
    return own


def _search(
    index: faiss.IndexFlatIP, queries: np.ndarray, base: np.ndarray, own: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    fetch = min(len(base), width + 1 + _SLACK)
    found, candidates = index.search(queries, fetch)
    similarities = rounded(found)
    similarities[candidates == own[:, None]] = -np.inf
    order = np.lexsort((candidates, -similarities), axis=1)
    candidates = np.take_along_axis(candidates, order, axis=1)
    similarities = np.take_along_axis(similarities, order, axis=1)
    if fetch < len(base):
        # The last column may be the excluded row itself, so look at the last real candidate.
        last = np.where(np.isinf(similarities[:, -1]), similarities[:, -2], similarities[:, -1])
        tied = np.flatnonzero(last >= similarities[:, width - 1])
        for start in range(0, len(tied), _TIED_ROWS):
            rows = tied[start : start + _TIED_ROWS]
            every = rounded(queries[rows] @ base.T)
            for row, of_row in zip(rows, every, strict=True):
                best = _best_of(of_row, int(own[row]), width)
                candidates[row, :width], similarities[row, :width] = best, of_row[best]
    return candidates[:, :width], similarities[:, :width]


def _best_of(similarities: np.ndarray, own: int, width: int) -> np.ndarray:
    """The best rows among all, for a query with more ties at the cut than the slack."""
    if own >= 0:
        similarities[own] = -np.inf
    cut = np.partition(similarities, len(similarities) - width)[len(similarities) - width]
    above = np.flatnonzero(similarities > cut)
    above = above[np.argsort(-similarities[above], kind="stable")]
    return np.concatenate([above, np.flatnonzero(similarities == cut)[: width - len(above)]])


def near_duplicate_of(vectors_ND: np.ndarray, order_N: np.ndarray, threshold: float) -> np.ndarray:
    """For each row the row that represents it: itself, or the oldest one that it duplicates.

    Leader clustering, oldest row first: a row becomes a leader unless its own similarity to an
    earlier leader reaches the threshold; it then belongs to the oldest such leader. So a chain of
    pairwise similar rows is not glued into one duplicate, and newer rows never change what older
    ones belong to. Every pair of row and leader is compared, so groups of any size are complete.
    The result does not depend on the order of the rows.

    Args:
        vectors_ND: Unit vectors.
        order_N: Distinct ranks, smallest = oldest.
        threshold: Lowest cosine similarity of a row and its representative.

    Returns:
        int64 row indices of shape (N,).

    Raises:
        ShapeError: Vectors or ranks are not as stated.
    """
    vectors = unit_vectors(vectors_ND)
    by_age = np.argsort(check_order(order_N, len(vectors)), kind="stable")
    vectors = vectors[by_age]
    limit = np.float32(threshold)
    leaders = np.empty(0, dtype=np.int64)
    leader_of = np.arange(len(vectors))
    for start in range(0, len(vectors), _LEADER_ROWS):
        block = np.arange(start, min(start + _LEADER_ROWS, len(vectors)))
        if leaders.size:
            near = rounded(vectors[block] @ vectors[leaders].T) >= limit
            covered = near.any(axis=1)
            leader_of[block[covered]] = leaders[near[covered].argmax(axis=1)]
            block = block[~covered]
        found = _leaders_within(vectors[block], limit)
        leader_of[block] = block[found]
        leaders = np.concatenate([leaders, block[found == np.arange(len(block))]])
    result = np.empty(len(vectors), dtype=np.int64)
    result[by_age] = by_age[leader_of]
    return result


def _leaders_within(vectors: np.ndarray, limit: np.float32) -> np.ndarray:
    near = rounded(vectors @ vectors.T) >= limit
    leader_of = np.full(len(vectors), -1)
    for row in range(len(vectors)):
        if leader_of[row] < 0:
            later = near[row] & (leader_of < 0)
            later[row] = True  # a unit norm within tolerance may fall below a limit of 1
            leader_of[later] = row
    return leader_of
