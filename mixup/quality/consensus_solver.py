"""The transition and prior that explain how often an example and its two neighbors agree."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np

from mixup.errors import ShapeError

Loss = Literal["norms", "likelihood"]

_START = 5.0  # logit of the diagonal above the others, which chooses the order of the classes
_MOST_STEPS = 200
_CONVERGED = 1e-6  # relative fall of the loss
_SOLVED = 1e-15  # loss that is as good as none
_SHARE_FLOOR = 1e-7  # of a triple that the model rules out, inside the likelihood
_NORM_FLOOR = 1e-9  # of a residual that is already matched, when the norms are weighted
_LARGEST_LOGIT = 12.0  # below the largest of its row: a share of 6e-6 is as good as none
_DAMPINGS = (1e-9, 1e6)


@dataclass(frozen=True)
class Solution:
    """What was found for each of B tables of consensus.

    Attributes:
        matrix_BCC: Row i is P(rating = j | true class i).
        prior_BC: The share of each true class.
        residual_B: ||c1 - c1^|| + ||c2 - c2^|| + ||c3 - c3^||, with shares c^ as counted.
    """

    matrix_BCC: np.ndarray
    prior_BC: np.ndarray
    residual_B: np.ndarray


def solve_consensus(
    counts_BCCC: np.ndarray,
    *,
    start: tuple[np.ndarray, np.ndarray] | None = None,
    loss: Loss = "likelihood",
) -> Solution:
    """Solves p_i T_ij T_il T_is = c3[j, l, s] for T and p, of every table at once.

    T = softmax of rows, p = softmax; the first and second order consensus are margins of c3. Both
    losses are minimized by Levenberg-Marquardt steps on reweighted squares, without any chance:

    - ``norms``: the reference's sum of the three plain norms; weights 1 / norm.
    - ``likelihood``: the multinomial log-likelihood of c3; weights 1 / expected share. Where
      classes are rare it uses what was counted better.

    Args:
        counts_BCCC: Counts or shares c3 of (own, first, second rating), each table above 0.
        start: T and p to start from, of one table; None: 0.97 on the diagonal, uniform p.
        loss: Which of the two.

    Raises:
        ShapeError: Not B cubes, or a table that is empty, negative or not finite.

    Source: spec/lm-mixup.md, section 8.3 (there by Adam, which stops about 0.006 off).
    """
    shares = _shares(counts_BCCC)
    tables, classes = shares.shape[:2]
    logits = np.repeat(_start_logits(classes, start)[None], tables, axis=0)
    if classes > 1:
        logits = _descend(logits, shares, loss)
    matrix, prior = _ordered(*_model(logits))
    residual = np.sum(_norms(_joint(matrix, prior) - shares), axis=0)
    return Solution(matrix, prior, residual)


def expected_shares(matrix_CC: np.ndarray, prior_C: np.ndarray) -> np.ndarray:
    """The shares c3 of (own, first, second rating) that T and p make, of shape (C, C, C)."""
    return _joint(matrix_CC[None], prior_C[None])[0]


def _shares(counts_BCCC: np.ndarray) -> np.ndarray:
    counts = np.asarray(counts_BCCC, dtype=np.float64)
    if counts.ndim != 4 or len({*counts.shape[1:]}) != 1 or not counts.shape[1]:
        raise ShapeError(f"consensus counts have shape {counts.shape}; expected (B, C, C, C)")
    total = counts.sum(axis=(1, 2, 3), keepdims=True)
    if not (counts >= 0).all() or not (total > 0).all() or not np.isfinite(total).all():
        raise ShapeError("consensus counts must be finite, not negative, and above 0 in all")
    return counts / total


def _start_logits(classes: int, start: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    """Logits of shape (C + 1, C): the rows of T, then p."""
    if start is None:
        return np.concatenate([_START * np.eye(classes), np.zeros((1, classes))])
    found = np.concatenate([start[0], start[1][None]])
    return np.log(np.maximum(found, np.exp(-_LARGEST_LOGIT)))


def _model(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    shares = np.exp(logits - logits.max(axis=2, keepdims=True))
    shares /= shares.sum(axis=2, keepdims=True)
    return shares[:, :-1], shares[:, -1]


def _ordered(matrix: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The true classes in the order that has the largest diagonal; any order fits as well."""
    classes = prior.shape[1]
    orders = np.array(list(permutations(range(classes))))
    trace = matrix[:, orders, np.arange(classes)].sum(axis=2)
    order = orders[trace.argmax(axis=1)]
    return np.take_along_axis(matrix, order[:, :, None], 1), np.take_along_axis(prior, order, 1)


def _joint(matrix: np.ndarray, prior: np.ndarray) -> np.ndarray:
    pairs = matrix[:, :, :, None] * matrix[:, :, None, :]
    tables, classes = prior.shape
    weighted = (matrix * prior[:, :, None]).swapaxes(1, 2)
    return (weighted @ pairs.reshape(tables, classes, -1)).reshape(tables, *[classes] * 3)


