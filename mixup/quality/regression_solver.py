"""Fitting a penalized multinomial regression to ratings with known errors, by L-BFGS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize

from mixup.errors import ShapeError
from mixup.quality.neighbors import unit_vectors
from mixup.quality.transition import nearest_classes

_SHARE_FLOOR = 1e-12  # of a rating that the model rules out
_MOST_STEPS = 200
_CONVERGED = 1e-7  # relative fall of the loss
_FLAT = 1e-5  # largest slope of the mean loss
_BLOCK_ROWS = 8192  # of float64 at a time


@dataclass(frozen=True)
class Problem:
    """What is fitted.

    Attributes:
        vectors: float32 unit vectors, (N, D).
        columns: Each row's rating as a column of the classes, (N,).
        chances: The likelihood of each row's rating by true class, (N, C).
        folds: The fold of each row, (N,).
    """

    vectors: np.ndarray
    columns: np.ndarray
    chances: np.ndarray
    folds: np.ndarray

    def rows(self, chosen: np.ndarray) -> Problem:
        """Some of the rows."""
        return Problem(
            self.vectors[chosen], self.columns[chosen], self.chances[chosen], self.folds[chosen]
        )

    def with_errors(self, errors_CC: np.ndarray) -> Problem:
        """The same rows, rated with other errors."""
        return replace(self, chances=np.asarray(errors_CC, np.float64)[:, self.columns].T)

    def thinned(self, most: int) -> Problem:
        """Rows at even distances, so many at most."""
        rows = len(self.folds)
        kept = min(rows, most)
        return self.rows(np.arange(kept) * rows // max(kept, 1))

    def without(self, fold: int) -> Problem:
        """The rows of the other folds."""
        return self.rows(self.folds != fold)

    def start(self) -> np.ndarray:
        """No weights, and offsets by the shares of the ratings; of shape (C, D + 1)."""
        classes = self.chances.shape[1]
        start = np.zeros((classes, self.vectors.shape[1] + 1))
        start[:, -1] = np.log(np.bincount(self.columns, minlength=classes) + 1.0)
        return start


def problem_of(
    vectors_LD: np.ndarray,
    ratings_L: np.ndarray,
    folds_L: np.ndarray,
    classes: np.ndarray,
    errors_CC: np.ndarray | None,
) -> Problem:
    """The problem of ``fit_regression``, checked.

    Raises:
        ShapeError: As there.
    """
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
    return Problem(vectors, columns, np.empty((0, 0)), folds).with_errors(errors)


class HeldOut:
    """What regressions say of ratings that they did not see, fold by fold.

    Each starts from the one before it, of the same fold.
    """

    def __init__(self, problem: Problem) -> None:
        self._models = {
            fold: problem.without(fold).start() for fold in np.unique(problem.folds).tolist()
        }

    def log_likelihoods(self, problem: Problem, strength: float) -> np.ndarray:
        """Of each row's rating by the model without its fold, of shape (N,).

        Args:
            problem: The same rows, with the same errors of the rater or others.
            strength: Prior precision of the weights.
        """
        log_N = np.empty(len(problem.folds))
        for fold, model in self._models.items():
            held = problem.folds == fold
            found = solve(problem.without(fold), strength, model)
            log_N[held] = np.log(_likelihoods(problem.rows(held), found))
            self._models[fold] = found
        return log_N


def standard_errors_below(best_N: np.ndarray, other_N: np.ndarray) -> float:
    """By how many standard errors of the mean difference of rows one falls short of the best."""
    gaps_N = best_N - other_N
    noise = gaps_N.std() / np.sqrt(len(gaps_N))
    return float(gaps_N.mean() / noise) if noise else 0.0


def best_strength(problem: Problem, strengths: Sequence[float]) -> float:
    """The strongest prior that tells of unseen folds as well as the best, within its noise.

    That is, whose log-likelihood of a row falls short of the best one's by no more than the
    standard error of their difference.

    Args:
        problem: The rows.
        strengths: Falling.
    """
    held_out = HeldOut(problem)
    told = [held_out.log_likelihoods(problem, strength) for strength in strengths]
    best_N = max(told, key=np.mean)
    alike = [standard_errors_below(best_N, log_N) <= 1 for log_N in told]
    return float(strengths[alike.index(True)])


def _likelihoods(problem: Problem, model: np.ndarray) -> np.ndarray:
    q = softmax(problem.vectors.astype(np.float64) @ model[:, :-1].T + model[:, -1])
    return np.maximum((q * problem.chances).sum(axis=1), _SHARE_FLOOR)


def solve(problem: Problem, strength: float, start: np.ndarray) -> np.ndarray:
    """The weights, and in the last column the offsets, float64 of shape (C, D + 1).

    One more row, a zero vector that is of each class alike, keeps the offset of a class finite that
    no row has.

    Args:
        problem: The rows.
        strength: Prior precision of the weights.
        start: Where to begin, of the same shape.
    """
    vectors, chances, shape = problem.vectors, problem.chances, start.shape
    if len(vectors) <= _BLOCK_ROWS:  # one block, which then is not made anew in each step
        vectors = vectors.astype(np.float64)
    rows = len(vectors) + 1

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        model = flat.reshape(shape)
        weights, offsets = model[:, :-1], model[:, -1]
        of_zero = softmax(offsets[None])[0]
        total = strength / 2 * np.square(weights).sum() - np.log(of_zero + _SHARE_FLOOR).mean()
        gradient = np.empty(shape)
        gradient[:, :-1], gradient[:, -1] = strength * weights, of_zero - 1 / len(of_zero)
        for begin in range(0, len(vectors), _BLOCK_ROWS):
            block = vectors[begin : begin + _BLOCK_ROWS].astype(np.float64, copy=False)
            q = softmax(block @ weights.T + offsets)
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


def softmax(logits: np.ndarray) -> np.ndarray:
    """The shares of each row of logits, float64 of the same shape."""
    logits = np.asarray(logits, dtype=np.float64)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)
