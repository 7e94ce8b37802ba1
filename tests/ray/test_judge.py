"""The judge stage on Ray: two nights against an endpoint that fails on the first."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from chat_server import Reply, Request, chat_server, rates, says

from mixup.commits import write_by_bucket
from mixup.errors import ModelError
from mixup.ledger import StageCounts
from mixup.lock import acquire
from mixup.rater_config import EndpointJudge, JudgeRater
from mixup.records import TABLES, Turn, uid_of
from mixup.stages.judge import judge_records, judge_revision, judge_state
from mixup.stages.manifests import Manifest
from mixup.stages.run import RunContext
from mixup.tables import read_files, snapshot
from mixup.workspace import Workspace, ensure_workspace

ROWS = 60
KEY = "sk-not-to-be-seen"


def make_pool(place: Path) -> Workspace:
    workspace = ensure_workspace(str(place), buckets=4)
    turns = [
        [Turn("user", f"question {n}."), Turn("assistant", f"answer {n}.")] for n in range(ROWS)
    ]
    records = [
        {"uid": uid_of(pair), "task": "qa", "turns": [t._asdict() for t in pair], "tokens": 4}
        for pair in turns
    ]
    where = [
        {"file": "f", "offset": n, "uid": row["uid"], "extra": "{}"}
        for n, row in enumerate(records)
    ]
    with acquire(workspace, "make") as lease:
        committer = RunContext(workspace, "make", lease.token).committer("records", "occurrences")
        for name, rows in (("records", records), ("occurrences", where)):
            table = pa.Table.from_pylist(rows, schema=TABLES[name].file_schema)
            committer.add(Manifest(write_by_bucket(workspace, name, table)).files)
        committer.commit()
    return workspace


def night(workspace: Workspace, rater: JudgeRater, run: str) -> tuple[StageCounts, RunContext]:
    with acquire(workspace, run) as lease:
        context = RunContext(workspace, run, lease.token, ("f",), commit_interval_s=0.2)
        return judge_records(context, rater, judge_revision(rater)), context


def outcomes(workspace: Workspace) -> list[dict]:
    return read_files(workspace, "ratings", snapshot(workspace, "ratings").paths).to_pylist()


def number(request: Request) -> int:
    found = re.search(r"question (\d+)\.", request.prompt)
    assert found is not None
    return int(found.group(1))


def a_bad_night(request: Request, times: int) -> Reply:
    kind = number(request) % 6
    return Reply(500) if kind == 0 else says("I would say 8.") if kind == 1 else rates()


def judge(base_url: str, **changed) -> JudgeRater:
    engine = {
        "base_url": base_url,
        "model": "m",
        "structured": "none",
        "retries": 1,
        "backoff_s": 0.01,
        "concurrency": 4,
        "api_key_env": "JUDGE_KEY",
        "input_price": 1.0,
        "output_price": 2.0,
    }
    return JudgeRater(engine=EndpointJudge.model_validate({**engine, **changed}))


@pytest.mark.usefixtures("ray_cluster")
def test_the_next_night_rates_what_is_left_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("JUDGE_KEY", KEY)
    workspace = make_pool(tmp_path / "w")
    with chat_server(a_bad_night) as server:
        rater = judge(server.base_url, max_requests=45)
        counts, context = night(workspace, rater, "first")
        assert counts.rows_in == ROWS
        assert len(server.requests) == counts.extra["requests"] == 45
        assert {r.headers["Authorization"] for r in server.requests} == {f"Bearer {KEY}"}

        first = outcomes(workspace)
        assert len({row["uid"] for row in first}) == len(first) == ROWS - counts.parts["waiting"]
        reasons = Counter(row["reason"] or "rated" for row in first)
        assert reasons == {name: n for name, n in counts.parts.items() if n and name != "waiting"}
        assert set(reasons) == {"rated", "http_error", "prose"}
        assert all((row["overall"] is None) == (row["reason"] is not None) for row in first)
        # 45 requests: two for each that failed, one for the others.
        asked_twice = counts.extra["retries"]
        assert 45 - asked_twice <= len(first) + 4
        answered = reasons["rated"] + reasons["prose"]
        assert counts.extra["cost_millionths"] == answered * (100 * 1 + 20 * 2)
        unrated = ROWS - reasons["rated"]
        assert counts.extra["outstanding"] == unrated
        assert not judge_state(context, rater, judge_revision(rater)).is_current

        server.rule = lambda *_: rates()
        server.requests.clear()
        again = judge(server.base_url)
        counts, context = night(workspace, again, "second")
        assert counts.rows_in == counts.parts["rated"] == len(server.requests) == unrated
        assert counts.extra["outstanding"] == 0
        assert judge_state(context, again, judge_revision(again)).is_current

    rows = {row["uid"]: row for row in outcomes(workspace)}
    assert len(outcomes(workspace)) == len(rows) == ROWS
    assert all(row["rating"] == 4 and row["source"] == "judge" for row in rows.values())
    tried = {row["uid"]: 2 if row["reason"] else 1 for row in first}
    assert {uid: row["attempts"] for uid, row in rows.items()} == {
        uid: tried.get(uid, 1) for uid in rows
    }
    assert KEY not in caplog.text
    written = [path.read_bytes() for path in (tmp_path / "w").rglob("*") if path.is_file()]
    assert not any(KEY.encode() in data for data in written)


@pytest.mark.usefixtures("ray_cluster")
def test_a_limit_is_kept_over_nights_and_a_refused_key_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    workspace = make_pool(tmp_path / "w")
    with chat_server(lambda *_: Reply(401, json.dumps({"error": KEY}).encode())) as server:
        rater = judge(server.base_url).model_copy(update={"max_rated": 20})
        with pytest.raises(ModelError, match="the key is refused") as raised:
            night(workspace, rater, "refused")
        assert KEY not in str(raised.value)
        assert outcomes(workspace) == []
        server.rule = lambda *_: rates()
        for run, rated in (("first", 20), ("second", 0)):
            counts, _ = night(workspace, rater, run)
            assert counts.parts["rated"] == rated
            assert counts.extra["not_chosen"] == ROWS - 20
    order = sorted(row["uid"] for row in outcomes(workspace))
    assert len(order) == 20
    pool = read_files(workspace, "records", snapshot(workspace, "records").paths, ["uid"])
    assert order == sorted(pool["uid"].to_pylist())[:20]
