"""How well quality learned from a rated 20 % tells the rest of real rows, by real labels.

    make bench ARGS="-k quality"

With the workspace of ``make pool`` as ``MIXUP_BENCH_POOL`` its vectors are read instead of made.
``MIXUP_BENCH_QUALITY_ROWS`` rows of a file are read at most (3000), and of them
``MIXUP_BENCH_QUALITY_SEEDS`` draws (5) are rated. A larger library is timed with
``MIXUP_BENCH_QUALITY_LIBRARY=200000``. Prints the median over the draws, with the lowest and
highest, and asserts nothing.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from planted_ratings import calibration_error, rated
from rated_files import HIGH, MARKS, RatedRows, rated_rows
from scipy.stats import rankdata

from mixup.quality.consensus import consensus_counts
from mixup.quality.neighbors import top_k
from mixup.quality.posterior import at_least, neighbor_votes, posterior, with_own_rating
from mixup.quality.rater_errors import RaterErrors
from mixup.quality.regression import FOLDS, STRENGTHS, fit_regression
from mixup.quality.reliability import tell_reliability
from mixup.quality.shrinkage import transition_of
from mixup.quality.tempering import VOTES_GRID, best_votes, tempering_sums
from mixup.quality.transition import UNRATED, Transition, cooccurrence

pytestmark = pytest.mark.timeout(3600)
ROWS = int(os.environ.get("MIXUP_BENCH_QUALITY_ROWS", "3000"))
SEEDS = int(os.environ.get("MIXUP_BENCH_QUALITY_SEEDS", "5"))
LIBRARY = int(os.environ.get("MIXUP_BENCH_QUALITY_LIBRARY", "20000"))
RATED = 0.2
RELIABILITY = 0.75  # of planted ratings
TOLD = "regression, errors told by regressions"  # as in a run
VOTES = "KNN-Bayes, co-occurrence, 4 votes"


@dataclass(frozen=True)
class Draw:
    """L rated rows, their nearest others, and M rows to be told, with their nearest rated ones."""

    vectors_LD: np.ndarray
    ratings_L: np.ndarray
    truth_L: np.ndarray
    vectors_MD: np.ndarray
    lengths_L: np.ndarray
    lengths_M: np.ndarray
    near_LK: np.ndarray
    near_MK: np.ndarray

    @classmethod
    def of(cls, rows: RatedRows, seed: int, errors: np.ndarray | None) -> tuple[Draw, np.ndarray]:
        """A seeded draw, and the rows that are to be told; ratings have the given errors."""
        random = np.random.default_rng(seed)
        order = random.permutation(len(rows.uids))
        known, told = np.split(order, [round(RATED * len(order))])
        truth, vectors = rows.classes_N[known], rows.vectors_ND
        ratings = truth if errors is None else rated(truth, errors, random)
        near = top_k(vectors[known], vectors[known], 16, exclude_self=True)
        theirs = top_k(vectors[told], vectors[known], 16)
        draw = cls(
            vectors[known],
            ratings,
            truth,
            vectors[told],
            rows.lengths_N[known],
            rows.lengths_N[told],
            near.indices_MK,
            theirs.indices_MK,
        )
        return draw, told

    @property
    def classes(self) -> np.ndarray:
        return np.unique(self.ratings_L)

    @property
    def folds_L(self) -> np.ndarray:
        return np.arange(len(self.ratings_L)) % FOLDS

    def by_length(self) -> np.ndarray:
        """The lengths, with the sign that goes with the ratings of the rated rows."""
        return self.lengths_M * np.sign(rank_correlation(self.lengths_L, self.ratings_L))

    def consensus(self) -> Transition | None:
        """T by consensus, shrunk where so few rows do not tell it; None where nothing does."""
        first, second = self.ratings_L[self.near_LK[:, :2]].T
        ids = np.arange(len(self.ratings_L), dtype=np.uint64)
        found = transition_of(consensus_counts(self.ratings_L, first, second, ids, replicates=50))
        return found.transition


def neighbors(draw: Draw, transition: Transition, votes: float | None) -> np.ndarray:
    """P(class) by the votes of neighbors."""
    h_MC = neighbor_votes(draw.ratings_L, draw.near_MK, transition.classes)
    return posterior(h_MC, transition, effective_votes=votes)


def tempered(draw: Draw, transition: Transition, *, is_pairs: bool) -> float | None:
    """The votes that tell the rated rows best."""
    votes = neighbor_votes(draw.ratings_L, draw.near_LK, transition.classes)
    return best_votes(tempering_sums(votes, draw.ratings_L, transition, is_pairs=is_pairs))


def regressed(draw: Draw, errors: np.ndarray | None = None) -> np.ndarray:
    """P(class) by the regression; the rater's errors, over the classes or all six, are undone."""
    if errors is not None and len(errors) > len(draw.classes):
        errors = errors[np.ix_(draw.classes, draw.classes)]
    found = fit_regression(draw.vectors_LD, draw.ratings_L, draw.folds_L, draw.classes, errors)
    return found.probabilities(draw.vectors_MD, np.full(len(draw.vectors_MD), UNRATED))


