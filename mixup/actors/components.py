"""The reward components: what each makes of some outputs and their vectors."""

from __future__ import annotations

from collections.abc import Sequence

from mixup.actors.quality import Predictor, quality_scores
from mixup.actors.requests import Score, ScoreRequest, Texts
from mixup.actors.reward_settings import RewardSettings
from mixup.config import Similarity
from mixup.errors import ShapeError
from mixup.refresh_config import RewardMode
from mixup.rewards.alignment import alignment_score
from mixup.rewards.coverage import coverage_score, sentences
from mixup.rewards.format import format_score


def component_scores(
    component: str,
    requests: Sequence[ScoreRequest],
    texts: Texts | None,
    settings: RewardSettings,
    predictor: Predictor | None,
) -> list[Score]:
    """One component's outcomes for some samples, in their order.

    Args:
        component: One of ``COMPONENTS``.
        requests: The samples.
        texts: The vectors of all their texts; format needs none.
        settings: What decides the values.
        predictor: What tells quality; without one, it has no value.

    Raises:
        ShapeError: If a component that needs vectors was given none.
    """
    if component == "format":
        mode = settings.mode
        return [Score(format_score(one.text, one.task, mode=mode)) for one in requests]
    if texts is None:
        raise ShapeError(f"component {component} needs vectors, and was given none")
    able = [one for one in requests if one.answer.strip()]
    if component == "quality":
        scores = quality_scores(able, texts, settings, predictor)
    else:
        one_score = _alignment if component == "alignment" else _coverage
        scores = [one_score(one, texts, settings.similarity, settings.mode) for one in able]
    found = {one.key: score for one, score in zip(able, scores, strict=True)}
    return [found.get(one.key, Score(None, "empty_answer")) for one in requests]


def _alignment(one: ScoreRequest, texts: Texts, near: Similarity, mode: RewardMode) -> Score:
    if (missing := texts.missing([one.answer, *one.targets])) is not None:
        return missing
    answer, targets = texts.vectors([one.answer])[0], texts.vectors(one.targets)
    low, high = near.alignment_low, near.alignment_high
    return Score(alignment_score(answer, targets, mode=mode, low=low, high=high))


def _coverage(one: ScoreRequest, texts: Texts, near: Similarity, mode: RewardMode) -> Score:
    said = [*sentences(one.answer), one.answer]
    if (missing := texts.missing([*one.inputs, *said])) is not None:
        return missing
    inputs, low, high = texts.vectors(one.inputs), near.alignment_low, near.alignment_high
    return Score(coverage_score(inputs, texts.vectors(said), low=low, high=high))
