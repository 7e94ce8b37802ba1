"""What is fitted of a pool's ratings: T of neighbors, the rater's errors, and the regression."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mixup.quality.panel import Panel
from mixup.quality.rating_noise import RatingNoise, noise_of
from mixup.quality.rating_test import pool_thresholds
from mixup.quality.regression import STRENGTHS, fit_regression, folds_of
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
    folds, strengths = folds_of(library.uids), STRENGTHS
    if fit.noise.known is None:
        told = tell_reliability(vectors, ratings, folds, classes, strengths)
        noise = _noise_by(told, fit.noise, counts)
        fit = replace(fit, noise=noise, test=pool_thresholds(counts.sketch_CB, noise))
        strengths = strengths if told.strength is None else (told.strength,)
    known = fit.noise.known
    # A class whose rows have no rated neighbors may be missing from T by consensus.
    is_whole = known is not None and np.array_equal(known.classes, classes)
    errors = known.matrix_CC if known is not None and is_whole else None
    regression = fit_regression(vectors, ratings, folds, classes, errors, strengths)
    found = Panel.of(regression, panel.vectors_ND, panel.ratings_N, panel.uids)
    return replace(fit, regressed=RegressionFit(regression, found))


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
    )
