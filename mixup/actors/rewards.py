"""Reward actors: each component is a pool of its own, and all share one pool of encoders.

A batch of samples is handed to all components at once. Those that need vectors wait for the
encoder, the others do not; all of it overlaps with the generation of the next batch. Distillation
and GRPO use the same pools, so the filter and the trainer cannot disagree.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mixup.actors.deaths import CRASHED, Guard
from mixup.actors.resources import Demand
from mixup.clusters.linearize import embed_text
from mixup.config import EmbedConfig, Similarity
from mixup.errors import ShapeError, StalledError
from mixup.models.encoder import SentenceEncoder, similarity_of
from mixup.quality.neighbors import top_k
from mixup.quality.posterior import neighbor_votes, posterior
from mixup.quality.transition import Transition, nearest_classes
from mixup.records import Turn, content_key
from mixup.refresh_config import RefreshConfig, RewardMode, ScoringConfig
from mixup.rewards.alignment import alignment_score
from mixup.rewards.coverage import coverage_score, sentences
from mixup.rewards.format import format_score
from mixup.rewards.quality import quality_score
from mixup.rewards.rubric import COMPONENTS
from mixup.text.parse import extract_answer

_NICENESS = 10
"""Of encoders on the CPU: they take what an engine on the same cores leaves, and do not slow it."""

_REPLACED: Mapping[str, int] = {"max_restarts": -1, "max_task_retries": -1}
"""An actor that dies is started again and gets its calls again; its guard knows when to stop."""

ENCODERS, SCORERS = "reward encoders", "reward components"
"""The names of the two kinds of actors, for the cluster."""

Span = tuple[str, float, float]
"""What was worked on, and from when to when, in seconds since the epoch."""


@dataclass(frozen=True)
class ScoreRequest:
    """A sample to be scored.

    Attributes:
        key: The sample's key.
        task: Its task type.
        text: The whole output, which the format component reads.
        answer: The answer's text: what is between the answer tags, or the whole output.
        pair: The distilled pair as the encoder reads examples; the answer where it did not parse.
        targets: Texts that the answer should mean: the gold answer in training, the cluster's
            inputs at application time.
        inputs: The cluster's inputs, which the answer should cover.
    """

    key: str
    task: str
    text: str
    answer: str
    pair: str
    targets: tuple[str, ...]
    inputs: tuple[str, ...]


def request_of(
    key: str,
    task: str,
    text: str,
    turns: Sequence[Turn] | None,
    *,
    targets: Sequence[str],
    inputs: Sequence[str],
) -> ScoreRequest:
    """An output as the reward actors read it.

    An output without answer tags is scored whole, as in the paper's code; its format says so.

    Args:
        key: The output's key.
        task: Its task type.
        text: The whole output.
        turns: The pair that was parsed from it; None where it did not parse.
        targets: Texts that the answer should mean.
        inputs: Texts that it should cover.
    """
    answer = extract_answer(text) or text
    return ScoreRequest(
        key=key,
        task=task,
        text=text,
        answer=answer,
        pair=embed_text(turns) if turns else answer,
        targets=tuple(targets),
        inputs=tuple(inputs),
    )


@dataclass(frozen=True)
class Score:
    """A component's outcome for a sample: a value in [0, 1], or the reason why there is none."""

    value: float | None
    reason: str | None = None


@dataclass(frozen=True)
class RewardSettings:
    """What decides reward values besides the samples.

    Attributes:
        mode: As in the config.
        similarity: The encoder's thresholds.
        threshold: The rating class from which quality is high.
        neighbors: Library neighbors that vote.
        effective_votes: Their worth in independent votes.
        encoder: The encoder's revision.
        library: The reference library's revision; None where there is none.
    """

    mode: RewardMode
    similarity: Similarity
    threshold: int
    neighbors: int
    effective_votes: float
    encoder: str
    library: str | None

    @classmethod
    def of(
        cls, config: RefreshConfig, encoder: str, library: str | None, effective_votes: float
    ) -> RewardSettings:
        """The settings of a refresh.

        Args:
            config: The job's config.
            encoder: The encoder's revision.
            library: The reference library's revision.
            effective_votes: The worth of its votes, as stated or as fitted with it.
        """
        return cls(
            mode=config.reward.mode,
            similarity=similarity_of(config.embed.model, config.embed.similarity),
            threshold=config.curate.threshold,
            neighbors=config.curate.neighbors,
            effective_votes=effective_votes,
            encoder=encoder,
            library=library,
        )

    def revision(self, component: str) -> str:
        """The revision of one component: it changes with what the component reads, only."""
        near = [self.similarity.alignment_low, self.similarity.alignment_high, self.encoder]
        reads = {
            "format": [self.mode],
            "alignment": [self.mode, *near],
            "coverage": near,
            "quality": [
                self.mode,
                self.encoder,
                self.library,
                self.threshold,
                self.neighbors,
                self.effective_votes,
            ],
        }
        return content_key("reward-v1", component, reads[component])


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


