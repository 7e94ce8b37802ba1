"""The judge stage without Ray: a real endpoint on loopback, real tables in a folder."""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa
import pytest
from chat_server import RATING, Reply, chat_server, rates, says
from made_pool import commit, make_workspace, rows_of
from pydantic import SecretStr

from mixup.commits import Committer, write_by_bucket
from mixup.config_file import load_config
from mixup.cover import MAX_ATTEMPTS
from mixup.errors import ConfigError
from mixup.models.budget import Budget, Prices
from mixup.models.endpoint import ChatEndpoint
from mixup.rater_config import EndpointJudge, JudgeRater
from mixup.records import TABLES, Turn, content_key, uid_of
from mixup.stages.asking import Stop
from mixup.stages.judge import check_judge, judge_revision
from mixup.stages.judge_endpoint import Judging, _EndpointActor
from mixup.stages.judgments import Outcome, _rows, read_answer, write_outcomes
from mixup.stages.manifests import Manifest
from mixup.stages.retry import without_retryable
from mixup.stages.unjudged import Census, Item, Unjudged, limits
from mixup.tables import snapshot
from mixup.text.judging import Judgment, judge_prompt, rating_schema

GOOD = json.dumps(RATING)
RATED = Judgment(3, 4, 7, 8)


def endpoint_config(base_url: str = "http://127.0.0.1:1/v1", **changed) -> EndpointJudge:
    given = {
        "base_url": base_url,
        "model": "m",
        "structured": "none",
        "timeout_s": 10.0,
        "backoff_s": 0.01,
        "backoff_cap_s": 2.0,
        "retries": 1,
        "concurrency": 8,
    }
    return EndpointJudge.model_validate({**given, **changed})


def items(*names: str) -> list[Item]:
    """Items whose text names the case that the server plays."""
    made = []
    for place, name in enumerate(names):
        text = f"Instruction: case:{name}:{place}\nAnswer: x"
        prompt = judge_prompt(text, "qa", max_tokens=500)
        made.append(Item(content_key(text), prompt.text, prompt.truncated, 0))
    return made


def case_of(prompt: str) -> str:
    found = re.search(r"case:(\w+):", prompt)
    assert found is not None
    return found.group(1)


def judged(rule, asked: list[Item], *, flush_s: float = 0.2, **changed):
    """All outcomes, in the parts in which they came; the judging, its budget and the requests."""

    async def run(config: EndpointJudge):
        prices = Prices(config.input_price, config.output_price)
        budget = Budget(prices, max_requests=config.max_requests, max_cost=config.max_cost)
        async with ChatEndpoint(config, None, rating_schema(), budget) as endpoint:
            judging = Judging(endpoint, budget, iter(asked), config)
            parts = [part async for part in judging.outcomes(flush_s)]
            return parts, judging, budget

    with chat_server(rule) as server:
        parts, judging, budget = asyncio.run(run(endpoint_config(server.base_url, **changed)))
        return parts, judging, budget, server.requests


def flat(parts: list[list[Outcome]]) -> list[Outcome]:
    return [outcome for part in parts for outcome in part]


CASES = {
    "good": lambda times: rates(),
    "fenced": lambda times: says(f"```json\n{GOOD}\n```"),
    "recovers": lambda times: Reply(500) if times == 0 else rates(),
    "busy": lambda times: Reply(429, b"{}", {"Retry-After": "0"}) if times == 0 else rates(),
    "throttled": lambda times: Reply(429, b"{}", {"Retry-After": "0"}),
    "broken": lambda times: Reply(500, b"<h1>no</h1>"),
    "slow": lambda times: Reply(delay_s=4.0, body=rates().body),
    "hangs_up": lambda times: Reply(hangs_up="at once"),
    "cut_body": lambda times: Reply(body=rates().body, hangs_up="midway"),
    "cut_json": lambda times: says(GOOD[:40]),
    "prose": lambda times: says(f"I would say: {GOOD}"),
    "wrong_keys": lambda times: says('{"rating": 10}'),
    "too_high": lambda times: rates(Overall=11),
    "too_low": lambda times: rates(Rarity=0),
    "float": lambda times: rates(Overall=8.0),
    "silent": lambda times: says(None),
    "refused": lambda times: Reply(400, b"{}"),
}
REASONS = {
    **dict.fromkeys(("good", "fenced", "recovers", "busy"), None),
    "throttled": "rate_limited",
    "broken": "http_error",
    "slow": "timeout",
    "hangs_up": "connection_error",
    "cut_body": "connection_error",
    "cut_json": "cut_json",
    "prose": "prose",
    "wrong_keys": "wrong_keys",
    "too_high": "out_of_range",
    "too_low": "out_of_range",
    "float": "not_integer",
    "silent": "no_answer",
    "refused": "request_refused",
}
AGAIN = ("recovers", "busy", "throttled", "broken", "slow", "hangs_up", "cut_body")


