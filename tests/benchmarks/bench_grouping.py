"""Our grouping inside cells against the paper's flat clustering: time, and how alike members are.

    MIXUP_BENCH_POOL=DIR make bench ARGS="-k bench_grouping"

DIR is the workspace of ``make pool``. ``MIXUP_BENCH_FLAT`` are the rows of the comparison
(16000,40000), ``MIXUP_BENCH_SIZES`` the sizes of the groups (2-5,2-20), ``MIXUP_BENCH_GROWTH`` the
rows of the cost's exponent (50000,400000). Where there are fewer vectors than rows, the rest are
jittered copies of them, and the output says so. Seconds are CPU time of all threads: set
OMP_NUM_THREADS=1 for fair ones.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from real_vectors import needs_pool, real_vectors

from mixup.clusters.grouping import group
from mixup.clusters.partition import CAP_ROWS, fit_cells, sample_rows, split_over_cap
from mixup.clusters.places import assign

pytestmark = [needs_pool, pytest.mark.timeout(7200)]
FLAT = os.environ.get("MIXUP_BENCH_FLAT", "16000,40000")
SIZES = os.environ.get("MIXUP_BENCH_SIZES", "2-5,2-20")
GROWTH = os.environ.get("MIXUP_BENCH_GROWTH", "50000,400000")
FLOOR = 0.6
TOKENS = 100
JITTER = 0.3  # norm of the noise; a copy is about .96 like its row, and .92 like another copy


@dataclass(frozen=True)
class Found:
    """Groups as rows, and the CPU seconds they took."""

    groups: list[np.ndarray]
    seconds: float

    @property
    def rows(self) -> int:
        return sum(len(members) for members in self.groups)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """The pool's; what libraries do at their first call is done."""
    found = real_vectors()
    ours(found[:5000], 2, 5)
    return found


def enough(vectors: np.ndarray, rows: int) -> np.ndarray:
    """So many rows: real ones, then jittered copies of them."""
    copies = vectors[np.arange(rows) % len(vectors)]
    noise = np.random.default_rng(1).normal(size=(max(0, rows - len(vectors)), vectors.shape[1]))
    noise *= JITTER / math.sqrt(vectors.shape[1])
    copies[len(vectors) :] += noise.astype(np.float32)
    return copies / np.linalg.norm(copies, axis=1, keepdims=True)


def ours(vectors: np.ndarray, smallest: int, largest: int) -> Found:
    """The cells are fitted, and the rows of each are grouped; none visits another cell."""
    start = time.process_time()
    uids = [str(row) for row in range(len(vectors))]
    sampled = np.random.default_rng(2).permutation(len(vectors))[: sample_rows(len(vectors))]
    sample = vectors[sampled]
    cells = fit_cells(sample, rows=len(vectors), copies=1)
    homes = assign(vectors, cells, most=1).homes_N
    large = np.flatnonzero(np.bincount(homes) > CAP_ROWS).tolist()
    for cell in large:
        rows = np.flatnonzero(homes == cell)
        division = split_over_cap(vectors[rows], [uids[row] for row in rows])
        cells = cells if division is None else cells.with_split(cell, division)
    if large:
        homes = assign(vectors, cells, most=1, uids=uids).homes_N
    groups = []
    for cell in cells.ids.tolist():
        rows = np.flatnonzero(homes == cell)
        found = group(
            vectors[rows],
            tokens_N=np.full(len(rows), TOKENS),
            labels_N=np.full(len(rows), "qa"),
            order_N=rows,
            floor=FLOOR,
            min_size=smallest,
            max_size=largest,
            max_tokens=TOKENS * largest,
        )
        groups += [rows[members] for members in found.members]
    return Found(groups, time.process_time() - start)


def papers(vectors: np.ndarray, smallest: int, largest: int) -> Found:
    """The capacity-constrained k-means of spec/lm-mixup.md, section 4.2, written anew.

    Mean 3 and deviation 1 for sizes up to 5, as its example has them, else 10 and 3, its defaults.
    """
    start = time.process_time()
    random = np.random.default_rng(42)
    mean, deviation = (3, 1) if largest <= 5 else (10, 3)
    capacity = capacities(random, len(vectors), mean, deviation, smallest, largest)
    centroids = flat_centroids(vectors, len(capacity))
    of = placed(vectors, centroids, capacity)
    order = np.argsort(of, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(of[order])) + 1)
    return Found([g for g in groups if len(g) >= smallest], time.process_time() - start)


def checked(found: Found, rows: int, smallest: int, largest: int) -> Found:
    """The groups: of the wanted sizes, and no row in two, or they cannot be compared."""
    members = np.concatenate(found.groups)
    assert len(members) == len(np.unique(members))
    assert 0 <= members.min() <= members.max() < rows
    assert all(smallest <= len(group) <= largest for group in found.groups)
    return found


