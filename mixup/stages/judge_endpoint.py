"""Judging by an endpoint: one actor asks, many requests in flight, and hands on what came.

One client is enough, since a judge's answers, not its requests, take the time; and one alone can
keep a budget to the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pydantic import SecretStr

from mixup.config import EndpointJudge
from mixup.models.budget import Budget, Prices
from mixup.models.endpoint import ChatEndpoint
from mixup.stages.cover import TASK_CPUS
from mixup.stages.judgments import Outcome, read_answer, write_outcomes
from mixup.stages.run import Manifest
from mixup.stages.unjudged import Item, Unjudged
from mixup.text.judging import rating_schema

_READ_AHEAD = 64
_MOST_HELD = 2000
"""Outcomes that are written at the latest when there are so many."""


@dataclass
class Stop:
    """Why judging ended before all was judged.

    Attributes:
        reason: In words; None where it went to the end.
        fatal: Why the run must fail, or None.
    """

    reason: str | None = None
    fatal: str | None = None


class Judging:
    """Asks an endpoint about items, and says why it stopped before their end, if it did."""

    def __init__(
        self, endpoint: ChatEndpoint, budget: Budget, items: Iterator[Item], config: EndpointJudge
    ) -> None:
        self.stop = Stop()
        self._endpoint, self._budget, self._config = endpoint, budget, config
        self._items, self._ahead = items, iter(())
        self._running: set[asyncio.Task[Outcome | None]] = set()
        self._unrated_in_succession = 0
        self._failure: BaseException | None = None

    async def outcomes(self, flush_s: float) -> AsyncIterator[list[Outcome]]:
        """What came, at most every ``flush_s`` seconds, until all is judged or it has to stop.

        An item that a budget left has no outcome. What fails without being foreseen is raised
        after all that came was handed on.
        """
        loop = asyncio.get_running_loop()
        held: list[Outcome] = []
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
            self._running.add(asyncio.create_task(self._judge(item)))
        return bool(self._running)

    async def _next(self) -> Item | None:
        """The next item; files are read in a thread, so that answers are taken meanwhile."""
        item = next(self._ahead, None)
        if item is None:
            self._ahead = iter(
                await asyncio.to_thread(lambda: list(islice(self._items, _READ_AHEAD)))
            )
            item = next(self._ahead, None)
        return item

    async def _judge(self, item: Item) -> Outcome | None:
        answer = await self._endpoint.ask(item.prompt)
        if answer is None:
            return None
        judgment, reason = None, answer.reason
        if answer.text is not None:
            judgment, reason = read_answer(answer.text)
        return Outcome(item.uid, judgment, reason, item.attempts + 1, item.truncated)

    async def _collect(self, timeout_s: float | None) -> list[Outcome]:
        done, self._running = await asyncio.wait(
            self._running, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        self._failure = next(filter(None, (task.exception() for task in done)), self._failure)
        came = [task.result() for task in done if task.exception() is None]
        outcomes = [outcome for outcome in came if outcome is not None]
        for outcome in outcomes:
            self._unrated_in_succession += 1
            if outcome.judgment is not None:
                self._unrated_in_succession = 0
        return outcomes

    def _must_stop(self) -> bool:
        endpoint, most = self._endpoint, self._config.give_up_after
        self.stop.fatal = endpoint.fatal
        if endpoint.fatal:
            self.stop.reason = endpoint.fatal
        elif self._budget.is_spent:
            self.stop.reason = "the budget is spent"
        elif endpoint.is_closed:
            self.stop.reason = "the endpoint asks to wait for longer than backoff_cap_s"
        elif self._unrated_in_succession >= most:
            self.stop.reason = f"{self._unrated_in_succession} records in succession got no rating"
        return self.stop.reason is not None or self._failure is not None


class _EndpointActor:
    """Holds the client outside of the driver; its ``run`` streams manifests, then how it ended."""

    def __init__(self, work: Unjudged, config: EndpointJudge, key: SecretStr | None) -> None:
        self._work, self._config, self._key = work, config, key

    async def run(
        self, chosen: Mapping[int, int], flush_s: float
    ) -> AsyncIterator[Manifest | Stop]:
        """Judge the chosen records of each bucket, in the order of their uid."""
        config, work = self._config, self._work
        prices = Prices(config.input_price, config.output_price)
        budget = Budget(prices, max_requests=config.max_requests, max_cost=config.max_cost)
        key = self._key.get_secret_value() if self._key else None
        items = (item for bucket in sorted(chosen) for item in work.items(bucket, chosen[bucket]))
        told: dict[str, int] = {}
        async with ChatEndpoint(config, key, rating_schema(), budget) as endpoint:
            judging = Judging(endpoint, budget, items, config)
            async for outcomes in judging.outcomes(flush_s):
                used = budget.usage.counts()
                since = {name: count - told.get(name, 0) for name, count in used.items()}
                told = used
                yield await asyncio.to_thread(
                    write_outcomes, work.workspace, work.revision, outcomes, since
                )
        used = budget.usage.counts()
        yield Manifest(counts={name: count - told.get(name, 0) for name, count in used.items()})
        yield judging.stop


def endpoint_manifests(
    work: Unjudged,
    config: EndpointJudge,
    key: SecretStr | None,
    chosen: Mapping[int, int],
    flush_s: float,
    stop: Stop,
) -> Iterator[Manifest]:
    """Manifests of the outcomes as they come.

    Args:
        work: What there is to judge.
        config: The endpoint.
        key: Its key, if it needs one.
        chosen: How many fresh records of each bucket are judged.
        flush_s: Outcomes are written at least so often.
        stop: Takes why judging ended early.
    """
    import ray

    actor: Any = ray.remote(num_cpus=TASK_CPUS)(_EndpointActor).remote(work, config, key)
    try:
        for reference in actor.run.remote(dict(chosen), flush_s):
            found: Any = ray.get(reference)
            if isinstance(found, Stop):
                stop.reason, stop.fatal = found.reason, found.fatal
            else:
                yield found
    finally:
        ray.kill(actor)
