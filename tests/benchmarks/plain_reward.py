"""The paper's quality and alignment rewards by scikit-learn and sentence-transformers alone.

Written from the formulas of spec/lm-mixup.md, section 3.4: brute-force neighbors, a posterior
answer by answer, and an encoding of its own for each of the two rewards. Nothing of mixup is in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

NEIGHBORS, LIBRARY_NEIGHBORS, SMOOTHING = 16, 3, 0.01
ALIGNED_FROM = 0.8
ENCODED_AT_ONCE = 16  # as the paper's code does
_DECIMALS = 6


class PlainQuality:
    """KNN-Bayes over a library.

    Args:
        vectors_LD: The library's unit vectors.
        ratings_L: Their rating classes.
        slack: How many rows more than needed are looked at, so that cosines that are equal to 6
            decimals are ordered by the library's row, which scikit-learn leaves open; 0 leaves it.
    """

    def __init__(self, vectors_LD: np.ndarray, ratings_L: np.ndarray, *, slack: int = 0) -> None:
        self._slack, self._vectors_LD = slack, vectors_LD.astype(np.float64)
        self._nearest = NearestNeighbors(metric="cosine", algorithm="brute").fit(vectors_LD)
        self.classes, self._class_of_L = np.unique(ratings_L, return_inverse=True)
        count = len(self.classes)
        self.matrix_CC = np.full((count, count), SMOOTHING)
        for own, near in zip(self._class_of_L, self._near(None, LIBRARY_NEIGHBORS), strict=True):
            for other in self._class_of_L[near]:
                self.matrix_CC[own, other] += 1.0
        self.matrix_CC /= self.matrix_CC.sum(axis=1, keepdims=True)
        self.prior_C = np.bincount(self._class_of_L) / len(ratings_L) + 1e-8

    def expected(self, vectors_MD: np.ndarray) -> np.ndarray:
        """The posterior mean rating of each answer."""
        found = []
        for near in self._near(vectors_MD, NEIGHBORS):
            votes_C = np.bincount(self._class_of_L[near], minlength=len(self.classes))
            log_q = np.log(self.prior_C + 1e-12) + np.log(self.matrix_CC + 1e-12) @ votes_C
            q = np.exp(log_q - log_q.max())
            found.append(float(q @ self.classes) / float(q.sum()))
        return np.array(found)

    def rewards(self, vectors_MD: np.ndarray) -> list[float]:
        """1 where the mean rating is at least 4, 0.3 where it is exactly 3, else 0."""
        return [1.0 if e >= 4 else 0.3 if e == 3 else 0.0 for e in self.expected(vectors_MD)]

    def _near(self, vectors_MD: np.ndarray | None, count: int) -> np.ndarray:
        """The nearest rows of the library; of its own rows, without themselves."""
        if not self._slack:
            return self._nearest.kneighbors(vectors_MD, count, return_distance=False)
        there = len(self._class_of_L) - int(vectors_MD is None)
        width = min(count + self._slack, there)
        found = self._nearest.kneighbors(vectors_MD, width, return_distance=False)
        own = self._vectors_LD if vectors_MD is None else vectors_MD.astype(np.float64)
        pairs = zip(found, own, strict=True)
        cosines = [np.round(self._vectors_LD[near] @ one, _DECIMALS) for near, one in pairs]
        order = np.lexsort((found, -np.array(cosines)), axis=1)
        return np.take_along_axis(found, order, axis=1)[:, :count]


class PlainRewards:
    """Both rewards of answers, as a reward function computes them: a call of its own for each."""

    def __init__(self, encoder: Any, quality: PlainQuality) -> None:
        self._encoder, self._quality = encoder, quality

    def score(self, pairs: list[str], answers: list[str], golds: list[str]) -> list[list[float]]:
        """Quality of the pairs, and alignment of the answers with their gold answers."""
        quality = self._quality.rewards(self._encoded(pairs))
        vectors = self._encoded([*answers, *golds])
        cosines = np.sum(vectors[: len(answers)] * vectors[len(answers) :], axis=1)
        return [quality, [1.0 if cosine >= ALIGNED_FROM else 0.0 for cosine in cosines]]

    def _encoded(self, texts: list[str]) -> np.ndarray:
        return self._encoder.encode(
            texts, batch_size=ENCODED_AT_ONCE, normalize_embeddings=True, show_progress_bar=False
        ).astype(np.float32)
