"""The alignment reward and the cosines under it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mixup.errors import ConfigError, ShapeError
from mixup.rewards.alignment import alignment_score, cosines, ramp

X = np.array([1.0, 0.0])


def at(cosine: float) -> np.ndarray:
    return np.array([cosine, np.sqrt(1 - cosine**2)])


@pytest.mark.parametrize(
    ("cosine", "soft", "hard"),
    [(1.0, 1.0, 1.0), (0.81, 1.0, 1.0), (0.65, 0.5, 0.0), (0.5, 0.0, 0.0), (-1.0, 0.0, 0.0)],
)
def test_one_gold_target(cosine, soft, hard):
    assert alignment_score(X, at(cosine)[None]) == pytest.approx(soft, abs=1e-9)
    assert alignment_score(X, at(cosine)[None], mode="paper") == hard
    assert alignment_score(X, at(cosine)[None], mode="released_code") == hard


def test_several_inputs_are_averaged_before_the_ramp():
    targets = np.stack([at(0.9), at(0.4)])
    assert alignment_score(X, targets) == pytest.approx(0.5)
    assert alignment_score(X, targets, high=0.65, low=0.0, mode="paper") == 1.0


@given(hnp.arrays(np.float32, (4, 3), elements=st.floats(0.125, 1, width=32)), st.floats(0.1, 50))
def test_scale_does_not_matter_and_the_range_holds(vectors, scale):
    score = alignment_score(vectors[0], vectors[1:])
    assert 0 <= score <= 1
    assert alignment_score(scale * vectors[0], vectors[1:]) == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize(
    "targets",
    [np.zeros((1, 2)), np.full((1, 2), np.nan), np.ones((1, 3)), np.ones((0, 2)), np.ones(2)],
)
def test_vectors_without_a_cosine_are_refused(targets):
    with pytest.raises(ShapeError):
        alignment_score(X, targets)


def test_several_answers_bad_bounds_and_bad_modes_are_refused():
    with pytest.raises(ShapeError):
        alignment_score(np.eye(2), np.eye(2))
    with pytest.raises(ConfigError, match="below"):
        alignment_score(X, X[None], low=0.8, high=0.8)
    with pytest.raises(ConfigError, match="cubic"):
        alignment_score(X, X[None], mode="cubic")  # pyright: ignore[reportArgumentType]


def test_cosines_and_ramp():
    assert cosines(np.array([[2.0, 0.0]]), np.array([[0.0, 1.0], [3.0, 0.0]])).tolist() == [[0, 1]]
    assert ramp(np.array([0.0, 0.25, 2.0]), low=0, high=0.5).tolist() == [0, 0.5, 1]
