"""The KNN-Bayes posterior over rating classes, from the ratings of an example's neighbors."""

from __future__ import annotations

import numpy as np

from mixup.errors import ConfigError, ShapeError
from mixup.quality.rater_errors import RaterErrors
from mixup.quality.transition import (
    RATING_CLASSES,
    UNRATED,
    Transition,
    check_ratings,
    nearest_classes,
)

_LOG_FLOOR = 1e-12  # inside logarithms, as in the released code


def neighbor_votes(
    ratings_N: np.ndarray, indices_MK: np.ndarray, classes: np.ndarray
) -> np.ndarray:
    """The number of a row's neighbors in each rating class, h, of shape (M, C).

    Raises:
        ShapeError: An index outside the ratings, or a neighbor's rating that is not in classes.
    """
    ratings, indices = check_ratings(ratings_N), np.asarray(indices_MK, dtype=np.int64)
    if indices.size and not 0 <= indices.min() <= indices.max() < len(ratings):
        raise ShapeError(f"neighbor indices must be from 0 to {len(ratings) - 1}")
    column_of = np.full(RATING_CLASSES + 1, -1)  # the last entry is what UNRATED (-1) looks up
    column_of[classes] = np.arange(len(classes))
    columns = column_of[ratings[indices]] if indices.size else np.empty(indices.shape, np.int64)
    if (columns < 0).any():
        raise ShapeError(f"a neighbor is unrated or has a rating outside {list(classes)}")
    votes = np.zeros((len(indices), len(classes)))
    np.add.at(votes, (np.arange(len(indices))[:, None], columns), 1.0)
    return votes


def posterior(
    h_MC: np.ndarray, transition: Transition, *, effective_votes: float | None = None
) -> np.ndarray:
    """P(class | votes), of shape (M, C): log q = log p + scale * sum_j h_j log T_ij, normalized.

    Neighbors are not independent, so 16 of them give posteriors that are nearly one-hot.
    ``effective_votes`` tempers this: the votes of a row count together as at most so many.

    Args:
        h_MC: Votes per class; a row without votes gets the prior.
        transition: T and p.
        effective_votes: None counts each vote fully, as the released code does.

    Raises:
        ShapeError: The votes do not fit the transition, or are negative or NaN.
        ConfigError: ``effective_votes`` is not positive.

    Source: spec/lm-mixup.md, section 3.4a; tempering is ours (section 9, decision 2).
    """
    votes = np.asarray(h_MC, dtype=np.float64)
    if votes.ndim != 2 or votes.shape[1] != len(transition.classes) or not (votes >= 0).all():
        raise ShapeError(f"votes of shape {votes.shape} for {len(transition.classes)} classes")
    if effective_votes is not None:
        if not effective_votes > 0:
            raise ConfigError(f"effective_votes is {effective_votes}; expected above 0, or none")
        cast = votes.sum(axis=1, keepdims=True)
        votes = votes * (effective_votes / np.maximum(cast, effective_votes))
    log_q = np.log(transition.prior_C + _LOG_FLOOR)
    log_q = log_q + votes @ np.log(transition.matrix_CC + _LOG_FLOOR).T
    q = np.exp(log_q - log_q.max(axis=1, keepdims=True))
    return q / q.sum(axis=1, keepdims=True)


def expected_class(q_MC: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The posterior mean rating of each row, 0-5."""
    return np.asarray(q_MC) @ np.asarray(classes, dtype=np.float64)


def most_likely_class(q_MC: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The rating of the highest posterior (MAP) of each row; the lower class of equal ones."""
    return np.asarray(classes)[np.argmax(q_MC, axis=1)]


def at_least(q_MC: np.ndarray, classes: np.ndarray, threshold: int) -> np.ndarray:
    """P(class >= threshold) of each row, 0-1."""
    return np.asarray(q_MC)[:, np.asarray(classes) >= threshold].sum(axis=1)


def with_own_rating(
    q_MC: np.ndarray, own_classes_M: np.ndarray, classes: np.ndarray, *, rater: RaterErrors
) -> np.ndarray:
    """The posterior after the row's own observed rating is taken into account.

    The likelihood of a rating given the true class is the rater's over the classes that it gives;
    a rating that is none of them counts as the nearest. Unrated rows (-1) stay as they are.

    Args:
        q_MC: P(class) without the own rating.
        own_classes_M: Observed ratings 0-5, -1 for unrated.
        classes: The C rating classes of the columns, ascending.
        rater: The errors of the ratings.

    Raises:
        ShapeError: Ratings do not fit the posterior.
    """
    own, q = check_ratings(own_classes_M), np.asarray(q_MC, dtype=np.float64)
    if q.shape != (len(own), len(classes)):
        raise ShapeError(f"{len(own)} ratings, {len(classes)} classes, posterior {q.shape}")
    rated = own != UNRATED
    columns = np.searchsorted(classes, nearest_classes(own[rated], classes))
    result = q.copy()
    result[rated] *= rater.matrix(classes)[:, columns].T
    return result / result.sum(axis=1, keepdims=True)
