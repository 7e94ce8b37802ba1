"""Score curation: planted noise is found, and every degenerate pool has a clear outcome."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixup.errors import ConfigError, ShapeError
from mixup.quality.curation import TIERS, curate
from mixup.quality.curation_settings import CurationSettings
from mixup.quality.knn_bayes import REASONS
from mixup.quality.library import Library
from mixup.quality.posterior import at_least, with_own_rating
from mixup.quality.rater_errors import RaterErrors
from mixup.quality.regression import FOLDS, Regression, folds_of, folds_of_rated
from mixup.quality.transition import Transition


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def two_topics(rows, seed=0, spread=0.7):
    """A good topic (even rows, rated 5) and a bad one (odd rows, rated 1)."""
    rng = np.random.default_rng(seed)
    centers = unit(rng.normal(size=(2, 24)))
    topic = np.arange(rows) % 2
    vectors = unit(centers[topic] + spread * unit(rng.normal(size=(rows, 24))))
    return vectors, np.where(topic == 0, 5, 1)


def test_unrated_rows_take_after_their_neighbors():
    vectors, ratings = two_topics(200)
    truth = ratings.copy()
    ratings[:40] = -1
    found = curate(vectors, ratings, np.arange(200))
    assert found.tier_N[:40].tolist() == ["high", "low"] * 20
    assert (found.curated_rating_N == truth).all()
    assert (found.confidence_N[:40] > 0.9).all()
    assert set(found.reason_N) == {None}
    assert found.curated_rating_N.dtype == np.int8
    assert found.quality_N.dtype == found.long_tail_N.dtype == np.float32


def test_a_planted_wrong_rating_loses_confidence_and_keeps_its_observation():
    vectors, ratings = two_topics(200)
    ratings[1] = 5
    found = curate(
        vectors, ratings, np.arange(200), settings=CurationSettings(rater=RaterErrors(0.6))
    )
    assert found.curated_rating_N[1] == 5
    assert found.confidence_N[1] < 0.5 < found.confidence_N[3]
    assert found.quality_N[1] < found.quality_N[0]


def test_no_row_votes_on_itself():
    # With one vote and an own rating that says nothing, a row takes after its nearest other.
    vectors, ratings = two_topics(60)
    ratings[7] = 5  # the one wrong rating in the bad topic
    one = CurationSettings(rater=RaterErrors(1 / 6), neighbors=1, transition_neighbors=1)
    assert curate(vectors, ratings, np.arange(60), settings=one).quality_N[7] < 0.5


def test_duplicates_come_first_and_the_oldest_represents_them():
    vectors, ratings = two_topics(100)
    vectors = np.concatenate([vectors, vectors[:3]])
    ratings = np.concatenate([ratings, [-1, 5, 5]])
    order = np.arange(103)
    order[[2, 102]] = order[[102, 2]]
    found = curate(vectors, ratings, order)
    assert found.duplicate_of_N[[100, 101, 102]].tolist() == [0, 1, -1]
    assert found.duplicate_of_N[2] == 102
    assert found.tier_N[[100, 101, 2]].tolist() == ["duplicate"] * 3
    assert found.tier_N[102] == "high"
    assert (found.long_tail_N > 0.01).all()  # a duplicate is not measured against its leader


def test_an_unrated_leader_is_judged_by_its_rated_duplicate():
    vectors, ratings = two_topics(100)
    vectors = np.concatenate([vectors, vectors[:1]])
    ratings = np.concatenate([ratings, [1]])
    ratings[0] = -1
    one = CurationSettings(neighbors=1)
    assert curate(vectors, ratings, np.arange(101), settings=one).quality_N[0] < 0.5
    assert curate(vectors[:100], ratings[:100], np.arange(100), settings=one).quality_N[0] > 0.5


def test_a_tier_changes_only_beyond_the_margin():
    vectors, ratings = two_topics(40)
    ratings[:] = -1
    ratings[:2] = [4, 3]  # own rating alone: quality known and fixed
    quality = curate(vectors, ratings, np.arange(40)).quality_N.astype(float)
    previous = ["low", "high"] + [None] * 38
    for row, keep, tier in [(0, quality[0] - 0.04, "low"), (0, quality[0] - 0.06, "high")]:
        found = curate(
            vectors, ratings, np.arange(40), previous, settings=CurationSettings(keep_at=keep)
        )
        assert found.tier_N[row] == tier
    for keep, tier in [(quality[1] + 0.04, "high"), (quality[1] + 0.06, "low")]:
        found = curate(
            vectors, ratings, np.arange(40), previous, settings=CurationSettings(keep_at=keep)
        )
        assert found.tier_N[1] == tier


def test_other_previous_tiers_have_no_inertia():
    vectors, ratings = two_topics(100)
    first = curate(vectors, ratings, np.arange(100))
    again = curate(vectors, ratings, np.arange(100), ["unrated", "duplicate", None, ""] * 25)
    assert (first.tier_N == again.tier_N).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 70), st.integers(0, 99), st.floats(0, 1))
def test_the_outcome_does_not_depend_on_row_order(rows, seed, share):
    rng = np.random.default_rng(seed)
    vectors, ratings = two_topics(rows, seed, spread=rng.choice([0.05, 0.4, 2.0]))
    ratings[rng.random(rows) > share] = -1
    order, shuffle = rng.permutation(rows), rng.permutation(rows)
    previous = rng.choice(np.array(["high", "low", None], dtype=object), rows)
    first = curate(vectors, ratings, order, previous.tolist())
    again = curate(vectors[shuffle], ratings[shuffle], order[shuffle], previous[shuffle].tolist())
    for name in ("quality_N", "confidence_N", "long_tail_N", "curated_rating_N"):
        np.testing.assert_array_equal(getattr(first, name)[shuffle], getattr(again, name))
    assert first.tier_N[shuffle].tolist() == again.tier_N.tolist()
    assert first.reason_N[shuffle].tolist() == again.reason_N.tolist()
    leader = np.where(again.duplicate_of_N < 0, np.arange(rows), again.duplicate_of_N)
    before = np.where(first.duplicate_of_N < 0, np.arange(rows), first.duplicate_of_N)
    assert order[before][shuffle].tolist() == order[shuffle][leader].tolist()
    assert set(first.tier_N) <= set(TIERS)
    assert set(first.reason_N) <= {*REASONS, None}
    known = ~np.isnan(first.quality_N)
    assert ((first.quality_N[known] >= 0) & (first.quality_N[known] <= 1)).all()
    assert ((first.curated_rating_N >= 0) == known).all()


def test_too_few_ratings():
    vectors, ratings = two_topics(60)
    ratings[10:] = -1
    found = curate(vectors, ratings, np.arange(60))
    assert found.tier_N[:10].tolist() == ["high", "low"] * 5
    assert set(found.tier_N[10:]) == {"unrated"}
    assert set(found.reason_N[10:]) == {"too_few_ratings"}
    assert np.isnan(found.quality_N[10:]).all()
    assert np.isnan(found.confidence_N[10:]).all()
    assert found.confidence_N[0] > 0.8


def test_everything_unrated():
    vectors, _ = two_topics(60)
    found = curate(vectors, np.full(60, -1), np.arange(60))
    assert set(found.tier_N) == {"unrated"}
    assert (found.curated_rating_N == -1).all()
    assert np.isfinite(found.long_tail_N).all()


def test_one_rating_class_says_nothing_about_the_others():
    vectors, ratings = two_topics(60)
    ratings[:] = 5
    ratings[50:] = -1
    found = curate(vectors, ratings, np.arange(60))
    assert set(found.tier_N[:50]) == {"high"}
    assert set(found.reason_N[50:]) == {"one_rating_class"}


def test_all_rows_identical():
    vectors = np.repeat(two_topics(1)[0], 50, axis=0)
    found = curate(vectors, np.full(50, 5), np.arange(50))
    assert found.tier_N.tolist() == ["high"] + ["duplicate"] * 49
    assert (found.duplicate_of_N[1:] == 0).all()
    assert np.isnan(found.long_tail_N).all()


def test_one_row_and_no_row():
    vectors, ratings = two_topics(1)
    found = curate(vectors, ratings, np.array([3]))
    assert found.tier_N.tolist() == ["high"]
    assert np.isnan(found.long_tail_N).all()
    empty = curate(np.empty((0, 24)), np.empty(0, dtype=int), np.empty(0))
    assert len(empty.tier_N) == len(empty.quality_N) == len(empty.long_tail_N) == 0


def test_a_given_library_votes_and_a_row_found_in_it_by_uid_does_not():
    vectors, ratings = two_topics(100)
    # The library's copy of row 0 is rated wrongly; as its own rating it must not vote.
    rated = ratings.copy()
    rated[0] = 1
    uids = [f"u{row}" for row in range(100)]
    library = Library(vectors, rated, uids)
    one = CurationSettings(neighbors=1)
    queries, none = vectors[:1], np.array([-1])
    known = curate(queries, none, np.array([0]), library=library, settings=one, uids_N=["u0"])
    other = curate(queries, none, np.array([0]), library=library, settings=one, uids_N=["x"])
    assert known.quality_N[0] > 0.5 > other.quality_N[0]


def test_a_fitted_transition_without_a_class_of_the_library():
    vectors, ratings = two_topics(100)
    fitted = Transition(np.array([0, 5]), np.array([[0.9, 0.1], [0.1, 0.9]]), np.array([0.5, 0.5]))
    ratings[:10] = -1
    found = curate(vectors, ratings, np.arange(100), transition=fitted)
    assert found.tier_N[:10].tolist() == ["high", "low"] * 5
    assert found.curated_rating_N[:10].tolist() == [5, 0] * 5
    assert found.curated_rating_N[11] == 1
    assert found.confidence_N[11] == 0


def test_what_does_not_fit_is_refused():
    vectors, ratings = two_topics(4)
    order = np.arange(4)
    broken = vectors.copy()
    broken[2, 3] = np.nan
    with pytest.raises(ShapeError):
        curate(broken, ratings, order)
    with pytest.raises(ShapeError):
        curate(vectors, ratings[:3], order)
    with pytest.raises(ShapeError):
        curate(vectors, ratings + 2, order)
    with pytest.raises(ShapeError):
        curate(vectors, ratings.astype(float), order)
    with pytest.raises(ShapeError):
        curate(vectors, ratings, order, ["high"])
    with pytest.raises(ShapeError):
        curate(vectors, ratings, np.zeros(4))
    with pytest.raises(ShapeError):
        curate(vectors, ratings, order, library=Library(vectors, ratings[:3]))
    with pytest.raises(ConfigError):
        CurationSettings(keep_at=0.02)
    with pytest.raises(ConfigError):
        CurationSettings(threshold=6)


def test_mostly_duplicate_raters_are_too_few_and_the_pool_votes_instead():
    vectors, ratings = two_topics(100)
    pool = Library(vectors[:60], ratings[:60])
    one = np.repeat(vectors[60:61], 30, axis=0)  # 30 ratings of the same content are one voter
    cell = np.concatenate([vectors[60:62], one])
    rated = np.concatenate([[-1, -1], np.full(30, 5)])
    alone = curate(cell, rated, np.arange(32))
    assert alone.reason_N[:2].tolist() == ["too_few_ratings"] * 2
    found = curate(cell, rated, np.arange(32), fallback=pool)
    assert found.reason_N[:2].tolist() == [None, None]
    assert found.quality_N[1] < 0.5 < found.quality_N[0]
    many = curate(vectors, ratings, np.arange(100), fallback=Library(vectors[:1], ratings[:1]))
    assert set(many.reason_N) == {None}
    np.testing.assert_array_equal(
        many.quality_N, curate(vectors, ratings, np.arange(100)).quality_N
    )


def a_regression(width=24):
    """A model of the first coordinate alone, steeper in each fold, so that folds can be told."""
    weights = np.zeros((1 + FOLDS, 2, width), np.float32)
    weights[:, 1, 0] = 3 + np.arange(1 + FOLDS)
    return Regression(np.array([1, 5]), weights, np.zeros((1 + FOLDS, 2), np.float32), 1.0)


def test_a_regression_takes_the_place_of_votes():
    vectors, ratings = two_topics(100)
    ratings[60:] = -1
    uids = [f"{row:015x}" + 17 * "0" for row in range(100)]
    model, numbers = a_regression(), CurationSettings()
    shuffle = np.random.default_rng(0).permutation(100)
    found = curate(
        vectors[shuffle],
        ratings[shuffle],
        shuffle,
        regression=model,
        uids_N=[uids[row] for row in shuffle],
        settings=numbers,
    )
    folds = folds_of_rated(ratings, uids)
    assert set(folds[60:]) == {-1}
    assert set(folds[:60]) == set(folds_of(uids)) == set(range(FOLDS))
    q = model.probabilities(vectors, folds)
    q = with_own_rating(q, ratings, model.classes, rater=numbers.rater)
    expected = at_least(q, model.classes, numbers.threshold)
    np.testing.assert_allclose(found.quality_N, expected[shuffle], rtol=1e-5)
    assert (found.curated_rating_N[ratings[shuffle] < 0] > 0).all()


def test_a_regression_tells_rows_that_no_neighbor_could():
    vectors, _ = two_topics(30)
    found = curate(
        vectors,
        np.full(30, -1),
        np.arange(30),
        regression=a_regression(),
        uids_N=[f"{row:032x}" for row in range(30)],
    )
    assert set(found.reason_N) == {None}
    assert np.isfinite(found.quality_N).all()


def test_a_regression_needs_uids():
    vectors, ratings = two_topics(30)
    with pytest.raises(ShapeError, match="uids"):
        curate(vectors, ratings, np.arange(30), regression=a_regression())
