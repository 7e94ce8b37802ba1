"""Judging by an endpoint: one actor asks, many requests in flight, and hands on what came."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial

from pydantic import SecretStr

from mixup.models.endpoint import Answer, ChatEndpoint
from mixup.rater_config import EndpointJudge
from mixup.stages.asking import Asking, Stop, budget_of, manifests_of_asking, written
from mixup.stages.judgments import Outcome, read_answer, write_outcomes
from mixup.stages.manifests import Manifest
from mixup.stages.unjudged import Item, Unjudged
from mixup.text.judging import rating_schema


class Judging(Asking[Item, Outcome]):
    """Asks an endpoint to rate items, and says why it stopped before their end, if it did."""

    failed = "records in succession got no rating"

    async def ask(self, item: Item) -> Answer | None:
        """The endpoint's answer."""
        return await self.endpoint.ask(item.prompt)

    def outcome(self, item: Item, answer: Answer) -> Outcome:
        """The ratings in an answer, or the reason for none."""
        judgment, reason = None, answer.reason
        if answer.text is not None:
            judgment, reason = read_answer(answer.text)
        return Outcome(item.uid, judgment, reason, item.attempts + 1, item.truncated)

    def is_good(self, outcome: Outcome) -> bool:
        """Whether there is a rating."""
        return outcome.judgment is not None


class _EndpointActor:
    """Holds the client outside of the driver; its ``run`` streams manifests, then how it ended."""

    def __init__(self, work: Unjudged, config: EndpointJudge, key: SecretStr | None) -> None:
        self._work, self._config, self._key = work, config, key

    async def run(
        self, chosen: Mapping[int, int], flush_s: float
    ) -> AsyncIterator[Manifest | Stop]:
        """Judge the chosen records of each bucket, in the order of their uid."""
        config, work, budget = self._config, self._work, budget_of(self._config)
        key = self._key.get_secret_value() if self._key else None
        items = (item for bucket in sorted(chosen) for item in work.items(bucket, chosen[bucket]))
        write = partial(write_outcomes, work.workspace, work.revision)
        async with ChatEndpoint(config, key, rating_schema(), budget) as endpoint:
            judging = Judging(endpoint, budget, items, config)
            async for found in written(judging, budget, flush_s, write):
                yield found


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
    return manifests_of_asking(_EndpointActor, (work, config, key), (dict(chosen), flush_s), stop)
