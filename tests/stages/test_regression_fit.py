"""The regression of a pool's library: fitted once, kept, and what tells the quality of its rows."""

from dataclasses import dataclass, replace

import made_pool
import numpy as np
import pytest
from made_pool import Row, add, make_workspace, settings
from planted_ratings import rated

from mixup.quality import reliability
from mixup.quality.agreement import SKETCH_BINS
from mixup.quality.posterior import at_least, with_own_rating
from mixup.quality.regression import folds_of_rated
from mixup.quality.shrinkage import transition_of
from mixup.records import content_key
from mixup.refresh_config import CurateConfig
from mixup.stages import pool_fit, rating_counts
from mixup.stages.cell import CellSettings
from mixup.stages.curate_cell import Scoring
from mixup.stages.pool_fit import fit_pool
from mixup.stages.rating_counts import RatingCounts, count_rows, fit_ratings
from mixup.stages.reference import current_reference, is_reference_current, reference_revision
from mixup.stages.regression_fit import DrawnRows
from mixup.stages.scores import pool_scores

TOPICS, ROWS = 6, 30
ERRORS = 0.2


@dataclass(frozen=True)
class Scattered(Row):
    """A row at a place of its own around its topic."""

    @property
    def vector(self) -> np.ndarray:
        draw = np.random.default_rng(int(self.uid[:8], 16))
        vector = 0.5 * draw.normal(size=64) / 8
        vector[self.topic] += 1.0
        return (vector / np.linalg.norm(vector)).astype(np.float32)


def pool(errors: float = ERRORS, rows: int = ROWS) -> list[Row]:
    """Topics that are good (8) or bad (5); two rows of three are rated, some wrongly."""
    draw = np.random.default_rng(0)
    return [
        Scattered(
            f"{topic}-{n}",
            topic,
            n,
            overall=None if n % 3 == 0 else (5.0, 8.0)[(topic % 2) ^ (draw.random() < errors)],
        )
        for topic in range(TOPICS)
        for n in range(rows)
    ]


def made(**changed):
    return settings(curate=CurateConfig(**{"predictor": "regression", **changed}))


def drawn(rows: list[Row]) -> DrawnRows:
    ratings = [{5.0: 1, 8.0: 4, None: -1}[row.overall] for row in rows]
    vectors = np.array([row.vector for row in rows])
    return DrawnRows([row.uid for row in rows], vectors, np.array(ratings))


def counts_of(rows: list[Row], config: CellSettings | None = None) -> RatingCounts:
    given = drawn(rows)
    order, count = np.arange(len(rows)), len(rows)
    return count_rows(
        given.vectors_ND, given.ratings_N, order, given.uids, count, config or made()
    ).counts


@pytest.mark.parametrize("cell_rows", [4000, 60])
def test_the_regression_tells_the_quality_of_all_rows(tmp_path, cell_rows):
    workspace, rows = make_workspace(tmp_path / "w", buckets=2), pool()
    add(workspace, rows)
    config = made(cell_rows=cell_rows)
    made_pool.curate(workspace, made=config)
    reference = current_reference(workspace, config.scoring())
    assert reference is not None
    kept = reference.fit.regressed
    assert kept is not None
    given = drawn(rows)
    folds = folds_of_rated(given.ratings_N, given.uids)
    q = kept.regression.probabilities(given.vectors_ND, folds)
    q = with_own_rating(
        q,
        given.ratings_N,
        kept.regression.classes,
        rater=pool_scores(reference.fit, config).rater,
    )
    expected = at_least(q, kept.regression.classes, config.curate.threshold)
    quality = {row["uid"]: row["quality"] for row in made_pool.rows_of(workspace, "curation")}
    found = np.array([quality[uid] for uid in given.uids])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    unrated = given.ratings_N < 0
    good = np.array([row.topic % 2 == 1 for row in rows])
    assert ((found >= 0.5) == good)[unrated].mean() > 0.9
    assert len(np.unique(folds)) > 2


