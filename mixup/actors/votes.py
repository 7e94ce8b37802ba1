"""The quality of answers by the votes of the rated examples near to them (KNN-Bayes)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mixup.actors.requests import Score, ScoreRequest, Texts
from mixup.actors.reward_settings import RewardSettings
from mixup.quality.neighbors import top_k
from mixup.quality.posterior import neighbor_votes, posterior
from mixup.quality.transition import Transition, nearest_classes
from mixup.rewards.quality import quality_score


@dataclass(frozen=True)
class TaskVotes:
    """The rows of a library that vote on samples of one task type.

    Attributes:
        start: The first of them.
        end: The row behind the last.
        transition: T and p of these rows.
        effective_votes: The worth of their votes; None: that of the whole library's.
    """

    start: int
    end: int
    transition: Transition
    effective_votes: float | None


@dataclass(frozen=True)
class Votes:
    """The reference library as the quality component reads it.

    Attributes:
        vectors_LD: Unit vectors.
        ratings_L: Observed rating classes 0-5.
        transition: T and p of all rows.
        tasks: The task types whose own rows vote; on samples of others all do. Source: the paper
            has one library for each task type.
    """

    vectors_LD: np.ndarray
    ratings_L: np.ndarray
    transition: Transition
    tasks: Mapping[str, TaskVotes] = field(default_factory=dict)

    def of_task(self, task: str) -> tuple[Votes, float | None]:
        """Who votes on samples of a task type, and what their votes are worth, if it is fitted."""
        part = self.tasks.get(task)
        if part is None:
            return self, None
        rows = slice(part.start, part.end)
        own = Votes(self.vectors_LD[rows], self.ratings_L[rows], part.transition)
        return own, part.effective_votes


def voted_quality(
    requests: Sequence[ScoreRequest], texts: Texts, settings: RewardSettings, votes: Votes
) -> list[Score]:
    """The quality of all pairs, by one search in the library for each task type.

    Args:
        requests: The samples, each with a vector.
        texts: The vectors of their pairs.
        settings: What decides the values.
        votes: The library.
    """
    scores: dict[int, Score] = {}
    by_task: dict[str, list[int]] = {}
    for place, one in enumerate(requests):
        by_task.setdefault(one.task if one.task in votes.tasks else "", []).append(place)
    for task, places in by_task.items():
        own, worth = votes.of_task(task)
        found = _voted(
            [requests[place] for place in places],
            texts,
            settings,
            own,
            settings.effective_votes if worth is None else worth,
        )
        scores.update(zip(places, found, strict=True))
    return [scores[place] for place in range(len(requests))]


def _voted(
    requests: Sequence[ScoreRequest],
    texts: Texts,
    settings: RewardSettings,
    votes: Votes,
    effective_votes: float,
) -> list[Score]:
    classes = votes.transition.classes
    if len(classes) < 2:
        return [Score(None, "one_rating_class")] * len(requests)  # it cannot tell good from bad
    pairs_MD = texts.vectors([one.pair for one in requests])
    near = top_k(pairs_MD, votes.vectors_LD, settings.neighbors)
    counted = neighbor_votes(nearest_classes(votes.ratings_L, classes), near.indices_MK, classes)
    q_MC = posterior(counted, votes.transition, effective_votes=effective_votes)
    mode, threshold = settings.mode, settings.threshold
    return [Score(quality_score(q_C, classes, mode=mode, threshold=threshold)) for q_C in q_MC]
