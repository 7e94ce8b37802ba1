"""Planted rating errors over real text: what curation makes of them, beside the raw ratings.

    OMP_NUM_THREADS=1 make bench ARGS="-k curation"

A run fits with one thread; the last bits of sums decide between candidates that are about alike.

The true class of a row is read from real metadata (``labeled_rows.CLASS_OF``), and its rating is
drawn from a known T, so that what is wrong is known. The pool is one cell. Printed are the accuracy
of the curated against the raw ratings, precision and recall of the flags, and, for "the true class
is at least 4", accuracy and expected calibration error of the quality, of the raw rating and of the
reference's rule (E >= 4). With the workspace of ``make pool`` as ``MIXUP_BENCH_POOL`` its vectors
are read instead of made; ``MIXUP_BENCH_LABELED`` (1) is the share of the rows that is drawn.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import numpy as np
import pytest
from labeled_rows import LabeledRows, labeled_rows
from made_pool import settings
from planted_ratings import calibration_error, rated, true_matrix
from whole_pool import DATA

from mixup.quality.agreement import suspicion_thresholds
from mixup.quality.curation import Curation, curate
from mixup.quality.neighbors import top_k
from mixup.quality.posterior import expected_class, neighbor_votes, posterior
from mixup.quality.rating_test import PoolThresholds
from mixup.quality.regression import Regression, fit_regression, folds_of
from mixup.quality.transition import Transition
from mixup.refresh_config import CurateConfig
from mixup.stages.cell import CellSettings
from mixup.stages.pool_fit import fit_pool
from mixup.stages.rating_counts import count_rows, row_ids
from mixup.stages.reference import RatingFit
from mixup.stages.regression_fit import DrawnRows
from mixup.stages.scores import curation_settings, pool_scores, rating_test

SHARE = float(os.environ.get("MIXUP_BENCH_LABELED", "1"))
HIGH = 4
pytestmark = [
    pytest.mark.skipif(not DATA.exists(), reason=f"no real data in {DATA}"),
    pytest.mark.timeout(3600),
]


def noise(right: float, decay: float = 0.5) -> np.ndarray:
    """A T whose mean diagonal is so much; errors fall with the distance, by decay a step."""
    matrix = true_matrix(decay)
    wrong = 1 - np.diag(matrix)
    scaled = (matrix - np.diag(np.diag(matrix))) * ((1 - right) / wrong.mean())
    return scaled + np.diag(1 - scaled.sum(axis=1))


@dataclass(frozen=True)
class Planted:
    """Rows with planted ratings, near-duplicates left out, and what was fitted on them."""

    rows: LabeledRows
    matrix: np.ndarray
    ratings: np.ndarray
    made: CellSettings
    fit: RatingFit
    sketch: np.ndarray

    @property
    def known(self) -> RatingFit:
        """The fit, with thresholds of the true T, as a pool large enough to tell it would have."""
        prior = np.bincount(self.rows.truth_N, minlength=6) / len(self.rows.truth_N)
        transition = Transition(np.arange(6), self.matrix, prior)
        thresholds = suspicion_thresholds(self.sketch, transition)
        return replace(self.fit, test=PoolThresholds(thresholds, None))


def planted(
    rows: LabeledRows,
    matrix: np.ndarray,
    unrated: float = 0.0,
    **changed: object,
) -> Planted:
    """Ratings of a known T, some of them hidden, and the fit of a run with changed settings."""
    draw = np.random.default_rng(7)
    ratings = rated(rows.truth_N, matrix, draw)
    ratings[draw.random(len(ratings)) < unrated] = -1
    made = settings(curate=CurateConfig.model_validate(changed))
    count = len(rows.uids)
    counted = count_rows(rows.vectors_ND, ratings, np.arange(count), rows.uids, count, made)
    voters = counted.voters
    library = DrawnRows(
        [rows.uids[row] for row in voters], rows.vectors_ND[voters], ratings[voters]
    )
    fit = fit_pool(counted.counts, library, library.none(), made)
    return Planted(rows, matrix, ratings, made, fit, counted.counts.sketch_CB)


def curated(
    pool: Planted,
    fit: RatingFit,
    *,
    ratings: np.ndarray | None = None,
    tested: bool = True,
    regression: Regression | None = None,
) -> Curation:
    """The pool curated as one cell; also with ratings other than those that were observed."""
    scores = pool_scores(fit, pool.made)
    rows = pool.rows
    return curate(
        rows.vectors_ND,
        pool.ratings if ratings is None else ratings,
        np.arange(len(rows.uids)),
        transition=fit.transition,
        settings=curation_settings(scores, pool.made),
        test=rating_test(fit, scores, pool.made) if tested else None,
        ids_N=row_ids(rows.uids),
        uids_N=rows.uids,
        regression=regression,
    )


def of_run(pool: Planted) -> np.ndarray:
    """The quality that a run gives."""
    assert pool.fit.regressed is not None
    return curated(pool, pool.fit, regression=pool.fit.regressed.regression).quality_N.astype(float)


def quality_with(pool: Planted, errors: np.ndarray | None) -> np.ndarray:
    """The quality by a regression that undoes the given errors of the rater."""
    rated_rows = np.flatnonzero(pool.ratings >= 0)
    regression = fit_regression(
        pool.rows.vectors_ND[rated_rows],
        pool.ratings[rated_rows],
        folds_of([pool.rows.uids[row] for row in rated_rows]),
        np.arange(6),
        errors,
    )
    return curated(pool, pool.fit, regression=regression).quality_N.astype(float)


def mean(found: np.ndarray) -> str:
    """A share, or a dash where there is nothing to have one."""
    return f"{found.mean():.3f}" if found.size else "-"


def told(name: str, chance: np.ndarray, truth: np.ndarray) -> None:
    """Print how well a chance of being high says which rows are."""
    high = truth >= HIGH
    assert ((chance >= 0) & (chance <= 1 + 1e-6)).all()  # a NaN compares false
    order = np.argsort(np.argsort(chance, kind="stable"))  # of equal ones one is above by chance
    ranks = np.array([order[chance == value].mean() for value in np.unique(chance)])
    rank = ranks[np.searchsorted(np.unique(chance), chance)]
    auc = (rank[high].mean() - (high.sum() - 1) / 2) / max((~high).sum(), 1)
    error = calibration_error(np.clip(chance, 0, 1), high)
    print(f"  {name:54} {((chance >= 0.5) == high).mean():.3f} {error:.3f} {auc:.3f}")


def rule(pool: Planted) -> np.ndarray:
    """The reference's reward rule: 1 where the mean of the posterior, untempered, is at least 4."""
    rated_rows = np.flatnonzero(pool.ratings >= 0)
    own = np.full(len(pool.ratings), -1)
    own[rated_rows] = np.arange(len(rated_rows))
    vectors, fit = pool.rows.vectors_ND, pool.fit
    near = top_k(vectors, vectors[rated_rows], 16, own_M=own)
    classes = fit.transition.classes
    votes = neighbor_votes(pool.ratings[rated_rows], near.indices_MK, classes)
    return (expected_class(posterior(votes, fit.transition), classes) >= HIGH).astype(float)