def play(request, times: int) -> Reply:
    return CASES[case_of(request.prompt)](times)


def test_every_item_has_one_outcome_and_none_is_invented():
    names = [name for name in CASES for _ in range(3)]
    asked = items(*names)
    parts, judging, budget, requests = judged(play, asked, give_up_after=100, timeout_s=2.0)
    outcomes = flat(parts)
    assert Counter(outcome.uid for outcome in outcomes) == Counter(item.uid for item in asked)
    reasons = {outcome.uid: outcome.reason for outcome in outcomes}
    assert {name: reasons[item.uid] for name, item in zip(names, asked, strict=True)} == REASONS
    for outcome in outcomes:
        assert outcome.judgment == (RATED if outcome.reason is None else None)
        assert outcome.attempts == 1
    assert judging.stop.reason is None
    assert len(requests) == budget.usage.requests == 3 * (len(CASES) + len(AGAIN))
    assert budget.usage.retries == 3 * len(AGAIN)


def test_outcomes_are_handed_on_while_others_are_waited_for():
    """A slow answer must not hold back those that have been paid for."""

    def rule(request, times):
        return Reply(body=rates().body, delay_s=1.5 if "slow" in request.prompt else 0.0)

    asked = items("slow", *["good"] * 20)
    parts, _, _, _ = judged(rule, asked, flush_s=0.1, concurrency=2)
    assert len(flat(parts)) == 21
    assert len(parts) > 1
    assert all(outcome.uid != asked[0].uid for part in parts[:-1] for outcome in part)
    assert asked[0].uid in {outcome.uid for outcome in parts[-1]}


def test_what_the_budget_left_has_no_outcome():
    asked = items(*["recovers", "good"] * 20)
    parts, judging, budget, requests = judged(play, asked, max_requests=30)
    assert len(requests) == budget.usage.requests == 30
    outcomes = flat(parts)
    assert 15 <= len(outcomes) < 40
    assert all(outcome.judgment == RATED for outcome in outcomes)
    assert judging.stop.reason == "the budget is spent"


def test_a_budget_that_is_just_enough_stops_nothing():
    parts, judging, _, requests = judged(play, items(*["good"] * 10), max_requests=10)
    assert len(flat(parts)) == len(requests) == 10
    assert judging.stop.reason is None


def test_an_endpoint_that_is_down_is_given_up():
    asked = items(*["broken"] * 100)
    parts, judging, _, requests = judged(play, asked, give_up_after=10, concurrency=4, retries=0)
    assert 10 <= len(flat(parts)) == len(requests) <= 14
    assert judging.stop.reason is not None
    assert "records in succession" in judging.stop.reason


def test_single_failures_are_not_given_up():
    asked = items(*(["broken"] * 3 + ["good"]) * 10)
    parts, judging, _, _ = judged(play, asked, give_up_after=6, concurrency=1, retries=0)
    assert len(flat(parts)) == 40
    assert judging.stop.reason is None


def test_a_long_wait_ends_judging():
    reply = Reply(429, b"{}", {"Retry-After": "3600"})
    parts, judging, _, _ = judged(lambda *_: reply, items(*["x"] * 50), concurrency=2)
    assert 1 <= len(flat(parts)) <= 2
    assert judging.stop.reason is not None
    assert "asks to wait" in judging.stop.reason


def test_a_key_that_is_refused_is_fatal_and_leaves_no_outcome():
    parts, judging, _, _ = judged(lambda *_: Reply(401), items(*["x"] * 50))
    assert flat(parts) == []
    assert judging.stop.fatal is not None


def test_an_unforeseen_failure_is_raised_after_what_came():
    class Broken(Exception):
        pass

    def failing() -> Iterator[Item]:
        yield from items("good", "good")
        raise Broken

    async def run(config):
        budget = Budget(Prices(), max_requests=None, max_cost=None)
        async with ChatEndpoint(config, None, rating_schema(), budget) as endpoint:
            return [part async for part in Judging(endpoint, budget, failing(), config).outcomes(1)]

    with chat_server(play) as server, pytest.raises(Broken):
        asyncio.run(run(endpoint_config(server.base_url)))


