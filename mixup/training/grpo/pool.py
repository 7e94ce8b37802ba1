"""The pool of engines as trainer ranks see it: shares of work, time-outs, replaced engines."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from mixup.actors.resources import Demand
from mixup.errors import ModelError, StalledError
from mixup.rater_config import EngineConfig
from mixup.training.grpo.engines import EngineActor, Rollout, RolloutRequest, Sampling
from mixup.training.grpo.weights import buckets

logger = logging.getLogger(__name__)

MAX_DEATHS = 3
"""Deaths of an engine over one piece of work after which that piece is not tried again."""

_POLL_S = 0.5

_CALLS = 16
"""Calls that an engine takes at the same time: ranks share its continuous batch."""


@dataclass(frozen=True)
class Patience:
    """How long an engine may take before it counts as stuck, in seconds.

    Attributes:
        start_s: To load its model, also in place of one that died.
        push_s: To take a version of the weights, or to say what it holds.
        generate_s: To complete one rank's share of a step.
    """

    start_s: float = 600.0
    push_s: float = 300.0
    generate_s: float = 1800.0


@dataclass(frozen=True)
class Pushed:
    """The last push.

    Attributes:
        version: Of the weights.
        references: Of the buckets in the object store.
        fingerprints: Of the trainer's tensors, once the gate has compared them with an engine's.
    """

    version: int
    references: tuple[Any, ...]
    fingerprints: Mapping[str, str] | None = None


class WeightStore:
    """A Ray actor that keeps the last push, for engines that come later."""

    def __init__(self) -> None:
        self._pushed: Pushed | None = None

    def publish(self, pushed: Pushed) -> None:
        """Keep a push in place of the one before."""
        self._pushed = pushed

    def vouch(self, version: int, fingerprints: Mapping[str, str]) -> None:
        """Keep what the tensors of the last push must be."""
        if self._pushed is not None and self._pushed.version == version:
            self._pushed = replace(self._pushed, fingerprints=dict(fingerprints))

    def current(self) -> Pushed | None:
        """The last push; None before the first."""
        return self._pushed


@dataclass
class _Work:
    """A piece of work of one engine."""

    engine: int
    what: str
    begin: Callable[[Any], Any]
    patience_s: float
    deaths: int = 0
    deadline: float = 0.0


class EnginePool:
    """Handles of the engines and of the store of weights; can be sent to any worker."""

    def __init__(self, engines: Sequence[Any], store: Any, patience: Patience) -> None:
        self._engines, self._store, self._patience = list(engines), store, patience

    @classmethod
    def start(
        cls,
        model: str,
        settings: EngineConfig,
        patience: Patience,
        *,
        actor: type = EngineActor,
        placement: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> EnginePool:
        """Start all engines and wait until they have loaded their model.

        They live as long as the handles do.

        Args:
            model: The model whose weights are replaced by the first push.
            settings: How many engines there are, and what each of them asks for.
            patience: How long they may take.
            actor: The class of the engines' actors.
            placement: Further options of the actors, such as a scheduling strategy.
            options: Further options of ``vllm.LLM``.

        Raises:
            StalledError: If an engine is not there in time.
        """
        import ray

        store = ray.remote(WeightStore).options(num_cpus=0).remote()
        engine = ray.remote(actor).options(
            num_cpus=settings.engine_cpus,
            num_gpus=settings.engine_gpus,
            max_restarts=-1,
            max_concurrency=_CALLS,
            **(placement or {}),
        )
        handles = [
            engine.remote(_name(number), model, settings, store, **(options or {}))
            for number in range(settings.engines)
        ]
        pool = cls(handles, store, patience)
        pool.dtype()
        return pool

    @staticmethod
    def demands(settings: EngineConfig) -> list[Demand]:
        """What the pool asks of the cluster."""
        return [
            Demand("GRPO engines", settings.engines, settings.engine_cpus, settings.engine_gpus)
        ]

    @property
    def handles(self) -> list[Any]:
        """The actors."""
        return list(self._engines)

    @property
    def names(self) -> list[str]:
        """The engines' names, in order."""
        return [_name(number) for number in range(len(self._engines))]

    def dtype(self) -> str:
        """The dtype in which the engines compute, as ``torch`` names it."""
        found = self._all("load the model", self._patience.start_s, lambda e: e.dtype.remote())
        return found[0]

    def push(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Have every engine load weights through the object store.

        Raises:
            StalledError: If an engine is stuck, naming it.
            ModelError: If an engine died ``MAX_DEATHS`` times over it.
        """
        import ray

        references = tuple(ray.put(bucket) for bucket in buckets(weights))
        self._publish(Pushed(version, references))
        self._all(
            f"load version {version}",
            self._patience.push_s,
            lambda engine: engine.load.remote(references, version),
        )

    def vouch(self, version: int, fingerprints: Mapping[str, str]) -> None:
        """Tell engines that come later what the tensors of a version must be."""
        import ray

        ray.get(self._store.vouch.remote(version, fingerprints), timeout=self._patience.push_s)

    def generate(
        self,
        requests: Sequence[RolloutRequest],
        sampling: Sampling,
        version: int,
        *,
        first: int = 0,
    ) -> list[Rollout]:
        """Complete requests, an even share by each engine; results in their order.

        A share is of neighbors, so that an engine sees the prompt of a group once.

        Args:
            requests: One rank's requests of a step.
            sampling: How tokens are drawn.
            version: Of the weights.
            first: The engine that gets the first share; ranks that begin with different ones load
                the engines evenly.

        Raises:
            WrongWeights: If an engine holds another version.
            StalledError: If an engine is stuck, naming it.
            ModelError: If an engine died ``MAX_DEATHS`` times over its share.
        """
        count = len(self._engines)
        ends = [len(requests) * place // count for place in range(count + 1)]
        shares = [requests[start:end] for start, end in itertools.pairwise(ends)]
        work = [
            self._share((first + place) % count, share, sampling, version)
            for place, share in enumerate(shares)
            if share
        ]
        return [rollout for rollouts in self._run(work) for rollout in rollouts]

    def scores(self, sequences: Sequence[list[int]], version: int) -> list[list[list[float]]]:
        """What each engine gives as the log-probabilities of some sequences' tokens."""
        return self._all(
            f"score with version {version}",
            self._patience.push_s,
            lambda engine: engine.score.remote(sequences, version),
        )

    def fingerprints(self, version: int) -> list[dict[str, str]]:
        """What each engine computes with, by tensor."""
        return self._all(
            f"give fingerprints of version {version}",
            self._patience.push_s,
            lambda engine: engine.fingerprints.remote(version),
        )

    def call(self, what: str, begin: Callable[[Any], Any]) -> list[Any]:
        """The results of a remote call of every engine, within the time of a push."""
        return self._all(what, self._patience.push_s, begin)

    def _publish(self, pushed: Pushed) -> None:
        import ray

        ray.get(self._store.publish.remote(pushed), timeout=self._patience.push_s)

    def _share(
        self, engine: int, requests: Sequence[RolloutRequest], sampling: Sampling, version: int
    ) -> _Work:
        return _Work(
            engine,
            f"complete {len(requests)} prompts with version {version}",
            lambda handle: handle.generate.remote(requests, sampling, version),
            self._patience.generate_s,
        )

    def _all(self, what: str, patience_s: float, begin: Callable[[Any], Any]) -> list[Any]:
        return self._run(
            [_Work(engine, what, begin, patience_s) for engine in range(len(self._engines))]
        )

    def _run(self, work: Sequence[_Work]) -> list[Any]:
        """The results of some work, in order; what a dead engine had is done by its successor."""
        import ray
        from ray.exceptions import RayActorError

        running = {self._begin(one): place for place, one in enumerate(work)}
        results: list[Any] = [None] * len(work)
        while running:
            soonest = min(work[place].deadline for place in running.values())
            left = max(0.0, soonest - time.monotonic())
            done, _ = ray.wait(list(running), num_returns=1, timeout=left)
            if not done:
                raise self._stalled([work[place] for place in running.values()])
            place = running.pop(done[0])
            try:
                results[place] = ray.get(done[0])
            except RayActorError as error:
                running[self._begin_again(work[place], error)] = place
        return results

    def _begin(self, work: _Work) -> Any:
        work.deadline = time.monotonic() + work.patience_s
        return work.begin(self._engines[work.engine])

    def _begin_again(self, work: _Work, error: Exception) -> Any:
        work.deaths += 1
        who = _name(work.engine)
        if work.deaths >= MAX_DEATHS:
            raise ModelError(
                f"{who} died {work.deaths} times when it was to {work.what}; look for the cause in "
                f"its log. The last: {error}"
            ) from error
        logger.warning("%s died when it was to %s; its successor tries again", who, work.what)
        self._await_successor(work.engine)
        return self._begin(work)

    def _await_successor(self, engine: int) -> None:
        """Wait until Ray has started an engine again.

        Raises:
            StalledError: If it is not there in time.
            ModelError: If it cannot be started.
        """
        import ray
        from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError

        who, deadline = _name(engine), time.monotonic() + self._patience.start_s
        while (left := deadline - time.monotonic()) > 0:
            try:
                ray.get(self._engines[engine].dtype.remote(), timeout=left)
                return
            except ActorUnavailableError:
                time.sleep(_POLL_S)  # a call is refused, not kept, while the actor restarts
            except GetTimeoutError:
                break
            except ActorDiedError as error:
                raise ModelError(f"{who} died and could not be started again: {error}") from error
        raise StalledError(
            f"{who} died and was not there again within {self._patience.start_s:g} s; the cluster "
            "may have no room for it"
        )

    def _stalled(self, work: Sequence[_Work]) -> StalledError:
        # The wait ends some milliseconds early or late, and those that began together are stuck
        # together: name all whose time is about up, and one in any case.
        soonest = min(one.deadline for one in work)
        late = [one for one in work if one.deadline <= soonest + _POLL_S]
        parts = [
            f"{_name(one.engine)} did not {one.what} within {one.patience_s:g} s" for one in late
        ]
        return StalledError(
            f"{'; '.join(parts)}. It is stuck, or its node is gone; the run stops so that nobody "
            "waits for it, and can be started again from its last checkpoint"
        )


def _name(number: int) -> str:
    return f"engine {number}"


class ObjectStorePush:
    """The way through Ray's object store; see ``weights.WeightPush``."""

    def __init__(self, pool: EnginePool, *, is_sender: bool = True) -> None:
        """Made on every rank.

        Args:
            pool: The engines.
            is_sender: Whether this rank sends; the others only help to gather.
        """
        self._pool, self._is_sender = pool, is_sender

    def push(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """As ``EnginePool.push``, by the rank that sends."""
        if self._is_sender:
            self._pool.push(weights, version)
            return
        for _ in weights:
            pass
