"""Reward actors that wait before they answer, as one does that asks a model behind an endpoint."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ray import cloudpickle

from mixup.actors.requests import Score, ScoreRequest, Texts
from mixup.actors.reward_settings import RewardSettings
from mixup.actors.rewards import RewardPools, Span, _ComponentActor
from mixup.actors.votes import Votes
from mixup.models.encoder import similarity_of
from mixup.quality.transition import fit_transition

WIDTH = 16
SETTINGS = RewardSettings(
    mode="soft",
    similarity=similarity_of("bundled:minilm", None),
    threshold=4,
    neighbors=4,
    effective_votes=4.0,
    encoder="e",
    library="l",
)


class _RandomEncoder:
    """Gives every text a random vector at once."""

    def encode(self, texts: Sequence[str]) -> tuple[Texts, Span]:
        now = time.time()
        rows = {text: row for row, text in enumerate(texts)}
        return Texts(rows, _vectors(len(texts), seed=1), frozenset()), ("encode", now, now)


class _WaitingComponent(_ComponentActor):
    """A component that waits before it scores a batch."""

    def __init__(self, component: str, votes: Votes, wait_s: float) -> None:
        super().__init__(component, SETTINGS, votes)
        self._wait_s = wait_s

    def score(
        self, requests: Sequence[ScoreRequest], encoded: tuple[Texts, Span] | None = None
    ) -> tuple[list[Score], Span]:
        start = time.time()
        time.sleep(self._wait_s)
        scores, (name, _, end) = super().score(requests, encoded)
        return scores, (name, start, end)


def waiting_pools(waits_s: Mapping[str, float], *, actors: int = 1) -> RewardPools:
    """Pools of so many actors of each component, that take no room in the cluster."""
    import ray

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import it
    ratings_L = np.arange(32) % 6
    vectors_LD = _vectors(len(ratings_L), seed=0)
    votes = Votes(vectors_LD, ratings_L, fit_transition(vectors_LD, ratings_L))
    encoder: Any = ray.remote(_RandomEncoder).options(num_cpus=0)
    component: Any = ray.remote(_WaitingComponent).options(num_cpus=0)
    return RewardPools(
        [encoder.remote()],
        {
            name: [component.remote(name, votes, wait_s) for _ in range(actors)]
            for name, wait_s in waits_s.items()
        },
    )


def one_by_one(pools: RewardPools) -> list[RewardPools]:
    """The same actors as a pool for each component, to be asked one after the other."""
    handles = pools.handles
    encoders = handles.pop("encode")
    return [RewardPools(encoders, {name: actors}) for name, actors in handles.items()]


def _vectors(count: int, *, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
