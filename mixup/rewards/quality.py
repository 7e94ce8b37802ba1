"""The quality reward: a posterior over rating classes turned into a number in [0, 1].

The posterior is that of the votes (KNN-Bayes) where a policy is trained, and by default where
samples are filtered: a policy that is rewarded by a direction in the embedding space learns to go
that way, while votes are those of examples that it has to resemble. A filter is not learned from,
so that a refresh may take the regression that tells quality in curation (``reward.predictor``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from mixup.errors import ConfigError, ShapeError

QualityMode = Literal["soft", "paper", "released_code"]

_NEARLY = 0.3  # Source: LM-Mixup code, what one class below the threshold is worth
_SUM_TOLERANCE = 1e-3  # float32 posteriors of a few classes sum to 1 well within this


def quality_score(
    q_C: np.ndarray,
    classes: Sequence[int] | np.ndarray,
    *,
    mode: QualityMode = "soft",
    threshold: int = 4,
) -> float:
    """The quality reward, in [0, 1], of a posterior over ratings.

    Args:
        q_C: posterior over the C classes; sums to 1.
        classes: the rating, 0 to 5, of each class, in the order of q_C.
        mode: soft: P(rating >= threshold) + 0.3 P(rating = threshold - 1); paper: 1, 0.3 or 0 by
            the most probable class (the lower one of a tie); released_code: 1 if the mean rating
            is at least the threshold, 0.3 if it equals threshold - 1 exactly, else 0.
        threshold: lowest rating that counts as high quality.

    Raises:
        ShapeError: if q_C and classes do not fit, or q_C is not a distribution.
        ConfigError: for an unknown mode.

    Source: LM-Mixup code, where the 0.3 branch compares floats for equality and never holds, and
    a posterior mean of 3.98 earns 0; soft keeps the intent and has a slope.
    """
    q_C, classes_C = _distribution(q_C, classes)
    if mode == "soft":
        nearly = q_C[classes_C == threshold - 1].sum()
        return float(min(1.0, q_C[classes_C >= threshold].sum() + _NEARLY * nearly))
    if mode == "paper":
        return _step(float(_most_probable(q_C, classes_C)), threshold)
    if mode == "released_code":
        return _step(float(q_C @ classes_C), threshold)
    raise ConfigError(f"quality mode {mode!r} is unknown; use soft, paper or released_code")


def _step(rating: float, threshold: int) -> float:
    if rating >= threshold:
        return 1.0
    return _NEARLY if rating == threshold - 1 else 0.0


def _most_probable(q_C: np.ndarray, classes_C: np.ndarray) -> int:
    return int(classes_C[q_C == q_C.max()].min())


def _distribution(
    q_C: np.ndarray, classes: Sequence[int] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    q_C, classes_C = np.asarray(q_C, dtype=np.float64), np.asarray(classes)
    if q_C.ndim != 1 or q_C.shape != classes_C.shape or not len(q_C):
        raise ShapeError(f"posterior {q_C.shape} does not fit classes {classes_C.shape}")
    if not (np.all(q_C >= 0) and abs(q_C.sum() - 1) <= _SUM_TOLERANCE):
        raise ShapeError(
            f"posterior {q_C.tolist()} is not a distribution; where it could not be computed "
            "leave the score missing"
        )
    return q_C, classes_C