def pooled(draw: Draw, transition: Transition) -> np.ndarray:
    """The regression as the prior of the votes, which are worth what tells the rated rows best."""
    found = fit_regression(draw.vectors_LD, draw.ratings_L, draw.folds_L, draw.classes)
    columns = np.searchsorted(draw.classes, draw.ratings_L)

    def both(vectors: np.ndarray, folds: np.ndarray, near: np.ndarray, votes: float) -> np.ndarray:
        heard = neighbor_votes(draw.ratings_L, near, draw.classes)
        chance = np.exp(heard / near.shape[1] * votes @ np.log(transition.matrix_CC).T)
        q = found.probabilities(vectors, folds) * chance
        return q / q.sum(axis=1, keepdims=True)

    def told(votes: float) -> float:
        q = both(draw.vectors_LD, draw.folds_L, draw.near_LK, votes)
        return np.log(q[np.arange(len(columns)), columns]).sum()

    votes = max((0.0, *VOTES_GRID), key=told)
    return both(draw.vectors_MD, np.full(len(draw.vectors_MD), UNRATED), draw.near_MK, votes)


def contenders(draw: Draw, errors: np.ndarray | None) -> Mapping[str, np.ndarray]:
    """Scores of shape (M,), or probabilities of shape (M, C)."""
    observed, consensus = cooccurrence(draw.ratings_L, draw.near_LK[:, :3]), draw.consensus()
    votes = tempered(draw, observed, is_pairs=True)
    found = {
        VOTES: neighbors(draw, observed, 4.0),  # first: the others are compared with it
        "answer length, longer or shorter": draw.by_length(),
        "mean of neighbors' ratings": draw.ratings_L[draw.near_MK].mean(axis=1),
        "KNN-Bayes, co-occurrence, each vote": neighbors(draw, observed, None),
        "KNN-Bayes, co-occurrence, tempered": neighbors(draw, observed, votes),
        "regression": regressed(draw),
        "regression and votes": pooled(draw, observed),
    }
    told = tell_reliability(draw.vectors_LD, draw.ratings_L, draw.folds_L, draw.classes, STRENGTHS)
    if told.rater is not None:
        found[TOLD] = regressed(draw, told.rater.matrix(draw.classes))
    if errors is not None:
        found["regression, errors known"] = regressed(draw, errors)
    if consensus is not None and len(consensus.classes) == len(draw.classes):
        votes = tempered(draw, consensus, is_pairs=False)
        found |= {
            "KNN-Bayes, consensus, 4 votes": neighbors(draw, consensus, 4.0),
            "KNN-Bayes, consensus, tempered": neighbors(draw, consensus, votes),
            "regression, errors by consensus": regressed(draw, consensus.matrix_CC),
        }
    return found


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's."""
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def auc(scores: np.ndarray, high: np.ndarray) -> float:
    """Area under the ROC curve: P(a high row scores above another), ties counting one half."""
    ranks, count = rankdata(scores), high.sum()
    return (ranks[high].sum() - count * (count + 1) / 2) / (count * (len(high) - count))


def agreement(name: str, scores: np.ndarray, marks: np.ndarray) -> float:
    """AUC of the high rows; where marks are finer than two classes, Spearman's correlation."""
    if name.startswith("Prometheus"):
        return rank_correlation(scores, marks)
    return auc(scores, marks >= HIGH)


