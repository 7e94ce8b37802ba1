"""The real client against a real server on loopback."""

import asyncio
import json
import re
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from chat_server import RATING, Reply, chat_server, rates, says

from mixup.models.budget import Budget, Prices
from mixup.models.endpoint import Answer, ChatEndpoint
from mixup.rater_config import EndpointJudge
from mixup.text.judging import rating_schema

KEY = "sk-very-secret"
GOOD = json.dumps(RATING)
BUSY = Reply(500, b"{}")


def config(base_url: str, **changed) -> EndpointJudge:
    given = {
        "base_url": base_url,
        "model": "m",
        "structured": "none",
        "timeout_s": 10.0,
        "backoff_s": 0.01,
        "backoff_cap_s": 2.0,
        "retries": 2,
    }
    return EndpointJudge.model_validate({**given, **changed})


def ask(rule, *prompts: str, key: str | None = None, **changed):
    """Ask all prompts at once: the answers, the requests that came, the endpoint and the budget."""

    async def run(settings: EndpointJudge):
        prices = Prices(settings.input_price, settings.output_price)
        budget = Budget(prices, max_requests=settings.max_requests, max_cost=settings.max_cost)
        async with ChatEndpoint(settings, key, rating_schema(), budget) as endpoint:
            answers = await asyncio.gather(*(endpoint.ask(prompt) for prompt in prompts))
            return answers, endpoint, budget

    with chat_server(rule) as server:
        answers, endpoint, budget = asyncio.run(run(config(server.base_url, **changed)))
        return answers, server.requests, endpoint, budget


def first_then(first: Reply, then: Reply):
    return lambda request, times: first if times == 0 else then


def test_an_answer_comes_with_what_it_used():
    answers, requests, _, budget = ask(
        lambda *_: rates(), "p", key=KEY, input_price=10, output_price=100, temperature=0.5
    )
    assert answers == [Answer(GOOD)]
    assert requests[0].body == {
        "model": "m",
        "messages": [{"role": "user", "content": "p"}],
        "max_tokens": 128,
        "temperature": 0.5,
    }
    assert requests[0].headers["Authorization"] == f"Bearer {KEY}"
    assert budget.usage.counts() == {
        "requests": 1,
        "retries": 0,
        "input_tokens": 100,
        "output_tokens": 20,
        "estimated": 0,
        "cost_millionths": 3000,
    }


def test_without_a_key_none_is_sent():
    _, requests, _, _ = ask(lambda *_: rates(), "p", max_tokens_field="max_completion_tokens")
    assert "Authorization" not in requests[0].headers
    assert requests[0].body["max_completion_tokens"] == 128
    assert not {"max_tokens", "temperature", "response_format"} & set(requests[0].body)


@pytest.mark.parametrize("usage", [None, (-1, 3), ("9", 3), (True, False)])
def test_without_stated_tokens_they_are_estimates(usage):
    prompt = "x" * 35  # 10 tokens, and 16 for the template
    _, _, _, budget = ask(lambda *_: says(GOOD, usage), prompt, input_price=1, output_price=1)
    assert budget.usage.estimated == 1
    assert (budget.usage.input_tokens, budget.usage.output_tokens) == (26, 128)


@pytest.mark.parametrize(
    "bad",
    [
        Reply(500, b"oops"),
        Reply(503, b"{}"),
        Reply(408),
        Reply(429, b"{}", {"Retry-After": "0"}),
        Reply(hangs_up="at once"),
        Reply(body=rates().body, hangs_up="midway"),
        Reply(200, b'{"choices": [{"message": {"cont'),
        Reply(200, b"<html>gateway</html>"),
        Reply(200, b'{"choices": []}'),
        Reply(200, b'{"choices": [{"message": {"content": [1]}}]}'),
        Reply(200, b"[" * 100_000),
        Reply(200, b"x" * 1_100_000),
    ],
)
def test_what_may_pass_is_asked_again(bad):
    answers, requests, _, budget = ask(first_then(bad, rates()), "p")
    assert answers == [Answer(GOOD)]
    assert len(requests) == budget.usage.requests == 2
    assert budget.usage.retries == 1


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Reply(500), "http_error"),
        (Reply(502), "http_error"),
        (Reply(429), "rate_limited"),
        (Reply(hangs_up="at once"), "connection_error"),
        (Reply(body=rates().body, hangs_up="midway"), "connection_error"),
        (Reply(200, b"{}"), "bad_response"),
    ],
)
def test_what_does_not_pass_is_a_reason(bad, reason):
    answers, requests, _, budget = ask(lambda *_: bad, "p")
    assert answers == [Answer(None, reason)]
    assert len(requests) == budget.usage.requests == 3


