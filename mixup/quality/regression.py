"""The true class of an example from its embedding: a logistic regression that knows the rater.

The model is softmax(W x + b), penalized by the strength of its prior on W. Where the rater's errors
T are known, what is maximized is the likelihood of what was observed,
sum_n log (softmax(W x_n + b) T)[rating_n] (forward correction), so that the softmax is of the true
class; without T it is of the class that the rater would give.

Models are fitted by folds of uids: one on all rows, and one without each fold, for the rows of
that fold. So no row is judged by a model that saw its own rating, and the strength of the prior is
chosen by how well these predict the ratings that they did not see.

Where a fifth of real rows is rated it ranks the others better than the votes of neighbors do, by
0.02 to 0.04 of AUC (``tests/benchmarks/bench_quality.py``). An ordinal model did no better, nor did
votes on top of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixup.errors import ShapeError
from mixup.quality.regression_solver import best_strength, problem_of, softmax, solve
from mixup.quality.transition import UNRATED

FOLDS = 5
STRENGTHS = (30.0, 10.0, 3.0, 1.0, 0.3)
"""Candidates: a weight's prior precision. A unit vector's logits vary by 1 / sqrt(strength)."""

_SEARCH_ROWS = 20_000  # the strength of a prior does not depend on the rows: so many choose it
_DECIMALS = 4  # of weights: float64 sums differ far below by the number of threads


@dataclass(frozen=True)
class Regression:
    """Fitted models: of all rows, then of all but those of fold 0, 1, ...

    Attributes:
        classes: The C rating classes, ascending.
        weights_FCD: float32, one matrix for each of 1 + ``FOLDS`` models.
        offsets_FC: float32.
        strength: The chosen prior precision of the weights.
        errors_CC: P(rating = column | true class = row), with which the models were fitted; None:
            their classes are those that the rater gives.
    """

    classes: np.ndarray
    weights_FCD: np.ndarray
    offsets_FC: np.ndarray
    strength: float
    errors_CC: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Raises ShapeError where the parts do not fit each other."""
        models, classes = 1 + FOLDS, len(self.classes)
        shapes = self.weights_FCD.shape[:2], self.offsets_FC.shape
        if shapes != ((models, classes), (models, classes)) or self.weights_FCD.ndim != 3:
            raise ShapeError(
                f"{models} models of {classes} classes have weights {self.weights_FCD.shape} and "
                f"offsets {self.offsets_FC.shape}"
            )

    def as_json(self) -> dict[str, Any]:
        """The parts as JSON data, exactly."""
        return {
            "classes": self.classes.tolist(),
            "weights": self.weights_FCD.tolist(),
            "offsets": self.offsets_FC.tolist(),
            "strength": self.strength,
            "errors": None if self.errors_CC is None else self.errors_CC.tolist(),
        }

    @classmethod
    def from_json(cls, parts: Mapping[str, Any]) -> Regression:
        """What ``as_json`` gave."""
        weights, offsets = (np.array(parts[name], np.float32) for name in ("weights", "offsets"))
        errors = None if parts["errors"] is None else np.array(parts["errors"])
        return cls(np.array(parts["classes"]), weights, offsets, parts["strength"], errors)

    def probabilities(self, vectors_MD: np.ndarray, folds_M: np.ndarray) -> np.ndarray:
        """P(class), float64 of shape (M, C).

        Args:
            vectors_MD: Unit vectors.
            folds_M: ``folds_of_rated`` the rows.

        Raises:
            ShapeError: Vectors of another dimension, or folds that do not fit.
        """
        vectors, folds = np.asarray(vectors_MD, dtype=np.float32), np.asarray(folds_M)
        dimension = self.weights_FCD.shape[2]
        if vectors.ndim != 2 or vectors.shape[1] != dimension:
            raise ShapeError(f"vectors have shape {vectors.shape}; expected (rows, {dimension})")
        if folds.shape != (len(vectors),) or (
            folds.size and not -1 <= folds.min() <= folds.max() < FOLDS
        ):
            raise ShapeError(f"folds must be one a row, from -1 to {FOLDS - 1}")
        q = np.empty((len(vectors), len(self.classes)))
        for model in np.unique(folds + 1):
            rows = folds + 1 == model
            # Not a matrix product, in which a row's last bits depend on the rows beside it.
            logits = np.einsum("md,cd->mc", vectors[rows], self.weights_FCD[model])
            q[rows] = softmax(logits + self.offsets_FC[model])
        return q

    def observed(self, q_MC: np.ndarray) -> np.ndarray:
        """P(rating that the rater gives), (M, C), where P(class) is q."""
        return q_MC if self.errors_CC is None else q_MC @ self.errors_CC


def folds_of(uids: Sequence[str]) -> np.ndarray:
    """The fold of each record, int64 from 0 to ``FOLDS`` - 1: its uid's first 60 bits, modulo."""
    return np.fromiter((int(uid[:15], 16) % FOLDS for uid in uids), np.int64, len(uids))


def folds_of_rated(ratings_N: np.ndarray, uids: Sequence[str]) -> np.ndarray:
    """The folds of rated rows, and -1 for unrated ones, as ``Regression.probabilities`` wants."""
    return np.where(np.asarray(ratings_N) == UNRATED, UNRATED, folds_of(uids))


def fit_regression(
    vectors_LD: np.ndarray,
    ratings_L: np.ndarray,
    folds_L: np.ndarray,
    classes: np.ndarray,
    errors_CC: np.ndarray | None = None,
    strengths: Sequence[float] = STRENGTHS,
) -> Regression:
    """The models of a library of rated rows, the same for any number of threads.

    Args:
        vectors_LD: Unit vectors. Near-duplicates must have been left out.
        ratings_L: Observed ratings 0-5; one that is not among the classes counts as the nearest.
        folds_L: ``folds_of`` the rows.
        classes: The C rating classes, at least two.
        errors_CC: P(rating = column | true class = row); None: the ratings are the truth.
        strengths: Candidates for the prior's precision.

    Raises:
        ShapeError: Arrays that do not fit each other, fewer than two classes, or no row.

    Source: Patrini et al. 2017 for the forward correction; Breiman et al. 1984 for the rule of one
    standard error, by which the strength is chosen.
    """
    problem = problem_of(vectors_LD, ratings_L, folds_L, classes, errors_CC)
    strength = strengths[0]
    if len(strengths) > 1:
        strength = best_strength(problem.thinned(_SEARCH_ROWS), sorted(strengths, reverse=True))
    parts = [problem, *(problem.without(fold) for fold in range(FOLDS))]
    # Each starts anew: what a fold's model starts from must not have seen the fold either.
    models = np.stack([solve(part, strength, part.start()) for part in parts])
    stacked = np.round(models, _DECIMALS).astype(np.float32)
    weights, offsets = stacked[:, :, :-1], stacked[:, :, -1]
    return Regression(np.asarray(classes), weights, offsets, strength, errors_CC)
