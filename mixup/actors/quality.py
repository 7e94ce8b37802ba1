"""The quality of answers: by the votes of rated examples, or by a regression fitted on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixup.actors.requests import Score, ScoreRequest, Texts
from mixup.actors.reward_settings import RewardSettings
from mixup.actors.votes import Votes, voted_quality
from mixup.quality.regression import Regression
from mixup.quality.transition import UNRATED
from mixup.rewards.quality import quality_score

Predictor = Votes | Regression
"""What tells the quality of an answer from its vector."""


def quality_scores(
    requests: Sequence[ScoreRequest],
    texts: Texts,
    settings: RewardSettings,
    predictor: Predictor | None,
) -> list[Score]:
    """The quality of all pairs, in their order; where it cannot be told, why.

    Args:
        requests: The samples.
        texts: The vectors of their pairs.
        settings: What decides the values.
        predictor: What tells quality; None: nothing is rated.
    """
    if predictor is None:
        return [Score(None, "no_reference_library")] * len(requests)
    found = [texts.missing([one.pair]) for one in requests]
    able = [one for one, missing in zip(requests, found, strict=True) if missing is None]
    scores = iter(_told(able, texts, settings, predictor) if able else [])
    return [next(scores) if missing is None else missing for missing in found]


def _told(
    requests: Sequence[ScoreRequest], texts: Texts, settings: RewardSettings, predictor: Predictor
) -> list[Score]:
    """The quality of pairs that have a vector."""
    if isinstance(predictor, Regression):
        return _regressed(requests, texts, settings, predictor)
    return voted_quality(requests, texts, settings, predictor)


def _regressed(
    requests: Sequence[ScoreRequest], texts: Texts, settings: RewardSettings, model: Regression
) -> list[Score]:
    """The quality of pairs by the model of all rated rows: a sample is none of them."""
    folds_M = np.full(len(requests), UNRATED)
    q_MC = model.probabilities(texts.vectors([one.pair for one in requests]), folds_M)
    mode, threshold = settings.mode, settings.threshold
    return [
        Score(quality_score(q_C, model.classes, mode=mode, threshold=threshold)) for q_C in q_MC
    ]