def test_a_thousand_answers_take_the_time_of_their_rounds():
    """800 answers of 50 ms, 32 at once, are 25 rounds: 1.25 s, and not 40."""
    start = time.monotonic()
    rule = lambda *_: Reply(body=rates().body, delay_s=0.05)  # noqa: E731
    parts, _, _, _ = judged(rule, items(*["good"] * 800), concurrency=32)
    assert len(flat(parts)) == 800
    assert time.monotonic() - start < 20


# --- what is chosen ------------------------------------------------------------------------------


def test_a_limit_takes_the_first_of_the_pool_and_counts_what_was_tried():
    found = [Census(1, 10, 6, 1), Census(0, 10, 4, 0)]
    assert limits(found, None) == {0: 4, 1: 6}
    assert limits(found, 100) == {0: 4, 1: 6}
    # 6 and 4 have been tried, of which one is tried again.
    assert limits(found, 16) == {0: 4, 1: 2}
    assert limits(found, 12) == {0: 2, 1: 0}
    assert limits(found, 10) == limits(found, 3) == {0: 0, 1: 0}


REVISION = "judge-1"
RATER = JudgeRater(engine=endpoint_config())


@pytest.fixture
def workspace(tmp_path):
    """Twelve records in two files of the pool, one of another."""
    made = make_workspace(tmp_path / "w")
    Committer(made, token=1, run="r", tables=["occurrences", "records", "ratings"])
    for file, names in (("f", "abcdefgh"), ("g", "hijkl"), ("elsewhere", "z")):
        new = [name for name in names if name != "h" or file == "f"]
        records = [
            {
                "uid": uid(name),
                "task": "qa",
                "turns": [turn._asdict() for turn in turns(name)],
                "tokens": 4,
            }
            for name in new
        ]
        where = [
            {"file": file, "offset": at, "uid": uid(name), "extra": "{}"}
            for at, name in enumerate(names)
        ]
        files = [
            *write_by_bucket(made, "records", table("records", records)),
            *write_by_bucket(made, "occurrences", table("occurrences", where)),
        ]
        commit(made, Manifest(files))
    return made


def turns(name: str) -> list[Turn]:
    return [Turn("user", f"question {name}"), Turn("assistant", f"answer {name}")]


def uid(name: str) -> str:
    return uid_of(turns(name))


def table(name: str, rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=TABLES[name].file_schema)


def work(workspace, rater: JudgeRater = RATER) -> Unjudged:
    tables = {name: snapshot(workspace, name) for name in ("occurrences", "records", "ratings")}
    return Unjudged(workspace, tables, ("f", "g"), rater, REVISION)


def rate(workspace, *found: tuple[str, str | None, int], revision: str = REVISION) -> Manifest:
    """Write an outcome by name: its reason, None for a rating, and its attempts."""
    outcomes = [
        Outcome(uid(name), None if reason else RATED, reason, attempts, False)
        for name, reason, attempts in found
    ]
    manifest = write_outcomes(workspace, revision, outcomes, {})
    commit(workspace, manifest)
    return manifest


def test_the_pools_records_are_asked_about_once_in_the_order_of_their_uid(workspace):
    found = list(work(workspace).items(0, 100))
    assert [item.uid for item in found] == sorted(uid(name) for name in "abcdefghijkl")
    assert [item.attempts for item in found] == [0] * 12
    by_uid = {item.uid: item for item in found}
    assert "question c" in by_uid[uid("c")].prompt
    assert work(workspace).census(0) == Census(0, 12, 12, 0)


def test_a_limit_is_on_fresh_records_and_those_to_try_again_come_along(workspace):
    order = sorted("abcdefghijkl", key=uid)
    rate(
        workspace,
        (order[0], None, 1),
        (order[1], "prose", MAX_ATTEMPTS),
        (order[2], "prompt_too_long", 1),
        (order[11], "timeout", 2),
    )
    rate(workspace, (order[4], None, 1), revision="another judge")
    assert work(workspace).census(0) == Census(0, 12, 8, 1)
    found = [(item.uid, item.attempts) for item in work(workspace).items(0, 2)]
    assert found == [(uid(order[3]), 0), (uid(order[4]), 0), (uid(order[11]), 2)]
    assert [item.attempts for item in work(workspace).items(0, 0)] == [2]


