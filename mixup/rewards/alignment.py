"""The alignment reward: does an answer mean what its target, or its inputs, mean?"""

from __future__ import annotations

from typing import Literal

import numpy as np

from mixup.errors import ConfigError, ShapeError

AlignmentMode = Literal["soft", "paper", "released_code"]


def alignment_score(
    answer_vector_D: np.ndarray,
    target_vectors_KD: np.ndarray,
    *,
    mode: AlignmentMode = "soft",
    low: float = 0.5,
    high: float = 0.8,
) -> float:
    """The alignment reward, in [0, 1], from the mean cosine of an answer to K targets.

    In training the target is the gold answer (K = 1); at application time no gold exists and the
    targets are the inputs of the cluster.

    Args:
        answer_vector_D: embedding of the answer.
        target_vectors_KD: embeddings of the targets, at least one.
        mode: soft: the mean cosine, rising from 0 at low to 1 at high; paper and released_code:
            1 when the mean cosine is at least high, else 0.
        low: cosine from which the soft reward is above 0; calibrated per encoder.
        high: cosine from which the reward is 1; calibrated per encoder.

    Raises:
        ShapeError: if the vectors do not fit, or one is zero or not finite.
        ConfigError: for an unknown mode, or low not below high.

    Source: LM-Mixup code, hard threshold 0.8 with BGE-M3. The soft form is ours: a step gives the
    trainer no slope.
    """
    answer_1D = np.atleast_2d(np.asarray(answer_vector_D))
    if len(answer_1D) != 1:
        raise ShapeError(f"expected one answer vector, got {len(answer_1D)}")
    mean = float(cosines(answer_1D, target_vectors_KD).mean())
    if mode == "soft":
        return float(ramp(mean, low=low, high=high))
    if mode in ("paper", "released_code"):
        return float(mean >= high)
    raise ConfigError(f"alignment mode {mode!r} is unknown; use soft, paper or released_code")


def cosines(a_ND: np.ndarray, b_MD: np.ndarray) -> np.ndarray:
    """Cosines (N, M), float64 in [-1, 1], between rows; the rows need not have unit norm.

    Raises:
        ShapeError: if the dimensions differ, a side is empty, or a row is zero or not finite.
    """
    a_ND, b_MD = _unit_rows(a_ND), _unit_rows(b_MD)
    if a_ND.shape[1] != b_MD.shape[1]:
        raise ShapeError(
            f"vectors of {a_ND.shape[1]} and of {b_MD.shape[1]} dimensions cannot be compared; "
            "embed both with one encoder"
        )
    return np.clip(a_ND @ b_MD.T, -1.0, 1.0)


def ramp(values: np.ndarray | float, *, low: float, high: float) -> np.ndarray:
    """Values mapped linearly from [low, high] to [0, 1] and clipped.

    Raises:
        ConfigError: if low is not below high.
    """
    if not low < high:
        raise ConfigError(f"low {low} must be below high {high}")
    return np.clip((np.asarray(values, dtype=np.float64) - low) / (high - low), 0.0, 1.0)


def _unit_rows(vectors_ND: np.ndarray) -> np.ndarray:
    vectors_ND = np.asarray(vectors_ND, dtype=np.float64)
    if vectors_ND.ndim != 2 or 0 in vectors_ND.shape:
        raise ShapeError(f"expected a non-empty matrix of vectors, got shape {vectors_ND.shape}")
    norms_N = np.linalg.norm(vectors_ND, axis=1)
    bad = np.flatnonzero(~np.isfinite(norms_N) | (norms_N == 0))
    if len(bad):
        raise ShapeError(
            f"vector {bad[0]} has norm {norms_N[bad[0]]}; a text without a usable embedding has "
            "no cosine: leave its score missing"
        )
    return vectors_ND / norms_N[:, None]
