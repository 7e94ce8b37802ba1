"""A panel: its rows have the qualities that curation gives them."""

import numpy as np
import pytest

from mixup.errors import ShapeError
from mixup.quality.curation import curate
from mixup.quality.curation_settings import CurationSettings
from mixup.quality.panel import Panel
from mixup.quality.rater_errors import RaterErrors
from mixup.quality.regression import FOLDS, Regression

CLASSES = np.array([1, 3, 5])


def made(rows=40, width=8, seed=0):
    """Rows, a third of them rated, and models that differ by fold."""
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(rows, width))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    ratings = np.where(np.arange(rows) % 3 == 0, random.integers(0, 6, rows), -1)
    weights = random.normal(size=(1 + FOLDS, 3, width)).astype(np.float32)
    offsets = random.normal(size=(1 + FOLDS, 3)).astype(np.float32)
    uids = [f"{row:015x}" + 17 * "0" for row in range(rows)]
    return vectors, ratings, uids, Regression(CLASSES, weights, offsets, 1.0)


@pytest.mark.parametrize(("threshold", "reliability"), [(4, 0.85), (2, 0.6)])
def test_the_qualities_are_those_of_curation(threshold, reliability):
    vectors, ratings, uids, regression = made()
    panel = Panel.of(regression, vectors, ratings, uids)
    settings = CurationSettings(threshold=threshold, rater=RaterErrors(reliability))
    found = curate(
        vectors,
        ratings,
        np.arange(len(uids)),
        settings=settings,
        uids_N=uids,
        regression=regression,
    )
    quality = panel.quality(threshold=threshold, rater=RaterErrors(reliability))
    np.testing.assert_allclose(quality, found.quality_N, atol=1e-6)
    assert quality.max() <= 1


def test_no_rows():
    vectors, ratings, _, regression = made()
    panel = Panel.of(regression, vectors[:0], ratings[:0], [])
    assert panel.quality(threshold=4, rater=RaterErrors(0.85)).shape == (0,)


def test_parts_that_do_not_fit():
    vectors, ratings, uids, regression = made()
    with pytest.raises(ShapeError, match="classes"):
        Panel(CLASSES, np.ones((3, 2), np.float32), np.zeros(3, int))
    with pytest.raises(ShapeError):
        Panel.of(regression, vectors, ratings[1:], uids[1:])
