"""The true class of an example from its embedding: a logistic regression that knows the rater.

The model is softmax(W x + b), penalized by the strength of its prior on W. Where the rater's errors
T are known, what is maximized is the likelihood of what was observed,
sum_n log (softmax(W x_n + b) T)[rating_n] (forward correction), so that the softmax is of the true
class; without T it is of the class that the rater would give.

Models are fitted by folds of uids: one on all rows, and one without each fold, for the rows of
that fold. So no row is judged by a model that saw its own rating, and the strength of the prior is
chosen by how well these predict the ratings that they did not see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from mixup.errors import ShapeError
from mixup.quality.neighbors import unit_vectors
from mixup.quality.transition import UNRATED, nearest_classes

FOLDS = 5
STRENGTHS = (30.0, 10.0, 3.0, 1.0, 0.3)
"""Candidates: a weight's prior precision. A unit vector's logits vary by 1 / sqrt(strength)."""

_SEARCH_ROWS = 20_000  # the strength of a prior does not depend on the rows: so many choose it
_SHARE_FLOOR = 1e-12  # of a rating that the model rules out
_MOST_STEPS = 200
_CONVERGED = 1e-7  # relative fall of the loss
_FLAT = 1e-5  # largest slope of the mean loss
_BLOCK_ROWS = 8192  # of float64 at a time
_DECIMALS = 4  # of weights: float64 sums differ far below by the number of threads


@dataclass(frozen=True)
class Regression:
    """Fitted models: of all rows, then of all but those of fold 0, 1, ...

    Attributes:
        classes: The C rating classes, ascending.
        weights_FCD: float32, one matrix for each of 1 + ``FOLDS`` models.
        offsets_FC: float32.
        strength: The chosen prior precision of the weights.
    """

    classes: np.ndarray
    weights_FCD: np.ndarray
    offsets_FC: np.ndarray
    strength: float

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
        }

    @classmethod
    def from_json(cls, parts: Mapping[str, Any]) -> Regression:
        """What ``as_json`` gave."""
        weights, offsets = (np.array(parts[name], np.float32) for name in ("weights", "offsets"))
        return cls(np.array(parts["classes"]), weights, offsets, parts["strength"])

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
            q[rows] = _softmax(logits + self.offsets_FC[model])
        return q


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
    problem = _problem(vectors_LD, ratings_L, folds_L, classes, errors_CC)
    strength = strengths[0]
    if len(strengths) > 1:
        strength = _best_strength(problem.first(_SEARCH_ROWS), sorted(strengths, reverse=True))
    parts = [problem, *(problem.without(fold) for fold in range(FOLDS))]
    # Each starts anew: what a fold's model starts from must not have seen the fold either.
    models = np.stack([_fit(part, strength, part.start()) for part in parts])
    stacked = np.round(models, _DECIMALS).astype(np.float32)
    return Regression(np.asarray(classes), stacked[:, :, :-1], stacked[:, :, -1], strength)


@dataclass(frozen=True)
class _Problem:
    """Rows to fit, their columns of ratings, and the likelihood of each row's rating by class."""

    vectors: np.ndarray
    columns: np.ndarray
    chances: np.ndarray
    folds: np.ndarray

    def rows(self, chosen: np.ndarray | slice) -> _Problem:
        return _Problem(
            self.vectors[chosen], self.columns[chosen], self.chances[chosen], self.folds[chosen]
        )

    def first(self, rows: int) -> _Problem:
        return self.rows(slice(rows)) if len(self.folds) > rows else self

    def without(self, fold: int) -> _Problem:
        return self.rows(self.folds != fold)

    def start(self) -> np.ndarray:
        """No weights, and offsets by the shares of the ratings; of shape (C, D + 1)."""
        classes = self.chances.shape[1]
        start = np.zeros((classes, self.vectors.shape[1] + 1))
        start[:, -1] = np.log(np.bincount(self.columns, minlength=classes) + 1.0)
        return start