def test_what_is_read_is_what_was_fitted(tmp_path):
    workspace, rows = make_workspace(tmp_path / "w"), pool()
    add(workspace, rows)
    made_pool.curate(workspace, made=made())
    reference = current_reference(workspace, made().scoring())
    assert reference is not None
    kept = reference.fit.regressed
    assert kept is not None
    library = DrawnRows(reference.uids, reference.vectors_LD, reference.ratings_L)
    again = fit_pool(counts_of(rows), library, drawn(rows), made()).regressed
    assert again is not None
    np.testing.assert_array_equal(again.regression.weights_FCD, kept.regression.weights_FCD)
    np.testing.assert_array_equal(again.regression.offsets_FC, kept.regression.offsets_FC)
    assert again.regression.strength == kept.regression.strength
    by_uid = np.argsort([row.uid for row in rows])
    np.testing.assert_array_equal(again.panel.own_P[by_uid], kept.panel.own_P)
    np.testing.assert_allclose(again.panel.shares_PC[by_uid], kept.panel.shares_PC, rtol=1e-5)


def test_the_curve_is_of_the_qualities_that_rows_get(tmp_path):
    workspace = make_workspace(tmp_path / "w")
    add(workspace, pool())
    made_pool.curate(workspace, made=made())
    reference = current_reference(workspace, made().scoring())
    assert reference is not None
    curve = pool_scores(reference.fit, made()).curve
    assert curve is not None
    quality = [row["quality"] for row in made_pool.rows_of(workspace, "curation")]
    assert curve.total == len(quality)
    for cut, count in zip(curve.cuts, curve.rows, strict=True):
        assert abs(count - sum(q >= cut for q in quality)) <= 1  # a quality at the edge of a bin
    assert curve.precision[0] == pytest.approx(np.mean(quality), abs=1e-5)


def test_votes_tell_quality_where_they_are_asked_for(tmp_path):
    workspace = make_workspace(tmp_path / "w")
    add(workspace, pool())
    config = made(predictor="neighbors")
    made_pool.curate(workspace, made=config)
    reference = current_reference(workspace, config.scoring())
    assert reference is not None
    assert reference.fit.regressed is None


def test_the_library_is_read_only_where_votes_tell_quality(tmp_path):
    for predictor in ("regression", "neighbors"):
        workspace, config = make_workspace(tmp_path / predictor), made(predictor=predictor)
        add(workspace, pool())
        made_pool.curate(workspace, made=config)
        revision = reference_revision(workspace, config.scoring())
        library = tmp_path / predictor / f"fitted/reference/{revision}/library.parquet"
        scoring = Scoring.of(workspace, config)
        library.unlink()
        assert is_reference_current(workspace, config.scoring())
        if predictor == "regression":
            assert scoring.fallback is None
            assert Scoring.of(workspace, config).regression is not None
        else:
            assert scoring.fallback is not None
            with pytest.raises(FileNotFoundError):
                Scoring.of(workspace, config)


def test_one_class_of_ratings_is_said_and_not_fitted(tmp_path):
    workspace = make_workspace(tmp_path / "w")
    rows = [replace(row, overall=None if row.overall is None else 8.0) for row in pool()]
    add(workspace, rows)
    counts = made_pool.curate(workspace, made=made())
    reference = current_reference(workspace, made().scoring())
    assert reference is not None
    assert reference.fit.regressed is None
    assert counts["unrated"] == sum(row.overall is None for row in rows)


def test_too_few_ratings_are_said_and_not_fitted(tmp_path):
    workspace = make_workspace(tmp_path / "w")
    add(workspace, pool()[:20])
    counts = made_pool.curate(workspace, made=made())
    assert current_reference(workspace, made().scoring()) is None
    assert counts["unrated"] == 7


def rated_rows() -> list[Row]:
    return [row for row in pool() if row.overall is not None]


@pytest.mark.parametrize("source", ["consensus", "shrunk"])
def test_only_known_errors_are_undone(monkeypatch, source):
    rows = rated_rows()
    rated, counts = drawn(rows), counts_of(rows)
    plain = fit_pool(counts, rated, rated.none(), made())
    assert plain.noise.source == "shrunk"
    assert plain.regressed is not None
    assert plain.regressed.regression.errors_CC is None
    monkeypatch.setattr(
        rating_counts, "transition_of", lambda counts: replace(transition_of(counts), source=source)
    )
    found = fit_pool(counts, rated, rated.none(), made())
    assert found.regressed is not None
    undone = found.regressed.regression.errors_CC
    if source == "shrunk":
        assert undone is None
    else:
        np.testing.assert_array_equal(undone, np.array(found.noise.matrix))
        assert found.test.reason is None
    assert len(found.regressed.panel.own_P) == 0


