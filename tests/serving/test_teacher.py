"""A teacher behind an endpoint that behaves badly: each outcome is a reason or a retry."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable

import pytest
from chat_server import Reply, Request, chat_server, says

from mixup.mixture.items import Segment
from mixup.mixture.teaching import item_schema
from mixup.mixture_config import EndpointTeacher
from mixup.models.budget import Budget, Prices
from mixup.models.endpoint import ChatEndpoint
from mixup.stages.candidates import Wanted, candidate_key
from mixup.stages.taught import Taught
from mixup.stages.teach_endpoint import AskingForItems

GOOD = json.dumps(
    {
        "question": "What is known of the harbour?",
        "answer": "The harbour was built by Thomas Reid, and it has been in use ever since then.",
    }
)


def wanted(number: int, attempts: int = 0) -> Wanted:
    text = f"The harbour number {number} was built by Thomas Reid."
    segment = Segment(f"s{number}", "a", "Harbour", text)
    return Wanted(candidate_key(segment.key, "qa", "t"), segment, "qa", attempts)


def teach(rule: Callable[[Request, int], Reply], count: int, **changed):
    """The outcomes, why it stopped, the requests, and what was used."""
    with chat_server(rule) as server:
        given = {
            "base_url": server.base_url,
            "model": "m",
            "retries": 2,
            "backoff_s": 0.01,
            "timeout_s": 0.5,
            "concurrency": 4,
            "input_price": 1.0,
            "output_price": 2.0,
        }
        config = EndpointTeacher.model_validate({**given, **changed})

        async def run() -> tuple[list[Taught], AskingForItems, Budget]:
            prices = Prices(config.input_price, config.output_price)
            budget = Budget(prices, max_requests=config.max_requests, max_cost=config.max_cost)
            async with ChatEndpoint(config, None, item_schema("qa"), budget) as endpoint:
                asking = AskingForItems(endpoint, budget, map(wanted, range(count)), config)
                parts = [part async for part in asking.outcomes(0.01)]
            return [one for part in parts for one in part], asking, budget

        found, asking, budget = asyncio.run(run())
        return found, asking.stop, server.requests, budget.usage


def number_of(request: Request) -> int:
    return int(request.prompt.split("The harbour number ")[1].split()[0])


def test_each_failure_is_a_reason_and_the_others_are_items():
    replies = {
        0: says(GOOD),
        1: says("Here is an item: " + GOOD),
        2: says(GOOD[:-15]),
        3: says(""),
        4: says(json.dumps({"question": "What?"})),
        5: says(json.dumps({"question": "When?", "answer": "It was built in the year 1999."})),
        6: Reply(429, b"{}"),
        7: Reply(500, b"{}"),
        8: says(GOOD, delay_s=2.0),
        9: Reply(200, b"<html>"),
    }
    found, stop, requests, usage = teach(lambda request, _: replies[number_of(request)], 10)
    assert stop.reason is None
    reasons = {int(one.wanted.segment.key[1:]): one.reason for one in found}
    assert reasons == {
        0: None,
        1: "prose",
        2: "cut_json",
        3: "no_answer",
        4: "wrong_keys",
        5: "ungrounded",
        6: "rate_limited",
        7: "http_error",
        8: "timeout",
        9: "bad_response",
    }
    assert [one.item is not None for one in found] == [one.reason is None for one in found]
    asked = Counter(number_of(request) for request in requests)
    assert asked == {n: 3 if n >= 6 else 1 for n in range(10)}
    assert usage.requests == len(requests)
    assert usage.retries == 8


def test_what_fails_once_is_asked_again_and_becomes_an_item():
    first = {0: Reply(429, b"{}"), 1: Reply(503, b"{}"), 2: Reply(hangs_up="at once")}

    def rule(request: Request, times: int) -> Reply:
        return first[number_of(request)] if times == 0 else says(GOOD)

    found, stop, _, usage = teach(rule, 3)
    assert stop.reason is None
    assert [one.reason for one in found] == [None] * 3
    assert usage.retries == 3


def test_each_question_goes_with_the_schema_of_its_task():
    _, _, requests, _ = teach(lambda *_: says(GOOD), 2)
    for request in requests:
        schema = request.body["response_format"]["json_schema"]["schema"]
        assert schema == item_schema("qa")


def test_a_server_without_schemas_is_asked_without():
    def rule(request: Request, _: int) -> Reply:
        return Reply(400, b"{}") if "response_format" in request.body else says(GOOD)

    found, _, requests, _ = teach(rule, 5, concurrency=1)
    assert [one.reason for one in found] == [None] * 5
    assert sum("response_format" in request.body for request in requests) == 1


def test_a_budget_leaves_the_rest_without_an_outcome():
    found, stop, requests, usage = teach(lambda *_: says(GOOD), 20, max_requests=7)
    assert (len(found), len(requests)) == (7, 7)
    assert stop.reason == "the budget is spent"
    assert usage.counts()["cost_millionths"] == 7 * (100 * 1 + 20 * 2)


def test_a_teacher_that_only_fails_is_given_up():
    found, stop, _, _ = teach(lambda *_: says("I cannot."), 100, give_up_after=10)
    assert stop.reason is not None
    assert stop.reason.endswith("items in succession could not be made")
    assert 10 <= len(found) < 20


@pytest.mark.parametrize("status", [401, 404])
def test_a_refused_key_or_address_is_fatal(status):
    found, stop, _, _ = teach(lambda *_: Reply(status, b"{}"), 5)
    assert found == []
    assert stop.fatal is not None
    assert str(status) in stop.fatal