@pytest.mark.parametrize("status", [302, 400, 403, 413, 422])
def test_a_refused_request_is_not_repeated(status):
    reply = Reply(status, b"{}", {"Location": "http://127.0.0.1:1/", "Retry-After": "99"})
    answers, requests, endpoint, _ = ask(lambda *_: reply, "p", key=KEY)
    assert answers == [Answer(None, "request_refused")]
    assert len(requests) == 1
    assert endpoint.fatal is None
    assert not endpoint.is_closed


def test_a_timeout_is_waited_for_no_longer_and_counts_as_billed():
    start = time.monotonic()
    answers, _, _, budget = ask(lambda *_: Reply(delay_s=1.5), "x" * 35, timeout_s=0.3, retries=1)
    assert answers == [Answer(None, "timeout")]
    assert time.monotonic() - start < 3
    assert (budget.usage.requests, budget.usage.estimated) == (2, 2)
    assert (budget.usage.input_tokens, budget.usage.output_tokens) == (52, 256)


def test_nothing_listens():
    async def run():
        budget = Budget(Prices(), max_requests=None, max_cost=None)
        settings = config("http://127.0.0.1:1/v1", retries=1)
        async with ChatEndpoint(settings, None, rating_schema(), budget) as endpoint:
            return await endpoint.ask("p"), budget.usage

    answer, usage = asyncio.run(run())
    assert answer == Answer(None, "connection_error")
    assert (usage.requests, usage.input_tokens) == (2, 0)


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_honored_by_all_requests(as_date):
    """The first request is told to wait: neither it nor those after it come sooner."""

    def rule(request, times):
        if request.prompt != "first" or times:
            return rates()
        # A date has whole seconds: two from now is between one and two.
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        return Reply(429, b"{}", {"Retry-After": date if as_date else "1"})

    async def run(settings):
        budget = Budget(Prices(), max_requests=None, max_cost=None)
        async with ChatEndpoint(settings, None, rating_schema(), budget) as endpoint:
            first = asyncio.create_task(endpoint.ask("first"))
            await asyncio.sleep(0.3)
            return await asyncio.gather(first, *(endpoint.ask(f"p{i}") for i in range(3)))

    with chat_server(rule) as server:
        answers = asyncio.run(run(config(server.base_url)))
        times = [request.at for request in server.requests]
    assert answers == [Answer(GOOD)] * 4
    assert len(times) == 5
    assert min(times[1:]) - times[0] >= 0.95


def test_a_server_that_asks_for_a_long_wait_is_left_alone():
    reply = Reply(429, b"{}", {"Retry-After": "3600"})
    start = time.monotonic()
    answers, requests, endpoint, _ = ask(lambda *_: reply, "p")
    assert answers == [Answer(None, "rate_limited")]
    assert len(requests) == 1
    assert endpoint.is_closed
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(("status", "said"), [(401, "key is refused"), (404, "base_url ends in")])
def test_an_endpoint_that_can_answer_nothing_is_fatal(status, said):
    answers, requests, endpoint, _ = ask(lambda *_: Reply(status, KEY.encode()), "p", key=KEY)
    assert answers == [None]
    assert len(requests) == 1
    assert endpoint.fatal is not None
    assert said in endpoint.fatal
    assert KEY not in endpoint.fatal


# --- structured output ---------------------------------------------------------------------------