@pytest.fixture(scope="module")
def rows() -> LabeledRows:
    found = labeled_rows(SHARE)
    keep = np.isfinite(found.vectors_ND).all(axis=1)
    kept = np.flatnonzero(keep)
    return LabeledRows(
        [found.uids[row] for row in kept],
        found.files[kept],
        found.truth_N[kept],
        found.vectors_ND[kept],
    )


ERRORS = {
    "0.66": noise(0.66),
    "0.66, to the classes beside": noise(0.66, 0.2),
    "0.66, to any class alike": noise(0.66, 1.0),
    "0.85": noise(0.85),
    "0.95": noise(0.95),
}


@pytest.mark.parametrize("name", ERRORS)
def test_flags_and_curated_ratings(rows: LabeledRows, name: str) -> None:
    pool = planted(rows, ERRORS[name])
    truth, wrong = rows.truth_N, pool.ratings != rows.truth_N
    print(f"\n{len(truth):,} rows, classes {np.bincount(truth, minlength=6).tolist()}")
    told = pool.fit.noise
    print(f"  T: {name}; ratings right: {1 - wrong.mean():.3f}")
    print(f"  told by {told.source}: {told.rater}; {told.detail}")
    for case, fit in {"as in a run": pool.fit, "T known": pool.known}.items():
        found = curated(pool, fit)
        tested = ~np.isnan(found.misrated_N)
        flagged, replaced = found.suspicious_N, found.origin_N == "neighbors"
        right_now = found.curated_rating_N == truth
        missed = wrong & tested
        print(
            f"  {case:20} tested {tested.sum():,}, flagged {flagged.sum():,}: precision "
            f"{mean(wrong[flagged])}, recall {mean(flagged[missed])}; replaced "
            f"{replaced.sum():,}; right {mean(~wrong)} -> {mean(right_now)}"
            f" (of those replaced {mean((~wrong)[replaced])} -> {mean(right_now[replaced])})"
        )