def spread(values: Sequence[float]) -> str:
    """The median, and the lowest and highest."""
    return f"{np.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def confused(classes: np.ndarray) -> np.ndarray:
    """Errors over six classes that go evenly to the other classes of a file."""
    errors = np.eye(6)
    off = (1 - RELIABILITY) / (len(classes) - 1)
    errors[np.ix_(classes, classes)] = off
    errors[classes, classes] = RELIABILITY
    return errors


@pytest.mark.parametrize("planted", [False, True], ids=["as rated", "a quarter rated wrongly"])
@pytest.mark.parametrize("name", list(MARKS))
def test_quality_of_real_rows(name: str, planted: bool) -> None:
    rows = rated_rows(name, ROWS)
    errors = confused(np.unique(rows.classes_N)) if planted else None
    values: defaultdict[str, list[float]] = defaultdict(list)
    gaps: defaultdict[str, list[float]] = defaultdict(list)
    more: defaultdict[str, list[float]] = defaultdict(list)
    for seed in range(SEEDS):
        draw, told = Draw.of(rows, seed, errors)
        for contender, found in contenders(draw, errors).items():
            score = at_least(found, draw.classes, HIGH) if found.ndim == 2 else found
            values[contender].append(agreement(name, score, rows.marks_N[told]))
            more[contender].append(values[contender][-1] - values[VOTES][-1])
            if found.ndim == 2:
                high = rows.classes_N[told] >= HIGH
                gaps[contender].append(calibration_error(score, high))
    high = (rows.classes_N >= HIGH).mean()
    print(f"\n{name}: {len(rows.uids):,} rows, {high:.3f} high, {RATED:.0%} rated, {SEEDS} draws")
    if TOLD in values:
        print(f"  errors told in {len(values[TOLD])} draws")
    print(f"  {'':38} {'agreement':>24} {'more than the votes':>26} calibration error")
    for contender, found in values.items():
        gap = spread(gaps[contender]) if contender in gaps else ""
        print(f"  {contender:38} {spread(found):>24} {spread(more[contender]):>26} {gap}")


@pytest.mark.parametrize("name", list(MARKS))
def test_quality_of_rated_rows(name: str) -> None:
    """Rated rows by models without their fold and by the model of all, times the own rating."""
    rows = rated_rows(name, ROWS)
    classes = np.unique(rows.classes_N)
    gaps: defaultdict[str, list[float]] = defaultdict(list)
    right: defaultdict[str, list[float]] = defaultdict(list)
    for seed in range(SEEDS):
        draw, _ = Draw.of(rows, seed, confused(classes))
        found = fit_regression(draw.vectors_LD, draw.ratings_L, draw.folds_L, draw.classes)
        folds = {"out of fold": draw.folds_L, "by all rows": np.full(len(draw.folds_L), UNRATED)}
        for way, of_row in folds.items():
            q = found.probabilities(draw.vectors_LD, of_row)
            q = with_own_rating(q, draw.ratings_L, draw.classes, rater=RaterErrors(RELIABILITY))
            score, high = at_least(q, draw.classes, HIGH), draw.truth_L >= HIGH
            gaps[way].append(calibration_error(score, high))
            right[way].append(((score >= 0.5) == high).mean())
    print(f"\n{name}: rated rows, a quarter wrongly; calibration error, share of tiers right")
    for way, found in gaps.items():
        print(f"  {way:38} {spread(found):>24} {spread(right[way]):>26}")


@pytest.mark.parametrize(("rows", "dimension"), [(2_000, 384), (20_000, 384), (200_000, 1024)])
def test_quality_fit_time(rows: int, dimension: int) -> None:
    if rows > LIBRARY:
        pytest.skip(f"MIXUP_BENCH_QUALITY_LIBRARY is {LIBRARY}")
    random = np.random.default_rng(0)
    vectors = random.normal(size=(rows, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ratings = np.clip(np.round(3 + 20 * vectors[:, 0] + random.normal(size=rows)), 0, 5)
    start = time.process_time()
    folds = np.arange(rows) % FOLDS
    found = fit_regression(vectors, ratings.astype(np.int64), folds, np.arange(6))
    seconds = time.process_time() - start
    print(f"\n{rows:,} rows x {dimension}: {seconds:.1f} CPU s, strength {found.strength}")
