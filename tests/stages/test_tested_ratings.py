"""Suspicious ratings, the worth of votes and the cut of a precision, on a pool made by hand.

A quarter of the ratings is wrong. The pool is far smaller than what a T by consensus is trusted
from, so most tests here have it trusted from less.
"""

import functools

import made_pool
import numpy as np
import pytest
from made_pool import Row, add, make_workspace, rows_of, settings
from test_reference_fit import noisy_pool

from mixup.errors import ConfigError
from mixup.quality.consensus import ConsensusSettings
from mixup.quality.rater_errors import RaterErrors
from mixup.quality.scores import FALLBACK_KEEP_AT, FALLBACK_VOTES
from mixup.quality.shrinkage import transition_of
from mixup.refresh_config import CurateConfig
from mixup.stages import rating_counts
from mixup.stages.reference import current_fit, reference_revision
from mixup.stages.scores import pool_scores

TRUSTING = ConsensusSettings(min_samples=100, max_width=1.0, max_misfit=1.0, min_apart=0.05)
POOL = noisy_pool()
TRUTH = {row.uid: (1, 4)[row.topic % 2] for row in POOL}
RATED = {row.uid: {5.0: 1, 8.0: 4}[row.overall] for row in POOL if row.overall}
NEW = ("rating_origin", "suspicious", "misrated", "suggested_rating", "suggested_confidence")


@pytest.fixture
def trusting(monkeypatch):
    lenient = functools.partial(transition_of, settings=TRUSTING)
    monkeypatch.setattr(rating_counts, "transition_of", lenient)


def made(**changed):
    return settings(
        curate=CurateConfig.model_validate({"predictor": "neighbors", "neighbors": 8, **changed})
    )


def curated(tmp_path, config, pool=POOL, name="w"):
    workspace = make_workspace(tmp_path / name, buckets=2)
    add(workspace, pool)
    counts = made_pool.curate(workspace, made=config)
    return workspace, counts, {row["uid"]: row for row in rows_of(workspace, "curation")}


def scores_of(workspace, config):
    return pool_scores(current_fit(workspace, config.scoring()), config)


@pytest.mark.parametrize("cell_rows", [4000, 60])
def test_wrong_ratings_are_flagged_and_replaced(tmp_path, trusting, cell_rows):
    config = made(cell_rows=cell_rows)
    workspace, counts, found = curated(tmp_path, config)
    assert (counts["cells"] > 1) == (cell_rows == 60)
    assert scores_of(workspace, config).untested is None
    raw = np.mean([RATED[uid] == TRUTH[uid] for uid in found])
    right = np.mean([row["curated_rating"] == TRUTH[uid] for uid, row in found.items()])
    assert right > raw + 0.1
    replaced = [row for row in found.values() if row["rating_origin"] == "neighbors"]
    flagged = [row for row in found.values() if row["suspicious"]]
    assert counts["ratings_replaced"] == len(replaced) > 0
    assert counts["ratings_suspicious"] == len(flagged) >= len(replaced)
    assert counts["ratings_tested"] == len(POOL)
    assert np.mean([RATED[row["uid"]] != TRUTH[row["uid"]] for row in replaced]) > 0.8
    for row in replaced:
        assert row["curated_rating"] == row["suggested_rating"] != RATED[row["uid"]]
        assert row["suggested_confidence"] >= 0.5 < row["misrated"]
    for row in found.values():
        if row["rating_origin"] == "own":
            assert row["curated_rating"] == RATED[row["uid"]]
        assert (row["suggested_rating"] is None) == (row["suggested_confidence"] is None)


def test_a_pool_too_small_to_tell_its_raters_errors_flags_nothing_and_says_why(tmp_path):
    config = made()
    workspace, counts, found = curated(tmp_path, config)
    scores = scores_of(workspace, config)
    assert "480 samples; at least 5000 are needed" in str(scores.untested)
    assert scores.rater == RaterErrors()
    assert scores.rater_detail == "the default: it could not be told"
    assert counts["ratings_tested"] == counts["ratings_suspicious"] == 0
    for row in found.values():
        assert (row["rating_origin"], row["curated_rating"]) == ("own", RATED[row["uid"]])
        assert [row[name] for name in NEW[1:]] == [None] * 4


def test_a_stated_reliability_is_what_a_small_pool_is_tested_by(tmp_path):
    config = made(reliability=0.75)
    workspace, counts, found = curated(tmp_path, config)
    scores = scores_of(workspace, config)
    assert (scores.rater, scores.rater_detail) == (RaterErrors(0.75), "as configured")
    assert scores.untested is None
    assert counts["ratings_tested"] == len(POOL)
    raw = np.mean([RATED[uid] == TRUTH[uid] for uid in found])
    right = np.mean([row["curated_rating"] == TRUTH[uid] for uid, row in found.items()])
    assert right > raw + 0.1
    # Another one is another fit: how many are flagged is read from it.
    fewer = made_pool.curate(workspace, made=made(reliability=0.95))
    assert 0 < fewer["ratings_suspicious"] < counts["ratings_suspicious"]


def test_off_tests_nothing(tmp_path, trusting):
    config = made(suspicion="off")
    workspace, counts, _ = curated(tmp_path, config)
    assert scores_of(workspace, config).untested == "curate.suspicion is off"
    assert counts["ratings_tested"] == 0


def test_the_reference_is_for_a_pool_of_one_cell(tmp_path, trusting):
    _, _, found = curated(tmp_path, made(suspicion="reference"))
    raw = np.mean([RATED[uid] == TRUTH[uid] for uid in found])
    right = np.mean([row["curated_rating"] == TRUTH[uid] for uid, row in found.items()])
    assert right > raw + 0.1
    with pytest.raises(ConfigError, match=r"is \d+ cells; use curate.suspicion=bootstrap"):
        curated(tmp_path, made(suspicion="reference", cell_rows=60), name="cells")