def test_a_long_record_is_judged_by_its_beginning(workspace):
    short = JudgeRater(engine=endpoint_config(), max_item_tokens=5)
    assert all(item.truncated for item in work(workspace, short).items(0, 100))


# --- outcomes ------------------------------------------------------------------------------------


def test_an_outcome_is_a_whole_rating_or_none_at_all(workspace):
    manifest = rate(workspace, ("a", None, 1), ("b", "timeout", 1), ("c", "prose", MAX_ATTEMPTS))
    rows = {row["uid"]: row for row in rows_of(workspace, "ratings")}
    shown = ("rarity", "complexity", "informativeness", "overall", "rating", "source", "reason")
    assert [rows[uid("a")][name] for name in shown] == [3, 4, 7, 8, 4, "judge", None]
    for name, reason in (("b", "timeout"), ("c", "prose")):
        assert [rows[uid(name)][column] for column in shown] == [None] * 6 + [reason]
    assert {row["rater"] for row in rows.values()} == {REVISION}
    assert manifest.counts == {
        "rows": 3,
        "rated": 1,
        "timeout": 1,
        "prose": 1,
        "truncated": 0,
        "outstanding": 1,
    }


def test_an_answer_is_read_strictly():
    assert read_answer(GOOD) == (RATED, None)
    assert read_answer("Rating: 10") == (None, "prose")


def test_outcomes_to_be_tried_again_make_room_for_one_row(workspace):
    """Two nights: what was retried has one row, what was final is as it was."""
    rate(workspace, ("a", None, 1), ("b", "timeout", 1), ("c", "prose", MAX_ATTEMPTS))
    rate(workspace, ("d", "http_error", 2), ("e", "prompt_too_long", 1))
    of_others = rate(workspace, ("a", "timeout", 1), revision="another judge").files[0].path
    mixed = [
        _rows([Outcome(uid("f"), None, "timeout", 1, False)], revision)
        for revision in (REVISION, "another judge")
    ]
    files = write_by_bucket(workspace, "ratings", pa.concat_tables(mixed))
    commit(workspace, Manifest(files))
    before = work(workspace)
    manifest = without_retryable(workspace, before.tables["ratings"], 0, ("rater", REVISION))
    assert manifest.counts == {"cleared": 3}
    commit(workspace, manifest)
    left = {(row["uid"], row["rater"]): row["reason"] for row in rows_of(workspace, "ratings")}
    assert left == {
        (uid("a"), REVISION): None,
        (uid("c"), REVISION): "prose",
        (uid("e"), REVISION): "prompt_too_long",
        (uid("a"), "another judge"): "timeout",
        (uid("f"), "another judge"): "timeout",
    }
    # The snapshot from before still tells how often they were tried.
    again = {item.uid: item.attempts for item in before.items(0, 0)}
    assert again == {uid("b"): 1, uid("d"): 2, uid("f"): 1}
    rate(workspace, ("b", None, 2), ("d", "timeout", 3), ("f", None, 2))
    keys = [(row["uid"], row["rater"]) for row in rows_of(workspace, "ratings")]
    assert len(keys) == len(set(keys)) == 8
    assert work(workspace).census(0).again == 0
    assert of_others in snapshot(workspace, "ratings").paths


def test_the_actor_writes_what_came_and_counts_what_it_took(workspace):
    """The work of the actor, in this process: manifests as answers come, then how it ended."""

    async def run(actor: _EndpointActor) -> list:
        return [found async for found in actor.run({0: 10}, 0.05)]

    prices = {"input_price": 1.0, "output_price": 2.0}
    with chat_server(lambda *_: Reply(body=rates().body, delay_s=0.06)) as server:
        config = endpoint_config(server.base_url, concurrency=2, max_requests=8, **prices)
        actor = _EndpointActor(work(workspace), config, SecretStr("sk-1"))
        *manifests, stop = asyncio.run(run(actor))
        assert {r.headers["Authorization"] for r in server.requests} == {"Bearer sk-1"}
    assert stop == Stop("the budget is spent")
    assert len(manifests) > 2
    totals: Counter[str] = Counter()
    for manifest in manifests:
        commit(workspace, manifest)
        totals.update(manifest.counts)
    assert (totals["rows"], totals["rated"], totals["requests"]) == (8, 8, 8)
    assert (totals["input_tokens"], totals["output_tokens"]) == (800, 160)
    assert totals["cost_millionths"] == 800 * 1 + 160 * 2
    order = sorted(uid(name) for name in "abcdefghijkl")
    assert sorted(row["uid"] for row in rows_of(workspace, "ratings")) == order[:8]


