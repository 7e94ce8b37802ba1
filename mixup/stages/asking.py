"""Asking an endpoint about many items: requests in flight, and what came handed on in good time.

One client is enough, since a model's answers, not the requests, take the time; and one alone can
keep a budget to the request.
"""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

from pydantic import SecretStr

from mixup.models.budget import Budget, Prices
from mixup.models.endpoint import Answer, ChatEndpoint
from mixup.rater_config import EndpointJudge
from mixup.stages.cover import TASK_CPUS
from mixup.stages.manifests import Manifest

WAITING = "waiting"
"""Items that the run's budget, or the endpoint, left for the next run; they have no outcome."""
USED = ("requests", "retries", "input_tokens", "output_tokens", "estimated", "cost_millionths")
"""The counts of what a model was asked and what it took."""

_READ_AHEAD = 64
_MOST_HELD = 2000
"""Outcomes that are written at the latest when there are so many."""

_Item = TypeVar("_Item")
_Outcome = TypeVar("_Outcome")


@dataclass
class Stop:
    """Why asking ended before all was asked.

    Attributes:
        reason: In words; None where it went to the end.
        fatal: Why the run must fail, or None.
    """

    reason: str | None = None
    fatal: str | None = None


class Asking(ABC, Generic[_Item, _Outcome]):
    """Asks an endpoint about items, and says why it stopped before their end, if it did.

    Attributes:
        stop: Why it stopped.
        failed: What it says when many outcomes in succession are of no use.
    """

    failed = "records in succession got no answer"

    def __init__(
        self, endpoint: ChatEndpoint, budget: Budget, items: Iterator[_Item], config: EndpointJudge
    ) -> None:
        self.stop = Stop()
        self.endpoint = endpoint
        self._budget, self._config = budget, config
        self._items, self._ahead = items, iter(())
        self._running: set[asyncio.Task[_Outcome | None]] = set()
        self._failed_in_succession = 0
        self._failure: BaseException | None = None

    @abstractmethod
    async def ask(self, item: _Item) -> Answer | None:
        """The endpoint's answer; None where it let the item come to no outcome in this run."""

    @abstractmethod
    def outcome(self, item: _Item, answer: Answer) -> _Outcome:
        """What comes of an answer."""

    @abstractmethod
    def is_good(self, outcome: _Outcome) -> bool:
        """Whether an outcome is of use."""

    async def outcomes(self, flush_s: float) -> AsyncIterator[list[_Outcome]]:
        """What came, at most every ``flush_s`` seconds, until all is asked or it has to stop.

        An item that a budget left has no outcome. What fails without being foreseen is raised
        after all that came was handed on.
        """
        loop = asyncio.get_running_loop()
        held: list[_Outcome] = []
        flushed = loop.time()
        while await self._fill():
            left_s = max(0.0, flushed + flush_s - loop.time())
            held += await self._collect(left_s if held else None)
            if held and (loop.time() - flushed >= flush_s or len(held) >= _MOST_HELD):
                yield held
                held, flushed = [], loop.time()
        if held:
            yield held
        if self._failure is not None:
            raise self._failure

    async def _fill(self) -> bool:
        """Have as many requests in flight as may be; whether there are any."""
        while len(self._running) < self._config.concurrency and not self._must_stop():
            item = await self._next()
            if item is None:
                break
            self._running.add(asyncio.create_task(self._asked(item)))
        return bool(self._running)

    async def _next(self) -> _Item | None:
        """The next item; files are read in a thread, so that answers are taken meanwhile."""
        item = next(self._ahead, None)
        if item is None:
            self._ahead = iter(
                await asyncio.to_thread(lambda: list(islice(self._items, _READ_AHEAD)))
            )
            item = next(self._ahead, None)
        return item

    async def _asked(self, item: _Item) -> _Outcome | None:
        answer = await self.ask(item)
        return None if answer is None else self.outcome(item, answer)

    async def _collect(self, timeout_s: float | None) -> list[_Outcome]:
        done, self._running = await asyncio.wait(
            self._running, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        self._failure = next(filter(None, (task.exception() for task in done)), self._failure)
        came = [task.result() for task in done if task.exception() is None]
        outcomes = [outcome for outcome in came if outcome is not None]
        for outcome in outcomes:
            self._failed_in_succession += 1
            if self.is_good(outcome):
                self._failed_in_succession = 0
        return outcomes

    def _must_stop(self) -> bool:
        endpoint, most = self.endpoint, self._config.give_up_after
        self.stop.fatal = endpoint.fatal
        if endpoint.fatal:
            self.stop.reason = endpoint.fatal
        elif self._budget.is_spent:
            self.stop.reason = "the budget is spent"
        elif endpoint.is_closed:
            self.stop.reason = "the endpoint asks to wait for longer than backoff_cap_s"
        elif self._failed_in_succession >= most:
            self.stop.reason = f"{self._failed_in_succession} {self.failed}"
        return self.stop.reason is not None or self._failure is not None


def budget_of(config: EndpointJudge) -> Budget:
    """What a run may ask of an endpoint."""
    prices = Prices(config.input_price, config.output_price)
    return Budget(prices, max_requests=config.max_requests, max_cost=config.max_cost)


def key_of(config: EndpointJudge) -> SecretStr | None:
    """The endpoint's key, from the environment; None where none is set."""
    key = os.environ.get(config.api_key_env, "").strip()
    return SecretStr(key) if key else None


async def written(
    asking: Asking[_Item, _Outcome],
    budget: Budget,
    flush_s: float,
    write: Callable[[list[_Outcome], Mapping[str, int]], Manifest],
) -> AsyncIterator[Manifest | Stop]:
    """Manifests of the outcomes as they come, then one of what else was used, then how it ended.

    Args:
        asking: Asks.
        budget: Counts what is used.
        flush_s: Outcomes are written at least so often.
        write: Writes outcomes, and counts them with what was used since the last ones.
    """
    told: dict[str, int] = {}

    def since() -> dict[str, int]:
        nonlocal told
        used = budget.usage.counts()
        before, told = told, used
        return {name: count - before.get(name, 0) for name, count in used.items()}

    async for outcomes in asking.outcomes(flush_s):
        yield await asyncio.to_thread(write, outcomes, since())
    yield Manifest(counts=since())
    yield asking.stop


def manifests_of_asking(
    asker: type, arguments: Sequence[object], run: Sequence[object], stop: Stop
) -> Iterator[Manifest]:
    """Manifests of an actor that asks, as they come.

    Args:
        asker: The actor's class, whose ``run`` yields manifests, then how it ended.
        arguments: Of its constructor.
        run: The arguments of ``run``.
        stop: Takes why asking ended early.
    """
    import ray

    actor: Any = ray.remote(num_cpus=TASK_CPUS)(asker).remote(*arguments)
    try:
        for reference in actor.run.remote(*run):
            found: Any = ray.get(reference)
            if isinstance(found, Stop):
                stop.reason, stop.fatal = found.reason, found.fatal
            else:
                yield found
    finally:
        ray.kill(actor)