def formats(requests) -> list[str]:
    return [request.body.get("response_format", {"type": "none"})["type"] for request in requests]


def test_auto_keeps_to_a_schema_that_is_taken():
    answers, requests, _, _ = ask(lambda *_: rates(), "a", "b", "c", structured="auto")
    assert answers == [Answer(GOOD)] * 3
    assert formats(requests) == ["json_schema"] * 3
    schema = requests[0].body["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert schema["schema"] == rating_schema()


def without_schema(request, times):
    return Reply(400, b"{}") if "response_format" in request.body else rates()


def test_auto_falls_back_once_where_a_schema_is_refused():
    answers, requests, _, budget = ask(without_schema, *"abcdefgh", structured="auto")
    assert answers == [Answer(GOOD)] * 8
    assert formats(requests) == ["json_schema"] + ["none"] * 8
    assert (budget.usage.requests, budget.usage.retries) == (9, 1)


def test_a_request_that_is_refused_either_way_decides_nothing():
    def rule(request, times):
        return Reply(400, b"{}") if request.prompt == "too long" else rates()

    async def run(settings):
        budget = Budget(Prices(), max_requests=None, max_cost=None)
        async with ChatEndpoint(settings, None, rating_schema(), budget) as endpoint:
            return [await endpoint.ask("too long"), await endpoint.ask("b")]

    with chat_server(rule) as server:
        answers = asyncio.run(run(config(server.base_url, structured="auto")))
        assert answers == [Answer(None, "request_refused"), Answer(GOOD)]
        assert formats(server.requests) == ["json_schema", "none", "json_schema"]


@pytest.mark.parametrize("structured", ["json_schema", "json_object"])
def test_a_structure_that_is_demanded_is_not_given_up(structured):
    answers, requests, _, _ = ask(without_schema, "a", structured=structured)
    assert answers == [Answer(None, "request_refused")]
    assert formats(requests) == [structured]


# --- the budget ----------------------------------------------------------------------------------


@pytest.mark.parametrize("structured", ["none", "auto"])
def test_the_budget_of_requests_is_kept_exactly(structured):
    """Half of the requests fail and are repeated: retries and probes count too."""
    prompts = [f"p{i}" for i in range(40)]
    answers, requests, _, budget = ask(
        lambda request, times: BUSY if times == 0 and int(request.prompt[1:]) % 2 else rates(),
        *prompts,
        structured=structured,
        max_requests=25,
    )
    assert len(requests) == budget.usage.requests == 25
    assert budget.is_spent
    answered = [answer for answer in answers if answer is not None]
    assert 0 < len(answered) < 25
    assert all(answer == Answer(GOOD) for answer in answered)


def test_the_budget_of_cost_is_not_passed():
    """A prompt is reserved with 26 + 128 tokens and uses 120: 10 fit where 1,300 are paid for."""
    prompts = [f"{i:035}" for i in range(40)]
    answers, requests, _, budget = ask(
        lambda *_: rates(), *prompts, input_price=1, output_price=1, max_cost=1300e-6
    )
    assert len(requests) == 10
    assert budget.usage.cost == pytest.approx(1200e-6)
    assert sum(answer is not None for answer in answers) == 10


def test_no_more_requests_are_open_than_allowed():
    async def run(settings):
        budget = Budget(Prices(), max_requests=None, max_cost=None)
        async with ChatEndpoint(settings, None, rating_schema(), budget) as endpoint:
            await asyncio.gather(*(endpoint.ask(str(i)) for i in range(12)))

    with chat_server(lambda *_: Reply(body=rates().body, delay_s=0.05)) as server:
        asyncio.run(run(config(server.base_url, concurrency=3)))
        assert 1 < server.most_open <= 3
        assert len(server.requests) == 12


def test_the_key_is_in_no_message(caplog):
    caplog.set_level("DEBUG")
    ask(lambda *_: BUSY, "p", key=KEY)
    ask(lambda *_: Reply(hangs_up="at once"), "p", key=KEY)
    assert not re.search(KEY, caplog.text)