def test_a_bucket_without_anything_to_retry_is_left_as_it_is(workspace):
    rate(workspace, ("a", None, 1), ("c", "prose", MAX_ATTEMPTS))
    manifest = without_retryable(workspace, snapshot(workspace, "ratings"), 0, None)
    assert manifest == Manifest(counts={"cleared": 0})


# --- the config ----------------------------------------------------------------------------------


def rater(**engine) -> JudgeRater:
    given = {"type": "endpoint", "base_url": "http://127.0.0.1:8000/v1", "model": "m", **engine}
    return JudgeRater.model_validate({"engine": given})


def test_a_key_that_is_named_must_be_set_and_the_default_may_be_absent():
    check_judge(rater(), {})
    check_judge(rater(api_key_env="JUDGE_KEY"), {"JUDGE_KEY": "sk-1"})
    with pytest.raises(ConfigError, match="'JUDGE_KEY' is not set"):
        check_judge(rater(api_key_env="JUDGE_KEY"), {"JUDGE_KEY": " "})
    with pytest.raises(ConfigError) as raised:
        check_judge(rater(), {"OPENAI_API_KEY": "sk-secret\r\nHost: x"})
    assert "sk-secret" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://me:hunter2@host/v1",
        "https://hunter2@host/v1",
        "https://host/v1?api_key=hunter2",
        "ftp://me:hunter2@host/v1",
    ],
)
def test_an_address_with_a_credential_is_refused_unseen(url):
    with pytest.raises(ConfigError, match=r"rate\.engine\.base_url: .* credential") as raised:
        check_judge(rater(base_url=url), {})
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host/v1", "/v1", "http:///v1", ""])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ConfigError, match="is no address"):
        check_judge(rater(base_url=url), {})


def test_the_revision_is_that_of_what_decides_a_rating():
    same = [rater(), rater(concurrency=3, timeout_s=9, retries=1, max_requests=5, api_key_env="A")]
    assert len({judge_revision(one) for one in same}) == 1
    engine = {"type": "endpoint", "base_url": "http://127.0.0.1:8000/v1", "model": "m"}
    others = [
        rater(),
        rater(model="n"),
        rater(base_url="http://127.0.0.1:8001/v1"),
        rater(temperature=0.0),
        rater(max_tokens=64),
        rater(structured="none"),
        JudgeRater.model_validate({"engine": engine, "spread_scores": True}),
        JudgeRater.model_validate({"engine": engine, "max_item_tokens": 9}),
    ]
    assert len({judge_revision(one) for one in others}) == len(others)


def test_a_judge_in_a_job_file(tmp_path):
    from mixup.refresh_config import RefreshConfig

    path = tmp_path / "job.yaml"
    path.write_text("workspace: w\ningest: {paths: [p]}\nrate: {type: judge}\n")

    def load(*overrides: str):
        return load_config(RefreshConfig, path, overrides).rate

    found = load(
        "rate.engine.type=endpoint", "rate.engine.base_url=http://h/v1", "rate.engine.model=m"
    )
    assert isinstance(found, JudgeRater)
    assert found.engine == endpoint_config("http://h/v1").model_copy(
        update=dict(EndpointJudge(base_url="http://h/v1", model="m"))
    )
    with pytest.raises(ConfigError, match=r"'rate\.engine' is missing"):
        load()
    with pytest.raises(ConfigError, match=r"'rate\.engine\.base_url' is missing"):
        load("rate.engine.type=endpoint")
    with pytest.raises(ConfigError, match=r"did you mean 'rate\.engine\.model'"):
        load("rate.engine.type=vllm", "rate.engine.modl=m")
    with pytest.raises(ConfigError, match="belongs to another `type`"):
        load("rate.engine.type=vllm", "rate.engine.base_url=http://h/v1")
    with pytest.raises(ConfigError, match=r"rate\.engine: max_cost needs input_price"):
        load(
            "rate.engine.type=endpoint",
            "rate.engine.base_url=http://h/v1",
            "rate.engine.model=m",
            "rate.engine.max_cost=5",
        )
    with pytest.raises(ConfigError, match="max_tokens must be below context_tokens"):
        load("rate.engine.type=vllm", "rate.engine.max_tokens=4096")
