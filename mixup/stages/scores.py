"""The numbers with which cells are scored: from the config, and fitted on the pool."""

from __future__ import annotations

import numpy as np

from mixup.quality.agreement import SuspicionSettings
from mixup.quality.ballots import ballot_quality
from mixup.quality.curation_settings import CurationSettings
from mixup.quality.rater_errors import RaterErrors
from mixup.quality.rating_test import RatingTest
from mixup.quality.scores import FALLBACK_KEEP_AT, FALLBACK_VOTES, PoolScores
from mixup.quality.threshold import PrecisionCurve, cut_of, margin_at, precision_curve
from mixup.refresh_config import CurateConfig, PrecisionTarget
from mixup.stages.cell import CellSettings
from mixup.stages.reference import RatingFit


def pool_scores(fit: RatingFit | None, settings: CellSettings) -> PoolScores:
    """The numbers of a pool.

    Args:
        fit: What was fitted; None where too little is rated.
        settings: What decides.

    Raises:
        ConfigError: The stated precision cannot be reached.
    """
    votes, votes_detail = effective_votes(fit, settings.curate)
    rater, rater_detail = _rater(fit, settings.curate)
    curve = None
    if fit is not None and not settings.library:
        curve = _curve(fit, settings.curate, votes, rater)
    keep_at, margin, keep_detail = _cut(curve, settings.curate)
    return PoolScores(
        predictor=_predictor(fit),
        effective_votes=votes,
        votes_detail=votes_detail,
        rater=rater,
        rater_detail=rater_detail,
        keep_at=keep_at,
        margin=margin,
        keep_detail=keep_detail,
        curve=curve,
        untested=_untested(fit, settings),
    )


def _predictor(fit: RatingFit | None) -> str:
    if fit is None:
        return "each row's own rating alone"
    if fit.regressed is None:
        return "the votes of rated neighbors (KNN-Bayes)"
    strength = fit.regressed.regression.strength
    return f"a logistic regression on embeddings (prior precision {strength:g})"


def effective_votes(fit: RatingFit | None, config: CurateConfig) -> tuple[float, str]:
    """How many independent votes the neighbors are worth, and where that is from."""
    if config.effective_votes != "auto":
        return config.effective_votes, "as configured"
    if fit is None or fit.effective_votes is None:
        return FALLBACK_VOTES, "the default: the ratings cannot tell how many fit them best"
    return fit.effective_votes, "those that predict the ratings of rows from their neighbors best"


def _rater(fit: RatingFit | None, config: CurateConfig) -> tuple[RaterErrors, str]:
    """How the rater errs, and where that is from."""
    if config.reliability != "auto":
        return RaterErrors(config.reliability), "as configured"
    found = None if fit is None else fit.noise.rater
    if fit is None or found is None:
        return RaterErrors(), "the default: it could not be told"
    return found, _TOLD_BY[fit.noise.source]


_TOLD_BY = {
    "stated": "as its library states",
    "consensus": "by the ratings of neighbors",
    "regression": "the highest with which ratings are predicted as well as with any",
}


def _curve(
    fit: RatingFit, config: CurateConfig, votes: float, rater: RaterErrors
) -> PrecisionCurve | None:
    if len(fit.transition.classes) < 2:
        return None
    if fit.regressed is not None:
        panel = fit.regressed.panel
        quality = panel.quality(threshold=config.threshold, rater=rater)
        return precision_curve(quality, np.ones(len(quality), np.int64))
    quality = ballot_quality(
        fit.ballots,
        fit.transition,
        threshold=config.threshold,
        effective_votes=votes,
        rater=rater,
    )
    return precision_curve(quality, fit.ballots.rows_B)


def _cut(curve: PrecisionCurve | None, config: CurateConfig) -> tuple[float, float, str]:
    if not isinstance(config.keep_at, PrecisionTarget):
        return config.keep_at, config.margin, "as configured"
    wanted = config.keep_at.precision
    if curve is None or not curve.cuts:
        margin = margin_at(FALLBACK_KEEP_AT, config.margin)
        why = f"the default: too little is rated to tell where a precision of {wanted} begins"
        return FALLBACK_KEEP_AT, margin, why
    keep_at = cut_of(curve, wanted)
    return keep_at, margin_at(keep_at, config.margin), f"the lowest with a precision of {wanted}"


def _untested(fit: RatingFit | None, settings: CellSettings) -> str | None:
    if settings.curate.suspicion == "off":
        return "curate.suspicion is off"
    if settings.library:
        return "the library is of other files than the pool"
    if fit is None:
        return "too few rows are rated"
    return fit.test.reason


def curation_settings(scores: PoolScores, settings: CellSettings) -> CurationSettings:
    """The settings of the scores of a cell."""
    config = settings.curate
    return CurationSettings(
        threshold=config.threshold,
        neighbors=config.neighbors,
        transition_neighbors=config.transition_neighbors,
        long_tail_neighbors=config.long_tail_neighbors,
        effective_votes=scores.effective_votes,
        rater=scores.rater,
        smoothing=config.smoothing,
        min_rated=config.min_rated,
        keep_at=scores.keep_at,
        margin=scores.margin,
        duplicate_similarity=settings.similarity.near_duplicate,
    )


def rating_test(
    fit: RatingFit | None, scores: PoolScores, settings: CellSettings
) -> RatingTest | None:
    """How the ratings of a cell are tested; None: they are not."""
    if fit is None or scores.untested is not None:
        return None
    epochs = fit.noise.known if settings.curate.suspicion == "reference" else None
    numbers = SuspicionSettings(cure_at=settings.curate.cure_at)
    return RatingTest(fit.test.thresholds_C, epochs, numbers)
