"""What is fitted of a pool's ratings: T of neighbors, the rater's errors, and the regression."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mixup.quality.panel import Panel
from mixup.quality.rating_noise import RatingNoise, noise_of
from mixup.quality.rating_test import pool_thresholds
from mixup.quality.regression import STRENGTHS, Regression, fit_regression, folds_of
from mixup.quality.reliability import ToldReliability, tell_reliability
from mixup.stages.cell import CellSettings
from mixup.stages.rating_counts import RatingCounts, fit_ratings
from mixup.stages.reference import RatingFit
from mixup.stages.regression_fit import DrawnRows, RegressionFit


def fit_pool(
    counts: RatingCounts, library: DrawnRows, panel: DrawnRows, settings: CellSettings
) -> RatingFit:
    """The fit of a pool, or of rated files.

    Where the config does not state how reliable the rater is, and the ratings of neighbors do not
    tell its errors, the regression is asked (``tell_reliability``). It undoes errors that are
    known. Those of a T that was shrunk are not: with it, it was worse on real ratings.

    Args:
        counts: Of all rated rows.
        library: Rated rows.
        panel: Rows of the pool; none of them where the library is of other files.
        settings: What decides.
    """
    fit = fit_ratings(counts, settings)
    classes = fit.transition.classes
    if settings.curate.predictor != "regression" or len(classes) < 2:
        return fit
    vectors, ratings = library.vectors_ND, library.ratings_N
    folds, strengths, noise = folds_of(library.uids), STRENGTHS, fit.noise
    if noise.known is None:
        told = tell_reliability(vectors, ratings, folds, classes, strengths)
        noise = _noise_by(told, noise, counts)
        strengths = strengths if told.strength is None else (told.strength,)
    errors = _errors_of(noise, classes)
    regression = fit_regression(vectors, ratings, folds, classes, errors, strengths)
    noise = _with_prior(noise, regression, vectors, folds)
    found = Panel.of(regression, panel.vectors_ND, panel.ratings_N, panel.uids)
    return replace(
        fit,
        noise=noise,
        test=pool_thresholds(counts.sketch_CB, noise),
        regressed=RegressionFit(regression, found),
    )


def _errors_of(noise: RatingNoise, classes: np.ndarray) -> np.ndarray | None:
    """The errors that the regression undoes; None where they are not known of these classes."""
    known = noise.known
    if known is None:
        return None
    if np.array_equal(known.classes, classes):
        return known.matrix_CC
    # A class whose rows have no rated neighbors may be missing from T by consensus.
    return noise.rater.matrix(classes) if noise.rater and noise.decay is not None else None


def _with_prior(
    noise: RatingNoise, regression: Regression, vectors: np.ndarray, folds: np.ndarray
) -> RatingNoise:
    """T of two numbers with the shares of true classes that the regression finds.

    Ratings alone do not tell them: a T that spreads errors evenly more than the rater does leaves
    nothing of a rare class.
    """
    if noise.decay is None or noise.classes != tuple(regression.classes.tolist()):
        return noise
    prior = regression.probabilities(vectors, folds).mean(axis=0)
    return replace(noise, prior=tuple(prior.tolist()))


def _noise_by(told: ToldReliability, noise: RatingNoise, counts: RatingCounts) -> RatingNoise:
    """What is known of the rater once the regression was asked, or why nothing is."""
    if told.rater is None:
        return replace(noise, detail="; ".join(filter(None, [noise.detail, told.detail])))
    return noise_of(
        told.rater,
        counts.ratings_C,
        source="regression",
        detail=noise.detail,
        ends=(told.low, told.high),
        samples=told.samples,
    )
