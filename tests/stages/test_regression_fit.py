"""The regression of a pool's library: fitted once, kept, and what tells the quality of its rows."""

from dataclasses import dataclass, replace

import made_pool
import numpy as np
import pytest
from made_pool import Row, add, make_workspace, settings

from mixup.quality.posterior import at_least, with_own_rating
from mixup.quality.regression import folds_of_rated
from mixup.quality.shrinkage import RatingNoise
from mixup.refresh_config import CurateConfig
from mixup.stages.curate_cell import Scoring
from mixup.stages.reference import current_reference, is_reference_current, reference_revision
from mixup.stages.regression_fit import DrawnRows, fit_regression_of
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


def pool(errors: float = ERRORS) -> list[Row]:
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
        for n in range(ROWS)
    ]


def made(**changed):
    return settings(curate=CurateConfig(**{"predictor": "regression", **changed}))


def drawn(rows: list[Row]) -> DrawnRows:
    ratings = [{5.0: 1, 8.0: 4, None: -1}[row.overall] for row in rows]
    vectors = np.array([row.vector for row in rows])
    return DrawnRows([row.uid for row in rows], vectors, np.array(ratings))


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
        q, given.ratings_N, kept.regression.classes, reliability=config.curate.reliability
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
    classes, noise = reference.transition.classes, reference.fit.noise
    again = fit_regression_of(library, drawn(rows), classes, noise, made())
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


@pytest.mark.parametrize(
    ("transition", "source", "undone"),
    [
        ("consensus", "consensus", True),
        ("consensus", "shrunk", False),
        ("cooccurrence", "consensus", False),
    ],
)
def test_only_trusted_errors_are_undone(transition, source, undone):
    rated = drawn([row for row in pool() if row.overall is not None])
    matrix = ((0.8, 0.2), (0.2, 0.8))
    noise = RatingNoise(source, "", 100, (1, 4), matrix)
    plain, other = (
        fit_regression_of(rated, rated.none(), np.array([1, 4]), found, made(transition=transition))
        for found in (RatingNoise("none", "", 100), noise)
    )
    assert plain is not None
    assert other is not None
    same = np.array_equal(plain.regression.weights_FCD, other.regression.weights_FCD)
    assert same != undone
    assert len(other.panel.own_P) == 0