def _problem(
    vectors_LD: np.ndarray,
    ratings_L: np.ndarray,
    folds_L: np.ndarray,
    classes: np.ndarray,
    errors_CC: np.ndarray | None,
) -> _Problem:
    vectors, folds, classes = unit_vectors(vectors_LD), np.asarray(folds_L), np.asarray(classes)
    size = len(classes)
    if size < 2 or not len(vectors):
        raise ShapeError(f"{len(vectors)} rows of {size} classes; expected rows of two or more")
    if not len(vectors) == len(ratings_L) == len(folds):
        raise ShapeError(f"{len(vectors)} vectors, {len(ratings_L)} ratings, {len(folds)} folds")
    errors = np.eye(size) if errors_CC is None else np.asarray(errors_CC, dtype=np.float64)
    if errors.shape != (size, size):
        raise ShapeError(f"errors of shape {errors.shape} for {size} classes")
    columns = np.searchsorted(classes, nearest_classes(ratings_L, classes))
    return _Problem(vectors, columns, errors[:, columns].T, folds)


def _best_strength(problem: _Problem, strengths: Sequence[float]) -> float:
    """The strongest prior that tells of unseen folds as well as the best, within its noise.

    That is, whose log-likelihood of a row falls short of the best one's by no more than the
    standard error of their difference. Each fold begins with the strongest, whose fit starts that
    of the next one.

    Args:
        problem: The rows.
        strengths: Falling.
    """
    told = np.empty((len(strengths), len(problem.folds)))
    for fold in np.unique(problem.folds):
        rest = problem.without(fold)
        model, held = rest.start(), problem.folds == fold
        for place, strength in enumerate(strengths):
            model = _fit(rest, strength, model)
            told[place, held] = np.log(_likelihoods(problem.rows(held), model))
    short = told[told.mean(axis=1).argmax()] - told
    noise = short.std(axis=1) / np.sqrt(len(problem.folds))
    return float(strengths[int(np.argmax(short.mean(axis=1) <= noise))])


def _likelihoods(problem: _Problem, model: np.ndarray) -> np.ndarray:
    q = _softmax(problem.vectors.astype(np.float64) @ model[:, :-1].T + model[:, -1])
    return np.maximum((q * problem.chances).sum(axis=1), _SHARE_FLOOR)


def _fit(problem: _Problem, strength: float, start: np.ndarray) -> np.ndarray:
    """The weights, and in the last column the offsets, float64 of shape (C, D + 1).

    One more row, a zero vector that is of each class alike, keeps the offset of a class finite that
    no row of a fold has.
    """
    vectors, chances, shape = problem.vectors, problem.chances, start.shape
    rows = len(vectors) + 1

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        model = flat.reshape(shape)
        weights, offsets = model[:, :-1], model[:, -1]
        of_zero = _softmax(offsets[None])[0]
        total = strength / 2 * np.square(weights).sum() - np.log(of_zero + _SHARE_FLOOR).mean()
        gradient = np.empty(shape)
        gradient[:, :-1], gradient[:, -1] = strength * weights, of_zero - 1 / len(of_zero)
        for begin in range(0, len(vectors), _BLOCK_ROWS):
            block = vectors[begin : begin + _BLOCK_ROWS].astype(np.float64)
            q = _softmax(block @ weights.T + offsets)
            joint = q * chances[begin : begin + _BLOCK_ROWS]
            likelihood = np.maximum(joint.sum(axis=1), _SHARE_FLOOR)
            slope = q - joint / likelihood[:, None]  # of each row's logits: prior less posterior
            total -= np.log(likelihood).sum()
            gradient[:, :-1] += slope.T @ block
            gradient[:, -1] += slope.sum(axis=0)
        return total / rows, gradient.ravel() / rows

    limits = {"maxiter": _MOST_STEPS, "ftol": _CONVERGED, "gtol": _FLAT}
    found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options=limits)
    return found.x.reshape(shape)


def _softmax(logits: np.ndarray) -> np.ndarray:
    logits = np.asarray(logits, dtype=np.float64)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)