def _norms(residual: np.ndarray) -> list[np.ndarray]:
    """Of the first, second and third order; one number a table."""
    second = residual.sum(axis=3)
    return [
        np.sqrt(np.square(part).reshape(len(part), -1).sum(axis=1))
        for part in (second.sum(axis=2), second, residual)
    ]


def _loss(shares: np.ndarray, joint: np.ndarray, loss: Loss) -> np.ndarray:
    if loss == "norms":
        return np.sum(_norms(joint - shares), axis=0)
    informed = np.where(shares > 0, shares / np.maximum(joint, _SHARE_FLOOR), 1.0)
    return (shares * np.log(informed)).reshape(len(shares), -1).sum(axis=1)


def _descend(logits: np.ndarray, shares: np.ndarray, loss: Loss) -> np.ndarray:
    best, active = logits.copy(), np.arange(len(logits))
    damping = np.full(len(logits), 1e-3)
    value = _loss(shares, _joint(*_model(logits)), loss)
    for _ in range(_MOST_STEPS):
        tried = _step(best[active], shares[active], damping[active], loss)
        found = _loss(shares[active], _joint(*_model(tried)), loss)
        better = found < value[active]
        done = better & (value[active] - found <= _CONVERGED * value[active] + _SOLVED)
        best[active[better]], value[active[better]] = tried[better], found[better]
        damping[active] = np.clip(damping[active] * np.where(better, 0.3, 4.0), *_DAMPINGS)
        active = active[~done & (damping[active] < _DAMPINGS[1])]
        if not active.size:
            break
    return best


def _step(logits: np.ndarray, shares: np.ndarray, damping: np.ndarray, loss: Loss) -> np.ndarray:
    """One damped Gauss-Newton step on the weighted squares of the residuals."""
    matrix, prior = _model(logits)
    joint = _joint(matrix, prior)
    slope = _slope(matrix, prior)
    gradient, curvature = _normal_equations(slope, joint - shares, joint, loss)
    parameters = gradient.shape[1]
    scale = np.einsum("bpp->bp", curvature).max(axis=1)[:, None, None]
    damped = curvature + (damping[:, None, None] * scale + 1e-300) * np.eye(parameters)
    step = np.linalg.solve(damped, gradient[:, :, None])[:, :, 0].reshape(logits.shape)
    moved = logits - np.clip(step, -3.0, 3.0)
    moved -= moved.max(axis=2, keepdims=True)
    return np.maximum(moved, -_LARGEST_LOGIT)


def _normal_equations(
    slope: np.ndarray, residual: np.ndarray, joint: np.ndarray, loss: Loss
) -> tuple[np.ndarray, np.ndarray]:
    tables, parameters = slope.shape[:2]
    if loss == "likelihood":
        parts = [(slope, residual)]
        weights = [1 / np.maximum(joint, _SHARE_FLOOR)]
    else:
        parts = [(slope, residual)]
        for _ in range(2):
            parts.append((parts[-1][0].sum(axis=-1), parts[-1][1].sum(axis=-1)))
        norms = reversed(_norms(residual))
        weights = [1 / np.maximum(norm, _NORM_FLOOR) for norm in norms]
    gradient = np.zeros((tables, parameters))
    curvature = np.zeros((tables, parameters, parameters))
    for (derivative, rest), weight in zip(parts, weights, strict=True):
        flat = derivative.reshape(tables, parameters, -1)
        of_entry = weight.reshape(tables, 1, -1)
        weighted = flat * of_entry
        gradient += (weighted @ rest.reshape(tables, -1, 1))[:, :, 0]
        curvature += weighted @ flat.swapaxes(1, 2)
    return gradient, curvature


def _slope(matrix: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Derivatives of c3 by the logits, of shape (B, (C + 1) C, C, C, C)."""
    tables, classes = prior.shape
    pairs = prior[:, :, None, None] * matrix[:, :, :, None] * matrix[:, :, None, :]
    eye = np.eye(classes)
    by_share = (
        np.einsum("jk,bils->bikjls", eye, pairs)
        + np.einsum("lk,bijs->bikjls", eye, pairs)
        + np.einsum("sk,bijl->bikjls", eye, pairs)
    )
    by_row = matrix[:, :, :, None, None, None] * (
        by_share - np.einsum("bik,bikjls->bijls", matrix, by_share)[:, :, None]
    )
    of_class = matrix[:, :, :, None, None] * matrix[:, :, None, :, None] * matrix[:, :, None, None]
    mean = np.einsum("bi,bijls->bjls", prior, of_class)
    by_prior = prior[:, :, None, None, None] * (of_class - mean[:, None])
    shape = (tables, classes * classes, *[classes] * 3)
    return np.concatenate([by_row.reshape(shape), by_prior], axis=1)
