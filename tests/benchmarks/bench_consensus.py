"""Planted data: the transition by consensus, suspicious ratings, and the tempered posterior.

    pytest tests/benchmarks/bench_consensus.py -s -o python_files='bench_*.py'

Prints figures, asserts none of them.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from planted_ratings import (
    PRIOR,
    calibration_error,
    copied,
    topics,
    triples,
    true_matrix,
    voted,
)

from mixup.quality.consensus import consensus_counts
from mixup.quality.consensus_solver import Loss, expected_shares, solve_consensus
from mixup.quality.posterior import at_least, posterior
from mixup.quality.shrinkage import transition_of
from mixup.quality.suspicion import find_suspicions
from mixup.quality.tempering import best_votes, tempering_sums
from mixup.quality.transition import Transition

SEEDS = 10
TRUE = true_matrix()
CASES = [(50_000, 1.0), (50_000, 0.9), (50_000, 0.75), (50_000, 0.6), (20_000, 1.0), (5_000, 1.0)]


def counts_of(found: np.ndarray, replicates: int = 0) -> np.ndarray:
    """The counts of triples."""
    own, first, second = found.T
    return consensus_counts(own, first, second, np.arange(len(own)), replicates=replicates)


def figures(name: str, errors: np.ndarray) -> None:
    """Print the median, lowest and highest of the largest errors of T."""
    print(f"  {name:52} {np.median(errors):.4f} ({errors.min():.4f} to {errors.max():.4f})")


@pytest.mark.parametrize("loss", ["likelihood", "norms"])
def test_solver(loss: Loss) -> None:
    print(f"\nlargest error of T, {loss}, {SEEDS} seeds: median (lowest to highest)")
    exact = solve_consensus(expected_shares(TRUE, PRIOR)[None], loss=loss).matrix_BCC
    figures("exact consensus", np.abs(exact - TRUE).max(axis=(1, 2)))
    for rows, clusterability in CASES:
        pools = [triples(rows, clusterability=clusterability, seed=seed) for seed in range(SEEDS)]
        counts = np.concatenate([counts_of(pool) for pool in pools])
        start = time.perf_counter()
        found = solve_consensus(counts, loss=loss).matrix_BCC
        seconds = (time.perf_counter() - start) / SEEDS
        name = f"{rows:,} rows, clusterability {clusterability} ({seconds:.2f} s each)"
        figures(name, np.abs(found - TRUE).max(axis=(1, 2)))


def test_duplicates() -> None:
    pool, duplicate = copied(triples(500_000), 0.9)
    print("\nlargest error of T, 500,000 rows, nine in ten with copies as neighbors")
    for name, rows in (("left out first", pool[~duplicate]), ("counted", pool)):
        matrix = solve_consensus(counts_of(rows)).matrix_BCC[0]
        error, diagonal = np.abs(matrix - TRUE).max(), np.round(np.diag(matrix), 2)
        print(f"  {name:16} {error:.4f}, diagonal {diagonal}")


def test_intervals_and_fallback() -> None:
    print("\nerror of T, largest and mean: as solved -> as chosen; intervals' coverage; widest")
    for rows, clusterability in [*CASES, (2_000, 1.0), (1_000, 1.0)]:
        lines, source = [], set()
        for seed in range(3):
            pool = triples(rows, clusterability=clusterability, seed=seed)
            chosen = transition_of(counts_of(pool, replicates=60))
            consensus = chosen.consensus
            if consensus is None or chosen.transition is None:
                continue
            if len(chosen.transition.classes) < len(TRUE):
                continue
            source.add(f"{chosen.source}: {consensus.reason}")
            solved = np.abs(consensus.transition.matrix_CC - TRUE)
            final = np.abs(chosen.transition.matrix_CC - TRUE)
            covered = (consensus.low_CC <= TRUE) & (consensus.high_CC >= TRUE)
            width = (consensus.high_CC - consensus.low_CC).max()
            lines.append(
                [solved.max(), solved.mean(), final.max(), final.mean(), covered.mean(), width]
            )
        a, b, c, d, share, width = np.median(lines, axis=0)
        name = f"{rows:,} rows, clusterability {clusterability}"
        print(f"  {name:36} {a:.3f} {b:.3f} -> {c:.3f} {d:.3f}; {share:.2f}; {width:.2f} {source}")


@pytest.mark.parametrize("faithful", [False, True])
def test_suspicious_ratings(faithful: bool) -> None:
    vectors, truth, ratings = topics(3_000)
    transition, wrong = Transition(np.arange(6), TRUE, PRIOR), ratings != truth
    start = time.perf_counter()
    found = find_suspicions(ratings, vectors, np.arange(3_000), transition, faithful=faithful)
    seconds = time.perf_counter() - start
    print(f"\n3,000 ratings, {wrong.mean():.3f} wrong, faithful {faithful}, {seconds:.1f} s")
    precision, recall = wrong[found.suspicious_N].mean(), found.suspicious_N[wrong].mean()
    print(f"  precision {precision:.3f}, recall {recall:.3f}")
    print(f"  right ratings: {1 - wrong.mean():.3f} -> {(found.curated_N == truth).mean():.3f}")


def test_tempering() -> None:
    print("\ncalibration error of P(class >= 4): at the chosen votes, at 4, at each vote fully")
    for shared in (0.3, 0.5, 0.7, 0.8, 0.9, 1.0):
        truth, votes, ratings = voted(20_000, shared=shared)
        transition = Transition(np.arange(6), TRUE, PRIOR)
        chosen = best_votes(tempering_sums(votes, ratings, transition))
        errors = []
        for effective in (chosen, 4.0, None):
            q = posterior(votes, transition, effective_votes=effective)
            errors.append(calibration_error(at_least(q, np.arange(6), 4), truth >= 4))
        name = f"{shared} of a topic alike: {chosen} votes"
        print(f"  {name:32} " + " ".join(f"{error:.4f}" for error in errors))
