"""Reward actors: each component is a pool of its own, and all share one pool of encoders.

A batch of samples is handed to all components at once. Those that need vectors wait for the
encoder, the others do not; all of it overlaps with the generation of the next batch. Distillation
and GRPO use the same pools, so the filter and the trainer cannot disagree, but where a refresh asks
for another predictor of quality (``reward.predictor``).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixup.actors.components import component_scores
from mixup.actors.deaths import CRASHED, Guard
from mixup.actors.quality import Predictor
from mixup.actors.requests import Score, ScoreRequest, Texts, texts_of
from mixup.actors.resources import Demand
from mixup.actors.reward_settings import RewardSettings
from mixup.config import EmbedConfig
from mixup.errors import StalledError
from mixup.models.encoder import SentenceEncoder
from mixup.records import content_key
from mixup.refresh_config import ScoringConfig
from mixup.rewards.rubric import COMPONENTS

_NICENESS = 10
"""Of encoders on the CPU: they take what an engine on the same cores leaves, and do not slow it."""

_REPLACED: Mapping[str, int] = {"max_restarts": -1, "max_task_retries": -1}
"""An actor that dies is started again and gets its calls again; its guard knows when to stop."""

ENCODERS, SCORERS = "reward encoders", "reward components"
"""The names of the two kinds of actors, for the cluster."""

Span = tuple[str, float, float]
"""What was worked on, and from when to when, in seconds since the epoch."""


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

    def __init__(
        self, component: str, settings: RewardSettings, predictor: Predictor | None
    ) -> None:
        self._guard = Guard.of_actor(f"a {component} reward")
        self._component, self._settings, self._predictor = component, settings, predictor

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
                self._predictor,
            ),
        )
        scores = [Score(None, CRASHED) if score is None else score for score in found]
        return scores, (self._component, start, time.time())


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
        predictor: Predictor | None,
        placement: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> RewardPools:
        """Start all actors; they live as long as the handles do.

        Args:
            config: How many actors there are, and what each of them asks for.
            embed: The encoder.
            settings: What decides the values.
            predictor: What tells quality; None: it has no value.
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
        held = ray.put(predictor)
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
        texts = list(dict.fromkeys(text for request in requests for text in texts_of(request)))
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