@pytest.mark.parametrize("transition", ["cooccurrence", "consensus"])
@pytest.mark.parametrize("name", ERRORS)
def test_quality(rows: LabeledRows, name: str, transition: str) -> None:
    matrix = ERRORS[name]
    pool = planted(rows, matrix, transition=transition)
    by_votes = planted(rows, matrix, transition=transition, predictor="neighbors")
    truth, found = rows.truth_N, curated(by_votes, by_votes.known)
    scores = pool_scores(pool.fit, pool.made)
    print(f"\nrated rows, T {name}, {transition}: {scores.effective_votes:g} votes")
    print(f"  a rating is right: {scores.rater}, {scores.rater_detail}")
    print(f"  {'P(true class >= 4)':54} accuracy, calibration error, AUC")
    told("quality, as in a run", of_run(pool), truth)
    told("quality, errors known to the regression", quality_with(pool, matrix), truth)
    told("quality, errors not undone", quality_with(pool, None), truth)
    right = float((pool.ratings == truth).mean())
    stated = planted(rows, matrix, transition=transition, reliability=right)
    told("quality, reliability stated", of_run(stated), truth)
    told("quality, by votes", found.quality_N.astype(float), truth)
    at_four = replace(by_votes.fit, effective_votes=4.0)
    told("quality, 4 votes", curated(by_votes, at_four, tested=False).quality_N, truth)
    replaced = found.curated_rating_N.astype(np.int64)
    again = curated(by_votes, by_votes.fit, ratings=replaced, tested=False)
    told("quality, votes and own rating curated", again.quality_N.astype(float), truth)
    told("raw rating >= 4", (pool.ratings >= HIGH).astype(float), truth)
    told("curated rating >= 4", (replaced >= HIGH).astype(float), truth)
    told("the reference's rule, E >= 4", rule(pool), truth)


@pytest.mark.parametrize("transition", ["cooccurrence", "consensus"])
def test_unrated_rows(rows: LabeledRows, transition: str) -> None:
    matrix = noise(0.66)
    pool = planted(rows, matrix, unrated=0.5, transition=transition)
    by_votes = planted(rows, matrix, unrated=0.5, transition=transition, predictor="neighbors")
    found = curated(by_votes, by_votes.known)
    blind = pool.ratings < 0
    scores, truth = pool_scores(pool.fit, pool.made), rows.truth_N[blind]
    print(f"\nunrated half, {transition}: {scores.effective_votes:g} votes")
    print(f"  {'P(true class >= 4)':54} accuracy, calibration error, AUC")
    told("quality, as in a run", of_run(pool)[blind], truth)
    told("quality, errors known to the regression", quality_with(pool, matrix)[blind], truth)
    told("quality, errors not undone", quality_with(pool, None)[blind], truth)
    told("quality, by votes", found.quality_N[blind].astype(float), truth)
    told("the reference's rule, E >= 4", rule(pool)[blind], truth)


def test_each_file(rows: LabeledRows) -> None:
    pool = planted(rows, noise(0.66))
    found = curated(pool, pool.fit)
    print("\nright ratings by file: raw -> curated")
    for file in np.unique(rows.files).tolist():
        mine = rows.files == file
        raw = (pool.ratings == rows.truth_N)[mine].mean()
        now = (found.curated_rating_N == rows.truth_N)[mine].mean()
        print(f"  {file:28} {mine.sum():5,} rows, {raw:.3f} -> {now:.3f}")