def capacities(
    random: np.random.Generator, rows: int, mean: float, deviation: float, low: int, high: int
) -> np.ndarray:
    """Sizes drawn until their sum is the rows; the last is trimmed."""
    drawn = np.clip(np.round(random.normal(mean, deviation, rows)), low, high).astype(np.int64)
    last = int(np.searchsorted(np.cumsum(drawn), rows))
    drawn = drawn[: last + 1]
    drawn[-1] -= drawn.sum() - rows
    return random.permutation(drawn)


def flat_centroids(vectors: np.ndarray, count: int) -> np.ndarray:
    """Of scikit-learn's MiniBatchKMeans with the paper's settings, else of FAISS's k-means."""
    try:
        from sklearn.cluster import MiniBatchKMeans
    except ImportError:
        import faiss

        kmeans = faiss.Kmeans(vectors.shape[1], count, niter=30, seed=42, min_points_per_centroid=1)
        kmeans.train(vectors)
        found = np.asarray(kmeans.centroids)
    else:
        settings: dict[str, Any] = {"batch_size": 2048, "max_iter": 30, "n_init": 1}
        model = MiniBatchKMeans(n_clusters=count, random_state=42, **settings)
        found = np.asarray(model.fit(vectors).cluster_centers_)
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


def placed(vectors: np.ndarray, centroids: np.ndarray, capacity: np.ndarray) -> np.ndarray:
    """For each row, best first, its most similar centroid that has a place left.

    The paper's code walks each row's whole ranking of the centroids; here only those with places
    left are compared, which gives the same and spares memory for rows x centroids.
    """
    best = np.concatenate([(part @ centroids.T).max(axis=1) for part in blocks(vectors)])
    left = capacity.copy()
    of = np.empty(len(vectors), dtype=np.int64)
    order = np.argsort(-best, kind="stable")
    for rows in blocks(order):
        similarity = vectors[rows] @ centroids.T
        similarity[:, left == 0] = -np.inf
        for row, of_row in zip(rows, similarity, strict=True):
            while left[cluster := int(of_row.argmax())] == 0:
                of_row[cluster] = -np.inf
            of[row] = cluster
            left[cluster] -= 1
    return of


def blocks(array: np.ndarray, rows: int = 512) -> list[np.ndarray]:
    return [array[start : start + rows] for start in range(0, len(array), rows)]


def cosine(vectors: np.ndarray, groups: list[np.ndarray], share: float) -> float:
    """Mean cosine of the pairs in the most alike groups, up to a share of the rows.

    Each row counts alike: a group's mean is weighted by its members.
    """
    means = []
    for members in groups:
        first, second = np.triu_indices(len(members), 1)
        of_pairs = (vectors[members] @ vectors[members].T)[first, second]
        means.append((float(of_pairs.mean()), len(members)))
    total = weighted = 0.0
    for mean, size in sorted(means, reverse=True):
        taken = min(size, share * len(vectors) - total)
        total, weighted = total + taken, weighted + mean * taken
    return weighted / total


def sizes() -> list[tuple[int, int]]:
    found = [pair.split("-") for pair in SIZES.split(",")]
    return [(int(smallest), int(largest)) for smallest, largest in found]


@pytest.mark.timeout(0)
def test_against_the_papers_flat_clustering(vectors: np.ndarray) -> None:
    print()
    for rows in map(int, FLAT.split(",")):
        some = enough(vectors, rows)
        copies = max(0, rows - len(vectors))
        print(f"  {rows:,} rows, {copies:,} of them jittered copies; CPU seconds")
        for smallest, largest in sizes():
            mine = checked(ours(some, smallest, largest), rows, smallest, largest)
            theirs = checked(papers(some, smallest, largest), rows, smallest, largest)
            share = mine.rows / rows
            a, b = cosine(some, mine.groups, share), cosine(some, theirs.groups, share)
            print(
                f"    sizes {smallest}-{largest}: ours {mine.seconds:.2f} s, the paper's "
                f"{theirs.seconds:.2f} s: {theirs.seconds / mine.seconds:.1f} times; cosine over "
                f"the best {share:.0%} of the rows {a:.3f} against {b:.3f}: {a / b:.3f} times"
            )


@pytest.mark.timeout(0)
def test_growth(vectors: np.ndarray) -> None:
    rows = [int(value) for value in GROWTH.split(",")]
    print()
    for smallest, largest in sizes():
        took = []
        for count in rows:
            found = ours(enough(vectors, count), smallest, largest)
            took.append(checked(found, count, smallest, largest).seconds)
        exponent = math.log(took[-1] / took[0]) / math.log(rows[-1] / rows[0])
        told = ", ".join(
            f"{count:,} rows {seconds:.1f} s" for count, seconds in zip(rows, took, strict=True)
        )
        print(f"  sizes {smallest}-{largest}: {told}: cost grows with rows ^ {exponent:.2f}")
