"""The test of a cell's ratings: who is tested, and what becomes of the others."""

import numpy as np
import pytest
from planted_ratings import PRIOR, topics, true_matrix

from mixup.errors import ShapeError
from mixup.quality.agreement import SKETCH_BINS, SuspicionSettings, suspicion_sketch
from mixup.quality.consensus import consensus_counts
from mixup.quality.curation import ORIGINS, curate
from mixup.quality.curation_settings import CurationSettings
from mixup.quality.neighbors import top_k
from mixup.quality.rater_errors import RaterErrors
from mixup.quality.rating_noise import RatingNoise, noise_of, rating_noise
from mixup.quality.rating_test import RatingTest, pool_thresholds, ratings_after_test
from mixup.quality.shrinkage import transition_of
from mixup.quality.transition import Transition

ROWS = 900
VECTORS, TRUTH, RATINGS = topics(ROWS)
IDS = np.random.default_rng(5).integers(-(2**63), 2**63, ROWS)
TRANSITION = Transition(np.arange(6), true_matrix(), PRIOR)
FEWER = SuspicionSettings(draws=15)


def known(transition=TRANSITION) -> RatingNoise:
    matrix, prior = transition.matrix_CC.tolist(), transition.prior_C.tolist()
    return RatingNoise("consensus", "", ROWS, tuple(range(6)), matrix, prior=prior)


@pytest.fixture(scope="module")
def thresholds():
    near = top_k(VECTORS, VECTORS, 9, exclude_self=True)
    return pool_thresholds(suspicion_sketch(RATINGS, near, IDS, FEWER), known()).thresholds_C


def curated(ratings, test, **changed):
    order, numbers = np.arange(ROWS), CurationSettings(duplicate_similarity=1.0)
    given = {"transition": TRANSITION, "settings": numbers, "test": test, "ids_N": IDS}
    return curate(VECTORS, ratings, order, **given, **changed)


def test_planted_errors_are_replaced_and_said_to_be(thresholds):
    found = curated(RATINGS, RatingTest(thresholds, settings=FEWER))
    replaced = found.origin_N == "neighbors"
    assert (RATINGS[replaced] != TRUTH[replaced]).mean() > 0.85
    assert (found.curated_rating_N == TRUTH).mean() > (RATINGS == TRUTH).mean() + 0.08
    assert (found.curated_rating_N[~replaced] == RATINGS[~replaced]).all()
    assert (found.curated_rating_N[replaced] == found.suggested_rating_N[replaced]).all()
    assert found.suspicious_N[replaced].all()
    assert (found.suggested_confidence_N[replaced] >= 0.5).all()
    assert set(found.origin_N) == {"own", "neighbors"}


def test_votes_and_quality_are_those_of_observed_ratings(thresholds):
    tested = curated(RATINGS, RatingTest(thresholds, settings=FEWER))
    plain = curated(RATINGS, None)
    np.testing.assert_array_equal(tested.quality_N, plain.quality_N)
    assert (plain.origin_N == "own").all()
    assert np.isnan(plain.misrated_N).all()
    assert not plain.suspicious_N.any()
    assert (plain.suggested_rating_N == -1).all()


def test_an_unrated_row_is_not_tested_and_its_class_is_no_observation(thresholds):
    ratings = RATINGS.copy()
    ratings[::3] = -1
    found = curated(ratings, RatingTest(thresholds, settings=FEWER))
    assert np.isnan(found.misrated_N[::3]).all()
    assert (found.origin_N[::3] == "posterior").all()
    assert (found.curated_rating_N[::3] >= 0).all()
    assert set(found.origin_N) == set(ORIGINS)


