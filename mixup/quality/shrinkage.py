"""The transition a pool gets: by consensus where it is trusted, else shrunk to a simple one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixup.quality.consensus import (
    Consensus,
    ConsensusSettings,
    counted_classes,
    estimate_consensus,
)
from mixup.quality.transition import Transition

SOURCES = ("consensus", "shrunk", "one_class", "none")
FEWEST_SAMPLES = 100
"""With fewer samples even the simple transition is a guess."""

_RELIABILITIES = np.arange(0.30, 0.99, 0.02)
_DECAYS = np.array([0.0, 0.25, 0.5, 0.75, 1.0])  # 0 is tridiagonal, 1 symmetric
_PRIOR_STEPS = 100
_FLOOR = 1e-9  # share of a triple that a model rules out


@dataclass(frozen=True)
class ChosenTransition:
    """Which transition a pool gets, and why.

    Attributes:
        transition: None where the source is ``none``.
        source: One of ``SOURCES``.
        detail: Why it is not the consensus, in words; empty where it is.
        own_share_C: The share of each row that its own counts decide, 0-1.
        consensus: The estimate it was chosen from; None where nothing was counted.
    """

    transition: Transition | None
    source: str
    detail: str
    own_share_C: np.ndarray
    consensus: Consensus | None


def transition_of(
    counts_BCCC: np.ndarray,
    classes: np.ndarray | None = None,
    settings: ConsensusSettings | None = None,
) -> ChosenTransition:
    """The transition by consensus where it is trusted, else one that is shrunk row by row.

    T_shrunk[i] = w_i T[i] + (1 - w_i) S[i] with w_i = max(0, 1 - V_i / D_i), where
    V_i = sum_j Var(T_ij) over the bootstrap and D_i = sum_j (T_ij - S_ij)^2. S is
    ``structured_transition``. So a row that its counts decide stays, and a row that differs from
    S by no more than its own noise becomes S. Without replicates w = 0. p is fitted again.

    Args:
        counts_BCCC: From ``consensus_counts``, added up over cells.
        classes: The classes of the axes; None: all six. Those that never occur are left out.
        settings: When the consensus is trusted; None: the defaults.

    Raises:
        ShapeError: The counts do not fit the classes.

    Source: spec/lm-mixup.md, section 8.6 (small sets: symmetric or tridiagonal with shrinkage);
    the formula is ours, after James and Stein.
    """
    consensus = estimate_consensus(counts_BCCC, classes, settings)
    if consensus is None:
        return ChosenTransition(None, "none", "no triple of ratings", np.empty(0), None)
    own, whole = consensus.transition, np.ones(len(consensus.transition.classes))
    if consensus.reason == "one_rating_class":
        return ChosenTransition(own, "one_class", consensus.detail, whole, consensus)
    if consensus.trusted:
        return ChosenTransition(own, "consensus", "", whole, consensus)
    if consensus.samples < FEWEST_SAMPLES:
        detail = f"{consensus.samples} samples; at least {FEWEST_SAMPLES} are needed"
        return ChosenTransition(None, "none", detail, 0 * whole, consensus)
    counts = counted_classes(counts_BCCC, classes)[0][0]
    simple = structured_transition(counts, own.classes)
    noise = consensus.variance_CC.sum(axis=1)
    distance = np.square(own.matrix_CC - simple.matrix_CC).sum(axis=1)
    share = np.clip(1 - noise / np.maximum(distance, _FLOOR), 0.0, 1.0)
    share = np.nan_to_num(share, nan=0.0)
    matrix = share[:, None] * own.matrix_CC + (1 - share)[:, None] * simple.matrix_CC
    prior, _ = _fit_priors(counts, matrix[None])
    shrunk = Transition(own.classes, matrix, prior[0])
    return ChosenTransition(shrunk, "shrunk", consensus.detail, share, consensus)


def structured_transition(counts_CCC: np.ndarray, classes: np.ndarray) -> Transition:
    """The likeliest transition of two numbers: reliability a and decay b.

    S_ii = a, and S_ij is in proportion to b ** (|i - j| - 1), where i and j are places among the
    classes: b = 0 is tridiagonal, b = 1 spreads errors evenly. p is free.

    Args:
        counts_CCC: Counts of (own, first, second rating).
        classes: The C classes, at least two.
    """
    steps = np.abs(np.subtract.outer(np.arange(len(classes)), np.arange(len(classes))))
    spread = _DECAYS[:, None, None] ** np.maximum(steps - 1, 0) * (steps > 0)
    spread /= spread.sum(axis=2, keepdims=True)
    reliable = _RELIABILITIES[:, None, None, None]
    matrices = reliable * np.eye(len(classes)) + (1 - reliable) * spread
    matrices = matrices.reshape(-1, len(classes), len(classes))
    priors, likelihoods = _fit_priors(counts_CCC, matrices)
    best = int(likelihoods.argmax())
    return Transition(np.asarray(classes), matrices[best], priors[best])


def _fit_priors(counts: np.ndarray, matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest p of each of G matrices by expectation maximization; and its likelihood."""
    models, classes = matrices.shape[:2]
    seen = np.flatnonzero(counts)
    shares = counts.reshape(-1)[seen] / counts.sum()
    j, first, second = np.unravel_index(seen, counts.shape)
    of_class = matrices[:, :, j] * matrices[:, :, first] * matrices[:, :, second]
    priors = np.full((models, 1, classes), 1 / classes)
    for _ in range(_PRIOR_STEPS):
        ratio = shares / np.maximum(priors @ of_class, _FLOOR)
        priors = priors * (ratio @ of_class.swapaxes(1, 2))
        priors = np.maximum(priors, _FLOOR) / np.maximum(priors, _FLOOR).sum(-1, keepdims=True)
    likelihood = np.log(np.maximum(priors @ of_class, _FLOOR))[:, 0] @ shares
    return priors[:, 0], likelihood
