"""How reliable a rater is, by regressions: planted errors, and where nothing can be told."""

import numpy as np
import pytest
from planted_ratings import rated

from mixup.quality import reliability
from mixup.quality.rater_errors import DECAY, RaterErrors
from mixup.quality.regression import FOLDS, STRENGTHS
from mixup.quality.reliability import FEWEST_ROWS, RELIABILITIES, tell_reliability

CLASSES = np.array([1, 3, 4])
ROWS = 2_000


def texts(rows=ROWS, *, topics=9, spread=0.25, seed=0):
    """Unit vectors around topics, each of one of three classes; and the classes' places."""
    random = np.random.default_rng(seed)
    topic = random.integers(topics, size=rows)
    vectors = np.eye(topics, 16)[topic] + spread * random.normal(size=(rows, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), topic % 3, random


def told(vectors, columns):
    folds = np.arange(len(vectors)) % FOLDS
    return tell_reliability(vectors, CLASSES[columns], folds, CLASSES, STRENGTHS)


@pytest.mark.parametrize("right", [0.55, 0.7, 0.85])
@pytest.mark.parametrize("seed", [0, 1])
def test_planted_errors_are_told(right, seed):
    vectors, truth, random = texts(seed=seed)
    found = told(vectors, rated(truth, RaterErrors(right).matrix(CLASSES), random))
    assert found.rater is not None
    assert found.rater.reliability == found.high == pytest.approx(right, abs=0.1)
    assert found.low - 0.05 <= right <= found.high + 0.05
    assert found.strength in STRENGTHS
    assert found.detail == ""


@pytest.mark.parametrize("decay", [0.2, 1.0])
def test_how_errors_fall_with_the_distance_is_told_too(decay):
    classes = np.arange(6)
    vectors, _, random = texts(3_000, topics=12)
    truth = vectors[:, :12].argmax(axis=1) % 6
    ratings = rated(truth, RaterErrors(0.65, decay).matrix(), random)
    folds = np.arange(len(vectors)) % FOLDS
    found = tell_reliability(vectors, ratings, folds, classes, STRENGTHS)
    assert found.rater is not None
    assert found.rater.decay == decay
    assert found.rater.reliability == pytest.approx(0.65, abs=0.1)


@pytest.mark.parametrize("seed", range(4))
def test_of_two_classes_no_decay_is_told(seed):
    """Of two classes all decays are the same T."""
    vectors, _, random = texts(seed=seed)
    truth = vectors[:, :9].argmax(axis=1) % 2
    classes = np.array([1, 4])
    ratings = classes[rated(truth, RaterErrors(0.75).matrix(classes), random)]
    folds = np.arange(ROWS) % FOLDS
    found = tell_reliability(vectors, ratings, folds, classes, STRENGTHS)
    assert found.rater is not None
    assert found.rater.decay == DECAY


def test_one_more_row_than_are_looked_at_is_one_that_is_not(monkeypatch):
    monkeypatch.setattr(reliability, "_SEARCH_ROWS", ROWS - 1)
    vectors, truth, random = texts()
    found = told(vectors, rated(truth, RaterErrors(0.7).matrix(CLASSES), random))
    assert found.samples == ROWS - 1


def test_a_rater_who_is_always_right_gets_the_highest():
    vectors, truth, _ = texts()
    found = told(vectors, truth).rater
    assert found is not None
    assert found.reliability == RELIABILITIES[0]


def test_neighbors_need_not_be_of_one_class():
    """Every third text has a class at random: neighbors agree less than the rater is right."""
    vectors, truth, random = texts(6_000)
    at_random = random.random(len(truth)) < 1 / 3
    vectors[at_random, -1] += 1.0
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    truth = np.where(at_random, random.integers(3, size=len(truth)), truth)
    found = told(vectors, rated(truth, RaterErrors(0.85).matrix(CLASSES), random))
    assert found.rater is not None
    assert found.rater.reliability == pytest.approx(0.85, abs=0.1)


def test_texts_that_say_nothing_tell_nothing():
    vectors, _, random = texts()
    found = told(vectors, random.integers(3, size=ROWS))
    assert found.rater is None
    assert found.strength is None
    assert found.high - found.low > 0.3
    assert "predict its ratings alike" in found.detail


def test_rows_are_told_by_models_that_did_not_see_them():
    """So many dimensions fit any ratings that were seen."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(FEWEST_ROWS, 256))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    assert told(vectors, random.integers(3, size=FEWEST_ROWS)).rater is None


def test_few_rows_tell_nothing():
    vectors, truth, _ = texts(FEWEST_ROWS - 1)
    found = told(vectors, truth)
    assert (found.rater, found.strength) == (None, None)
    assert found.detail == "999 rated rows; a regression tells it from 1000 on"
