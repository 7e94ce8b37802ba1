"""The quality reward on the posteriors of the specification."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup.errors import ConfigError, ShapeError
from mixup.rewards.quality import quality_score

CLASSES = (0, 2, 3, 4, 5)
PRIOR = np.array([0.02, 0.10, 0.28, 0.55, 0.05])
T = np.array(
    [
        [0.30, 0.30, 0.20, 0.15, 0.05],
        [0.05, 0.40, 0.30, 0.22, 0.03],
        [0.03, 0.15, 0.42, 0.37, 0.03],
        [0.02, 0.06, 0.22, 0.63, 0.07],
        [0.01, 0.04, 0.12, 0.58, 0.25],
    ]
)


def posterior(votes: tuple[int, ...]) -> np.ndarray:
    log_q = np.log(PRIOR) + np.log(T) @ np.array(votes)
    q = np.exp(log_q - log_q.max())
    return q / q.sum()


@pytest.mark.parametrize(
    ("votes", "soft", "paper", "released"),
    [
        ((0, 1, 3, 11, 1), 0.9756 + 0.0138 + 0.3 * 0.0106, 1.0, 1.0),
        ((0, 0, 2, 10, 4), 1.0, 1.0, 1.0),
        ((0, 4, 8, 4, 0), None, 0.3, 0.0),
        ((0, 0, 0, 16, 0), 1.0, 1.0, 1.0),
    ],
)
def test_posteriors_of_the_specification(votes, soft, paper, released):
    q = posterior(votes)
    if soft is not None:
        assert quality_score(q, CLASSES) == pytest.approx(soft, abs=2e-3)
    assert quality_score(q, CLASSES, mode="paper") == paper
    assert quality_score(q, CLASSES, mode="released_code") == released


def test_soft_pays_for_what_the_released_rule_drops():
    q = np.array([0.05, 0.93, 0.02])  # mean 3.97: most surely a 4
    assert quality_score(q, (3, 4, 5), mode="released_code") == 0.0
    assert quality_score(q, (3, 4, 5)) == pytest.approx(0.965)
    assert quality_score(np.array([1.0, 0.0]), (3, 5), mode="released_code") == 0.3
    assert (
        quality_score(np.array([0.5, 0.5]), (3, 4), mode="paper") == 0.3
    )  # a tie goes to the lower class
    assert quality_score(np.array([0.0, 1.0]), (3, 5), threshold=6) == 0.3


@given(st.lists(st.floats(0.001, 1), min_size=6, max_size=6))
def test_the_range_holds_and_better_ratings_never_pay_less(weights):
    q = np.array(weights) / sum(weights)
    better = np.concatenate([[0.0], q[:-1]])
    better[-1] += q[-1]
    low, high = quality_score(q, range(6)), quality_score(better, range(6))
    assert 0 <= low <= high + 1e-12 <= 1 + 1e-9


@pytest.mark.parametrize(
    ("q", "classes"),
    [([0.5, 0.5], (4,)), ([math.nan], (4,)), ([0.4], (4,)), ([], ()), ([-1, 2], (3, 4))],
)
def test_what_is_no_distribution_is_refused(q, classes):
    with pytest.raises(ShapeError):
        quality_score(np.array(q), classes)


def test_unknown_mode_is_refused():
    with pytest.raises(ConfigError, match="mean"):
        quality_score(np.array([1.0]), (4,), mode="mean")  # pyright: ignore[reportArgumentType]
