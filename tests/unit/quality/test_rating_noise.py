"""What is known of a rater: by hand, and what counts as known."""

import numpy as np
import pytest
from planted_ratings import PRIOR, true_matrix

from mixup.errors import ConfigError
from mixup.quality.rater_errors import RaterErrors
from mixup.quality.rating_noise import KNOWN, RatingNoise, noise_of, true_shares


def test_errors_by_hand():
    """Of the wrong ratings of class 0 four in five are 1, which is two steps nearer than 3."""
    found = RaterErrors(0.7).matrix(np.array([0, 1, 3]))
    np.testing.assert_allclose(found[0], [0.7, 0.24, 0.06])
    np.testing.assert_allclose(found[1], [0.2, 0.7, 0.1])
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(np.diag(RaterErrors(0.85).matrix()), 0.85)
    for refused in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(ConfigError, match="above 0 and below 1"):
            RaterErrors(refused)
    with pytest.raises(ConfigError, match="above 0 and at most 1"):
        RaterErrors(0.8, decay=0.0)


def test_the_true_shares_are_those_whose_errors_give_what_was_observed():
    found = true_shares(1e6 * PRIOR @ true_matrix(), true_matrix())
    np.testing.assert_allclose(found, PRIOR, atol=1e-4)
    # A rater who errs gives some rating to any class: all of the first comes nearest to 10 and 0.
    errors = np.array([[0.8, 0.2], [0.2, 0.8]])
    np.testing.assert_allclose(true_shares(np.array([10, 0]), errors), [1, 0], atol=1e-6)


def test_a_stated_reliability():
    noise = noise_of(RaterErrors(0.8), np.array([0, 50, 0, 0, 150, 0]), source="stated")
    assert (noise.classes, noise.samples, noise.rater) == ((1, 4), 200, RaterErrors(0.8))
    np.testing.assert_allclose(noise.matrix, [[0.8, 0.2], [0.2, 0.8]])
    np.testing.assert_allclose(noise.prior, [0.05 / 0.6, 0.55 / 0.6], atol=1e-6)
    assert noise.low == noise.high == ((None, None), (None, None))


def test_an_interval_is_of_the_diagonal():
    noise = noise_of(
        RaterErrors(0.8, 1.0),
        np.array([0, 50, 0, 0, 150, 0]),
        source="regression",
        detail="why",
        ends=(0.7, 0.8),
    )
    assert noise.low == ((0.7, None), (None, 0.7))
    assert noise.high == ((0.8, None), (None, 0.8))


@pytest.mark.parametrize("source", [*KNOWN, "shrunk", "one_class"])
def test_only_some_sources_are_known(source):
    noise = RatingNoise(source, "", 100, (1, 4), ((0.9, 0.1), (0.3, 0.7)), prior=(0.5, 0.5))
    assert noise.transition is not None
    if source in KNOWN:
        assert noise.known is not None
        assert noise.rater is not None
        assert noise.rater.reliability == pytest.approx(0.8)
    else:
        assert noise.known is None
        assert noise.rater is None


def test_nothing_told():
    noise = RatingNoise("none", "no triple of ratings", 0)
    assert (noise.transition, noise.known, noise.rater) == (None, None, None)