@dataclass(frozen=True)
class Texts:
    """The vectors of a batch's texts.

    Attributes:
        rows: The row of each text in ``vectors_ND``.
        vectors_ND: Unit vectors; NaN where a text has none.
        crashed: The texts that the encoder died of.
    """

    rows: Mapping[str, int]
    vectors_ND: np.ndarray
    crashed: frozenset[str]

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """The vectors of some texts, (texts, D)."""
        return self.vectors_ND[[self.rows[text] for text in texts]]

    def missing(self, texts: Sequence[str]) -> Score | None:
        """Why a score of these texts cannot be computed; None where all have a vector."""
        if any(text in self.crashed for text in texts):
            return Score(None, CRASHED)
        finite = not texts or bool(np.isfinite(self.vectors(texts)).all())
        return None if finite else Score(None, "no_vector")


class _EncoderActor:
    def __init__(self, embed: EmbedConfig, *, cpus: float, on_gpu: bool) -> None:
        self._guard = Guard.of_actor("a reward encoder")
        if not on_gpu:
            os.nice(_NICENESS)
        self._encoder = SentenceEncoder(
            embed.model, encode_tokens=embed.encode_tokens, on_gpu=on_gpu, cpus=cpus
        )

    def encode(self, texts: Sequence[str]) -> tuple[Texts, Span]:
        """The vectors of some texts, and when they were made; a text that is given up is named."""
        start = time.time()
        found = self._guard.run(
            [content_key(text) for text in texts],
            lambda places: self._encoder.encode([texts[at] for at in places]).rows(),
        )
        width = next((len(row.vector_D) for row in found if row is not None), 0)
        blank = np.full(width, np.nan, dtype=np.float32)
        vectors = [blank if row is None else row.vector_D for row in found]
        crashed = frozenset(text for text, row in zip(texts, found, strict=True) if row is None)
        rows = {text: row for row, text in enumerate(texts)}
        vectors_ND = np.stack(vectors) if vectors else np.empty((0, 0), dtype=np.float32)
        return Texts(rows, vectors_ND, crashed), ("encode", start, time.time())


class _ComponentActor:
    """Scores batches by one component. Import-light: it holds no model."""

    def __init__(self, component: str, settings: RewardSettings, votes: Votes | None) -> None:
        self._guard = Guard.of_actor(f"a {component} reward")
        self._component, self._settings, self._votes = component, settings, votes

    def score(
        self, requests: Sequence[ScoreRequest], encoded: tuple[Texts, Span] | None = None
    ) -> tuple[list[Score], Span]:
        """The scores of some pairs, in their order, and when they were made."""
        start = time.time()
        texts = None if encoded is None else encoded[0]
        found = self._guard.run(
            [request.key for request in requests],
            lambda places: component_scores(
                self._component,
                [requests[place] for place in places],
                texts,
                self._settings,
                self._votes,
            ),
        )
        scores = [Score(None, CRASHED) if score is None else score for score in found]
        return scores, (self._component, start, time.time())