def test_a_duplicate_takes_the_outcome_of_nothing(thresholds):
    whole = curated(RATINGS, RatingTest(thresholds, settings=FEWER))
    wrong = int(np.flatnonzero(whole.origin_N == "neighbors")[0])
    found = curate(
        np.concatenate([VECTORS, VECTORS[wrong : wrong + 1]]),
        np.append(RATINGS, RATINGS[wrong]),
        np.arange(ROWS + 1),
        transition=TRANSITION,
        settings=CurationSettings(duplicate_similarity=0.9999),
        test=RatingTest(thresholds, settings=FEWER),
        ids_N=np.append(IDS, 1),
    )
    assert found.tier_N[ROWS] == "duplicate"
    assert found.origin_N[ROWS] == "own"
    assert np.isnan(found.misrated_N[ROWS])
    np.testing.assert_array_equal(found.misrated_N[:ROWS], whole.misrated_N)


def test_visitors_are_neighbors_and_have_no_outcome(thresholds):
    home = 600
    whole = curated(RATINGS, RatingTest(thresholds, settings=FEWER))
    found = curated(RATINGS, RatingTest(thresholds, settings=FEWER), visitors=ROWS - home)
    np.testing.assert_array_equal(found.misrated_N, whole.misrated_N[:home])
    np.testing.assert_array_equal(found.curated_rating_N, whole.curated_rating_N[:home])


def test_a_cell_with_too_few_ratings_is_not_tested(thresholds):
    ratings = np.full(ROWS, -1)
    ratings[:19] = RATINGS[:19]
    found = curated(ratings, RatingTest(thresholds, settings=FEWER))
    assert np.isnan(found.misrated_N).all()
    assert set(found.origin_N[:19]) == {"own"}
    assert set(found.origin_N[19:]) == {None}


def test_the_reference_draws_from_a_pool_that_is_one_cell(thresholds):
    test = RatingTest(thresholds, TRANSITION, FEWER)
    found = curated(RATINGS, test)
    assert (found.curated_rating_N == TRUTH).mean() > (RATINGS == TRUTH).mean() + 0.08
    with pytest.raises(ShapeError, match="one cell"):
        curated(RATINGS, test, visitors=1)


def test_errors_that_are_not_trusted_flag_nothing():
    near = top_k(VECTORS, VECTORS, 9, exclude_self=True)
    sketch = suspicion_sketch(RATINGS, near, IDS, FEWER)
    first, second = RATINGS[near.indices_MK[:, :2]].T
    noise = rating_noise(
        transition_of(consensus_counts(RATINGS, first, second, IDS, replicates=20))
    )
    assert noise.source == "shrunk"
    found = pool_thresholds(sketch, noise)
    assert found.reason is not None
    assert "900 samples; at least 5000 are needed" in found.reason
    assert (found.thresholds_C == SKETCH_BINS).all()
    one = RatingNoise("one_class", "", ROWS)
    assert "all ratings are alike" in str(pool_thresholds(sketch, one).reason)
    assert pool_thresholds(sketch, known()).reason is None


def test_a_stated_reliability_has_wrong_ratings_flagged():
    near = top_k(VECTORS, VECTORS, 9, exclude_self=True)
    sketch = suspicion_sketch(RATINGS, near, IDS, FEWER)
    right = float((RATINGS == TRUTH).mean())
    noise = noise_of(RaterErrors(right), np.bincount(RATINGS, minlength=6), source="stated")
    found = curated(RATINGS, RatingTest(pool_thresholds(sketch, noise).thresholds_C, None, FEWER))
    flagged = found.suspicious_N
    assert (RATINGS != TRUTH)[flagged].mean() > 0.8
    assert flagged[RATINGS != TRUTH].mean() > 0.6
    assert (found.curated_rating_N == TRUTH).mean() > right + 0.08


@pytest.mark.parametrize("rows", [0, 1, 2, 5])
def test_fewer_voters_than_neighbors(thresholds, rows):
    found = ratings_after_test(
        VECTORS[:rows],
        RATINGS[:rows],
        IDS[:rows],
        np.arange(rows),
        np.ones(rows, dtype=bool),
        RatingTest(thresholds, settings=FEWER),
    )
    assert found.curated_N.shape == (rows,)
    assert not np.isnan(found.misrated_N).any()


def test_a_test_needs_ids(thresholds):
    with pytest.raises(ShapeError, match="ids"):
        curate(VECTORS, RATINGS, np.arange(ROWS), test=RatingTest(thresholds))
