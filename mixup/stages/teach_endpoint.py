"""Teach by an endpoint: one actor asks, many requests in flight, and hands on what came."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial

from pydantic import SecretStr

from mixup.mixture.teaching import item_schema, teacher_prompt
from mixup.mixture_config import EndpointTeacher
from mixup.models.endpoint import Answer, ChatEndpoint
from mixup.stages.asking import Asking, Stop, budget_of, manifests_of_asking, written
from mixup.stages.candidates import Teaching, Wanted, wanted_items
from mixup.stages.manifests import Manifest
from mixup.stages.taught import Taught, taught, write_taught


class AskingForItems(Asking[Wanted, Taught]):
    """Asks an endpoint for items, and says why it stopped before their end, if it did."""

    failed = "items in succession could not be made"

    async def ask(self, item: Wanted) -> Answer | None:
        """The endpoint's answer; the task's schema goes with the question."""
        return await self.endpoint.ask(
            teacher_prompt(item.segment, item.task), item_schema(item.task)
        )

    def outcome(self, item: Wanted, answer: Answer) -> Taught:
        """The item in an answer, or the reason for none."""
        return taught(item, answer.text, answer.reason)

    def is_good(self, outcome: Taught) -> bool:
        """Whether there is an item."""
        return outcome.item is not None


class _TeacherActor:
    """Holds the client outside of the driver; its ``run`` streams manifests, then how it ended."""

    def __init__(self, work: Teaching, config: EndpointTeacher, key: SecretStr | None) -> None:
        self._work, self._config, self._key = work, config, key

    async def run(self, buckets: Sequence[int], flush_s: float) -> AsyncIterator[Manifest | Stop]:
        """Ask for what is missing in some buckets."""
        config, work, budget = self._config, self._work, budget_of(self._config)
        key = self._key.get_secret_value() if self._key else None
        items = (item for bucket in buckets for item in wanted_items(work, bucket))
        write = partial(write_taught, work.workspace, work.teacher)
        async with ChatEndpoint(config, key, item_schema(work.tasks[0]), budget) as endpoint:
            asking = AskingForItems(endpoint, budget, items, config)
            async for found in written(asking, budget, flush_s, write):
                yield found


def endpoint_items(
    work: Teaching,
    config: EndpointTeacher,
    key: SecretStr | None,
    buckets: Sequence[int],
    flush_s: float,
    stop: Stop,
) -> Iterator[Manifest]:
    """Manifests of the outcomes as they come.

    Args:
        work: What there is to make.
        config: The endpoint.
        key: Its key, if it needs one.
        buckets: The buckets of segments to look at.
        flush_s: Outcomes are written at least so often.
        stop: Takes why asking ended early.
    """
    return manifests_of_asking(_TeacherActor, (work, config, key), (list(buckets), flush_s), stop)