def test_nothing_is_fitted_anew_for_another_switch_cut_or_number_of_votes(tmp_path, trusting):
    workspace, _, before = curated(tmp_path, made())
    names = ("quality", "curated_rating", *NEW)  # tiers may be held by the margin
    revision = reference_revision(workspace, made().scoring())
    others = [{"suspicion": "off"}, {"keep_at": {"precision": 0.7}}, {"effective_votes": 2.0}]
    for changed in [*others, {"cure_at": 1.0}, {}]:
        counts = made_pool.curate(workspace, made=made(**changed))
        assert reference_revision(workspace, made(**changed).scoring()) == revision
        assert counts["cells_done"] == counts["cells"]
    for row in rows_of(workspace, "curation"):
        assert [row[name] for name in names] == [before[row["uid"]][name] for name in names]


@pytest.mark.parametrize("transition", ["cooccurrence", "consensus"])
def test_the_worth_of_votes_is_fitted_unless_it_is_stated(tmp_path, trusting, transition):
    config = made(transition=transition)
    workspace, _, _ = curated(tmp_path, config)
    fit = current_fit(workspace, config.scoring())
    assert fit is not None
    found = scores_of(workspace, config)
    assert found.effective_votes == fit.effective_votes
    assert found.votes_detail.startswith("those that predict")
    assert fit.ballots.rows_B.sum() == len(POOL)
    stated = scores_of(workspace, made(transition=transition, effective_votes=3.5))
    assert (stated.effective_votes, stated.votes_detail) == (3.5, "as configured")


@pytest.mark.parametrize("cell_rows", [4000, 60])
def test_what_is_kept_has_the_stated_precision(tmp_path, cell_rows):
    config = made(keep_at={"precision": 0.85}, cell_rows=cell_rows)
    workspace, counts, found = curated(tmp_path, config)
    scores = scores_of(workspace, config)
    high = [row for row in found.values() if row["tier"] == "high"]
    assert np.mean([row["quality"] for row in high]) >= 0.85 - 1e-6
    assert min(row["quality"] for row in high) >= scores.keep_at
    assert all(row["quality"] < scores.keep_at for row in found.values() if row["tier"] == "low")
    assert scores.curve is not None
    assert scores.curve.total == counts["rows"] == len(POOL)
    kept = scores.curve.rows[scores.curve.cuts.index(scores.keep_at)]
    assert kept == len(high) == counts["high"]
    # It is the lowest such cut: with those of the next one below it is not reached.
    below = scores.curve.cuts.index(scores.keep_at) - 1
    assert below < 0 or scores.curve.precision[below] < 0.85


def test_a_precision_that_cannot_be_reached_ends_the_run_with_what_can(tmp_path):
    with pytest.raises(ConfigError, match="surest rows are expected to be truly high for"):
        curated(tmp_path, made(keep_at={"precision": 0.99999}))


# --- outcomes of odd pools -----------------------------------------------------------------------


def odd(tmp_path, pool, **changed):
    """The curation of a pool that has nothing to be flagged, and its scores."""
    config = made(keep_at={"precision": 0.6}, **changed)
    workspace, counts, found = curated(tmp_path, config, pool)
    assert counts["rows"] == len({row.uid for row in pool})
    assert counts["ratings_suspicious"] == counts["ratings_replaced"] == 0
    return found, scores_of(workspace, config)


def test_everything_unrated(tmp_path, trusting):
    found, scores = odd(tmp_path, [Row(f"u{n}", n % 2, n) for n in range(30)])
    assert {row["tier"] for row in found.values()} == {"unrated"}
    assert all(row[name] is None for row in found.values() for name in NEW)
    assert (scores.effective_votes, scores.keep_at) == (FALLBACK_VOTES, FALLBACK_KEEP_AT)
    assert "too little is rated" in scores.keep_detail
    assert scores.untested == "too few rows are rated"


def test_one_rating_class(tmp_path, trusting):
    found, scores = odd(tmp_path, [Row(f"s{n}", n % 3, n, overall=8.0) for n in range(40)])
    assert {row["rating_origin"] for row in found.values()} == {"own"}
    assert scores.effective_votes == FALLBACK_VOTES
    assert scores.curve is None
    assert "every rating is 4" in str(scores.untested)


def test_all_rows_identical(tmp_path, trusting):
    found, scores = odd(tmp_path, [Row(f"i{n}", 0, 0, overall=8.0) for n in range(40)])
    assert sorted({row["tier"] for row in found.values()}) == ["duplicate", "high"]
    assert all(row["misrated"] is None for row in found.values())  # one voter is no library
    assert scores.untested is not None


def test_fewer_rows_than_neighbors(tmp_path, trusting):
    pool = [Row(f"f{n}", n % 2, n, overall=(8.0, 5.0)[n % 2]) for n in range(4)]
    found, scores = odd(tmp_path, pool, min_rated=2, neighbors=16)
    assert {row["rating_origin"] for row in found.values()} == {"own"}
    assert scores.untested is not None


def test_rows_without_a_vector_have_no_rating_that_is_curated(tmp_path, trusting):
    blind = Row("blind", 0, 7, overall=8.0, embedded=False)
    _, _, found = curated(tmp_path, made(), [*POOL, blind])
    assert all(found[blind.uid][name] is None for name in (*NEW, "curated_rating"))


def test_an_absent_class_is_never_suggested(tmp_path, trusting):
    _, _, found = curated(tmp_path, made())
    suggested = {row["suggested_rating"] for row in found.values()} - {None}
    assert suggested == {1, 4}
