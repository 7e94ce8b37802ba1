"""The long-tail score: how far an example lies from its nearest others."""

from __future__ import annotations

import numpy as np

from mixup.errors import ShapeError
from mixup.quality.neighbors import Neighbors


def long_tail_scores(neighbors: Neighbors, k: int = 15) -> np.ndarray:
    """The mean cosine distance to the k nearest others, float32 of shape (N,), at least 0.

    Fewer than k neighbors are averaged as they are; a row without any has NaN.

    Args:
        neighbors: The nearest others of each row; the row itself must not be among them.
        k: How many of them count, at least 1.

    Raises:
        ShapeError: k is not positive.

    Source: spec/lm-mixup.md, section 4.2 step 8. DS2 (section 8.5) counts the row itself and
    rounds a float16 sigmoid, which leaves many ties; the plain float32 mean ranks the same way.
    """
    if k < 1:
        raise ShapeError(f"k is {k}; expected at least 1")
    nearest = neighbors.similarities_MK[:, :k]
    if nearest.shape[1] == 0:
        return np.full(len(nearest), np.nan, dtype=np.float32)
    distance = 1.0 - nearest.astype(np.float32)
    return np.clip(distance.mean(axis=1, dtype=np.float32), 0.0, None)