def test_a_stated_reliability_is_undone_and_not_looked_for(monkeypatch):
    monkeypatch.setattr(pool_fit, "tell_reliability", None)
    rows, config = rated_rows(), made(reliability=0.8)
    rated = drawn(rows)
    found = fit_pool(counts_of(rows, config), rated, rated.none(), config)
    assert found.noise.source == "stated"
    assert found.test.reason is None
    assert found.regressed is not None
    errors = found.regressed.regression.errors_CC
    assert errors is not None
    np.testing.assert_allclose(errors, [[0.8, 0.2], [0.2, 0.8]])


def test_the_regression_tells_how_reliable_the_rater_is(tmp_path, monkeypatch):
    """A consensus of so few rows is not trusted; by the regression ratings are flagged."""
    monkeypatch.setattr(reliability, "FEWEST_ROWS", 100)
    workspace = make_workspace(tmp_path / "w", buckets=2)
    rows = pool(rows=200)
    add(workspace, rows)
    config = made(cell_rows=300)
    counts = made_pool.curate(workspace, made=config)
    reference = current_reference(workspace, config.scoring())
    assert reference is not None
    noise, scores = reference.fit.noise, pool_scores(reference.fit, config)
    assert noise.source == "regression"
    assert "samples; at least 5000 are needed" in noise.detail
    assert scores.rater.reliability == pytest.approx(noise.high[0][0])
    assert float(noise.low[0][0] or 1) - 0.05 <= 1 - ERRORS <= scores.rater.reliability + 0.05
    assert scores.rater_detail == "the highest with which ratings are predicted as well as with any"
    assert scores.untested is None
    truth = {row.uid: (1, 4)[row.topic % 2] for row in rows}
    given = {row.uid: {5.0: 1, 8.0: 4}[row.overall] for row in rows if row.overall}
    kept = {row["uid"]: row for row in made_pool.rows_of(workspace, "curation")}
    now = np.mean([kept[uid]["curated_rating"] == truth[uid] for uid in given])
    assert now > np.mean([given[uid] == truth[uid] for uid in given]) + 0.05
    assert counts["ratings_tested"] == len(given)


def test_where_the_regression_cannot_tell_either_both_reasons_are_said(monkeypatch):
    monkeypatch.setattr(reliability, "FEWEST_ROWS", 100)
    rows = [replace(row, overall=(5.0, 8.0)[int(row.uid[-1], 16) % 2]) for row in pool(rows=100)]
    rated = drawn(rows)
    found = fit_pool(counts_of(rows), rated, rated.none(), made())
    assert found.noise.known is None
    assert "samples; at least 5000 are needed; reliabilities from" in str(found.test.reason)
    assert found.regressed is not None
    assert found.regressed.regression.errors_CC is None


def test_a_rare_class_is_not_taken_for_nothing_but_errors():
    """The rater seldom errs towards the rare class, and the T of two numbers thinks it does."""
    random = np.random.default_rng(0)
    classes, errors = (
        np.array([0, 3, 4]),
        np.array([[0.8, 0.1, 0.1], [0.005, 0.8, 0.195], [0.005, 0.195, 0.8]]),
    )
    truth = random.choice(3, 2_000, p=[0.04, 0.48, 0.48])
    vectors = np.eye(16)[truth] + 0.15 * random.normal(size=(2_000, 16))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    ratings = classes[rated(truth, errors, random)]
    uids, order = [content_key(n) for n in range(2_000)], np.arange(2_000)
    config = made(reliability=0.8)
    counts = count_rows(vectors, ratings, order, uids, 2_000, config).counts
    assert fit_ratings(counts, config).noise.prior[0] < 0.02
    library = DrawnRows(uids, vectors, ratings)
    found = fit_pool(counts, library, library.none(), config)
    assert found.noise.prior[0] == pytest.approx(0.04, abs=0.01)
    assert found.test.thresholds_C[0] < SKETCH_BINS
