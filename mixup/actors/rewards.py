"""Reward actors: each component is a pool of its own, and all share one pool of encoders.

A batch of samples is handed to all components at once. Those that need vectors wait for the
encoder, the others do not; all of it overlaps with the generation of the next batch. Distillation
and GRPO use the same pools, so the filter and the trainer cannot disagree.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixup.actors.resources import Demand
from mixup.config import EmbedConfig, RefreshConfig, RewardConfig, RewardMode, Similarity
from mixup.errors import ShapeError
from mixup.models.encoder import SentenceEncoder, similarity_of
from mixup.quality.neighbors import top_k
from mixup.quality.posterior import neighbor_votes, posterior
from mixup.quality.transition import Transition, nearest_classes
from mixup.records import content_key
from mixup.rewards.alignment import alignment_score
from mixup.rewards.coverage import coverage_score, sentences
from mixup.rewards.format import format_score
from mixup.rewards.quality import quality_score
from mixup.rewards.rubric import COMPONENTS

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
    def of(cls, config: RefreshConfig, encoder: str, library: str | None) -> RewardSettings:
        """The settings of a refresh, with the revisions of its encoder and reference library."""
        return cls(
            mode=config.reward.mode,
            similarity=similarity_of(config.embed.model, config.embed.similarity),
            threshold=config.curate.threshold,
            neighbors=config.curate.neighbors,
            effective_votes=config.curate.effective_votes,
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
class Votes:
    """The reference library as the quality component reads it."""

    vectors_LD: np.ndarray
    ratings_L: np.ndarray
    transition: Transition


class _EncoderActor:
    def __init__(self, embed: EmbedConfig, *, cpus: float, on_gpu: bool) -> None:
        self._encoder = SentenceEncoder(
            embed.model, encode_rows=embed.encode_rows, on_gpu=on_gpu, cpus=cpus
        )

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, Span]:
        start = time.time()
        vectors_ND = self._encoder.encode(texts).vectors_ND
        return vectors_ND, ("encode", start, time.time())


class _ComponentActor:
    """Scores batches by one component. Import-light: it holds no model."""

    def __init__(self, component: str, settings: RewardSettings, votes: Votes | None) -> None:
        self._component, self._settings, self._votes = component, settings, votes

    def score(
        self, requests: Sequence[ScoreRequest], rows: Mapping[str, int], encoded: Any = None
    ) -> tuple[list[Score], Span]:
        start = time.time()
        vectors_ND = None if encoded is None else encoded[0]
        scores = [
            component_score(self._component, request, rows, vectors_ND, self._settings, self._votes)
            for request in requests
        ]
        return scores, (self._component, start, time.time())


def component_score(
    component: str,
    request: ScoreRequest,
    rows: Mapping[str, int],
    vectors_ND: np.ndarray | None,
    settings: RewardSettings,
    votes: Votes | None,
) -> Score:
    """One component's outcome for one sample.

    Args:
        component: One of ``COMPONENTS``.
        request: The sample.
        rows: The row of each text in ``vectors_ND``.
        vectors_ND: Unit vectors of all texts of the batch; NaN where a text has none.
        settings: What decides the values.
        votes: The reference library; without one, quality has no value.
    """
    if component == "format":
        return Score(format_score(request.text, request.task, mode=settings.mode))
    if not request.answer.strip():
        return Score(None, "empty_answer")
    if vectors_ND is None:
        raise ShapeError(f"component {component} needs vectors, and was given none")
    if component == "quality" and votes is None:
        return Score(None, "no_reference_library")
    if component == "quality" and votes is not None and len(votes.transition.classes) < 2:
        return Score(None, "one_rating_class")  # it cannot tell good from bad
    near = settings.similarity

    def vectors(texts: Sequence[str]) -> np.ndarray:
        return vectors_ND[[rows[text] for text in texts]]

    try:
        if component == "alignment":
            return Score(
                alignment_score(
                    vectors([request.answer])[0],
                    vectors(request.targets),
                    mode=settings.mode,
                    low=near.alignment_low,
                    high=near.alignment_high,
                )
            )
        if component == "coverage":
            said = [*sentences(request.answer), request.answer]
            return Score(
                coverage_score(
                    vectors(request.inputs),
                    vectors(said),
                    low=near.alignment_low,
                    high=near.alignment_high,
                )
            )
        return Score(_quality(vectors([request.pair]), settings, votes))
    except ShapeError:
        return Score(None, "no_vector")


def _quality(pair_1D: np.ndarray, settings: RewardSettings, votes: Votes | None) -> float:
    if votes is None:
        raise ShapeError("quality needs a reference library")
    classes = votes.transition.classes
    found = top_k(pair_1D, votes.vectors_LD, settings.neighbors)
    counted = neighbor_votes(nearest_classes(votes.ratings_L, classes), found.indices_MK, classes)
    q_MC = posterior(counted, votes.transition, effective_votes=settings.effective_votes)
    return quality_score(q_MC[0], classes, mode=settings.mode, threshold=settings.threshold)


class RewardPools:
    """Handles of the component pools and the encoder pool; can be sent to any task."""

    def __init__(self, encoders: Sequence[Any], components: Mapping[str, Sequence[Any]]) -> None:
        self._encoders, self._components = list(encoders), dict(components)

    @classmethod
    def start(
        cls,
        config: RewardConfig,
        embed: EmbedConfig,
        settings: RewardSettings,
        votes: Votes | None,
    ) -> RewardPools:
        """Start all actors; they live as long as the handles do."""
        import ray

        encoder = ray.remote(_EncoderActor).options(
            num_cpus=config.encoder_cpus, num_gpus=config.encoder_gpus, max_restarts=3
        )
        component = ray.remote(_ComponentActor).options(num_cpus=config.actor_cpus, max_restarts=3)
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
    def demands(config: RewardConfig) -> list[Demand]:
        """What the pools ask of the cluster."""
        count = config.actors * len(COMPONENTS)
        return [
            Demand("reward encoders", config.encoders, config.encoder_cpus, config.encoder_gpus),
            Demand("reward components", count, config.actor_cpus),
        ]

    def score(self, requests: Sequence[ScoreRequest]) -> tuple[dict[str, list[Score]], list[Span]]:
        """All components' outcomes for each request, in their order, and who worked when."""
        import ray

        if not requests:
            return {name: [] for name in COMPONENTS}, []
        turn = int(requests[0].key[:8], 16)  # keys are hashes: they spread over the actors
        texts = list(dict.fromkeys(text for request in requests for text in _texts(request)))
        rows = {text: row for row, text in enumerate(texts)}
        encoded = self._encoders[turn % len(self._encoders)].encode.remote(texts)
        running = {}
        for name, actors in self._components.items():
            arguments = (requests, {}) if name == "format" else (requests, rows, encoded)
            running[name] = actors[turn % len(actors)].score.remote(*arguments)
        results = dict(zip(running, ray.get(list(running.values())), strict=True))
        spans = [span for _, span in results.values()]
        return {name: scores for name, (scores, _) in results.items()}, [
            *spans,
            ray.get(encoded)[1],
        ]


def _texts(request: ScoreRequest) -> list[str]:
    if not request.answer.strip():
        return []
    said = [*sentences(request.answer), request.answer, request.pair]
    return [*said, *request.targets, *request.inputs]