def component_scores(
    component: str,
    requests: Sequence[ScoreRequest],
    texts: Texts | None,
    settings: RewardSettings,
    votes: Votes | None,
) -> list[Score]:
    """One component's outcomes for some samples, in their order.

    Args:
        component: One of ``COMPONENTS``.
        requests: The samples.
        texts: The vectors of all their texts; format needs none.
        settings: What decides the values.
        votes: The reference library; without one, quality has no value.

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
        scores = _quality_scores(able, texts, settings, votes)
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


def _quality_scores(
    requests: Sequence[ScoreRequest], texts: Texts, settings: RewardSettings, votes: Votes | None
) -> list[Score]:
    """The quality of all pairs, by one search in the library for each task type."""
    if votes is None:
        return [Score(None, "no_reference_library")] * len(requests)
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
    found = [texts.missing([one.pair]) for one in requests]
    able = [one for one, missing in zip(requests, found, strict=True) if missing is None]
    if not able:
        return [missing for missing in found if missing is not None]
    near = top_k(texts.vectors([one.pair for one in able]), votes.vectors_LD, settings.neighbors)
    counted = neighbor_votes(nearest_classes(votes.ratings_L, classes), near.indices_MK, classes)
    q_MC = posterior(counted, votes.transition, effective_votes=effective_votes)
    mode, threshold = settings.mode, settings.threshold
    scores = iter(
        [Score(quality_score(q_C, classes, mode=mode, threshold=threshold)) for q_C in q_MC]
    )
    return [missing if missing is not None else next(scores) for missing in found]


class RewardPools:
    """Handles of the component pools and the encoder pool; can be sent to any task."""

    def __init__(self, encoders: Sequence[Any], components: Mapping[str, Sequence[Any]]) -> None:
        self._encoders, self._components = list(encoders), dict(components)

    @classmethod
    def start(
        cls,
        config: ScoringConfig,
        embed: EmbedConfig,
        settings: RewardSettings,
        votes: Votes | None,
        placement: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> RewardPools:
        """Start all actors; they live as long as the handles do.

        Args:
            config: How many actors there are, and what each of them asks for.
            embed: The encoder.
            settings: What decides the values.
            votes: The reference library; None: quality has no value.
            placement: Further options of the actors, by the names that ``demands`` gives them.
        """
        import ray

        placed = placement or {}

        encoder = ray.remote(_EncoderActor).options(
            num_cpus=config.encoder_cpus,
            num_gpus=config.encoder_gpus,
            **_REPLACED,
            **placed.get(ENCODERS, {}),
        )
        component = ray.remote(_ComponentActor).options(
            num_cpus=config.actor_cpus, **_REPLACED, **placed.get(SCORERS, {})
        )
        held = ray.put(votes)
        on_gpu = config.encoder_gpus > 0
        return cls(
            [
                encoder.remote(embed, cpus=config.encoder_cpus, on_gpu=on_gpu)
                for _ in range(config.encoders)
            ],
            {
                name: [
                    component.remote(name, settings, held if name == "quality" else None)
                    for _ in range(config.actors)
                ]
                for name in COMPONENTS
            },
        )

    @staticmethod
    def demands(config: ScoringConfig) -> list[Demand]:
        """What the pools ask of the cluster."""
        count = config.actors * len(COMPONENTS)
        return [
            Demand(ENCODERS, config.encoders, config.encoder_cpus, config.encoder_gpus),
            Demand(SCORERS, count, config.actor_cpus),
        ]

    @property
    def width(self) -> int:
        """How many batches are worked on at the same time."""
        return max(len(self._encoders), *(len(actors) for actors in self._components.values()))

    @property
    def handles(self) -> dict[str, list[Any]]:
        """The actors, by component; the encoders as ``encode``."""
        return {"encode": list(self._encoders), **{k: list(v) for k, v in self._components.items()}}

    def score(
        self,
        requests: Sequence[ScoreRequest],
        *,
        turn: int | None = None,
        timeout_s: float | None = None,
    ) -> tuple[dict[str, list[Score]], list[Span]]:
        """All components' outcomes for each request, in their order, and who worked when.

        Args:
            requests: The samples.
            turn: Decides which of the actors work; None: the first request's key does.
            timeout_s: How long it may take; None: as long as it does.

        Raises:
            StalledError: If it takes longer, naming the actors that are stuck.
        """
        if not requests:
            return {name: [] for name in COMPONENTS}, []
        if turn is None:
            turn = int(requests[0].key[:8], 16)  # keys are hashes: they spread over the actors
        texts = list(dict.fromkeys(text for request in requests for text in _texts(request)))
        encoded = self._encoders[turn % len(self._encoders)].encode.remote(texts)
        running = {}
        for name, actors in self._components.items():
            arguments = (requests,) if name == "format" else (requests, encoded)
            running[name] = actors[turn % len(actors)].score.remote(*arguments)
        results = _results({"encoder": encoded, **running}, len(requests), timeout_s)
        _, encoding = results.pop("encoder")
        spans = [span for _, span in results.values()]
        return {name: scores for name, (scores, _) in results.items()}, [*spans, encoding]


def _results(running: Mapping[str, Any], count: int, timeout_s: float | None) -> dict[str, Any]:
    """What some calls return, by name."""
    import ray

    _, late = ray.wait(list(running.values()), num_returns=len(running), timeout=timeout_s)
    if late:
        names = [name for name, call in running.items() if call in late]
        stuck = names[:1] if names[0] == "encoder" else names  # the others wait for it
        raise StalledError(
            f"the reward's {', '.join(stuck)} did not score {count} answers within "
            f"{timeout_s or 0:g} s; it is stuck, or its node is gone"
        )
    return dict(zip(running, ray.get(list(running.values())), strict=True))


def _texts(request: ScoreRequest) -> list[str]:
    if not request.answer.strip():
        return []
    said = [*sentences(request.answer), request.answer, request.pair]
    return [*said, *request.targets, *request.inputs]
