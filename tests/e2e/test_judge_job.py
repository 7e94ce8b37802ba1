"""A refresh whose ratings come from a judge: a faulty endpoint, and engines of the cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chat_server import Reply, Request, chat_server, rates, says
from conftest import Job, short

TOPICS = ("a kite", "a kettle", "a compass", "a lantern", "an anchor", "a violin", "a telescope")
ROWS = 56


def make_pool(path: Path) -> None:
    """Rows that say nearly the same, in seven groups."""
    rows = [
        {
            "instruction": f"Tell me what {TOPICS[n % 7]} is for, in {n // 14 + 3} words.",
            "output": f"{TOPICS[n % 7]} is for what people use it for, number {n}.",
            "licence": "CC0-1.0",
        }
        for n in range(ROWS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def bad_night(request: Request, times: int) -> Reply:
    number = int(request.prompt.split(", number ")[1].split(".")[0])
    if number % 8 == 0:
        return says("Rating: 10")
    if number % 8 == 1:
        return Reply(500)
    return rates(Overall=9 if number % 2 else 3)


def good_night(request: Request, times: int) -> Reply:
    return rates(Overall=9 if "kite" in request.prompt else 3)


def job_of(folder: Path, rate: dict) -> Job:
    make_pool(folder / "pool.jsonl")
    more = (
        f'ingest.paths=["{folder / "pool.jsonl"}"]',
        f"rate={json.dumps(rate)}",
        "cluster.max_tokens=1",  # no cluster, so that none need be distilled
    )
    return Job(folder / "workspace", overrides=(*short(), *more))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_judged_pool_over_three_nights(tmp_path: Path):
    with chat_server(bad_night) as server:
        engine = {
            "type": "endpoint",
            "base_url": server.base_url,
            "model": "m",
            "retries": 1,
            "backoff_s": 0.05,
            "max_requests": 50,
        }
        job = job_of(tmp_path, {"type": "judge", "engine": engine})
        job.run()
        assert len(server.requests) == 50
        stage = job.stage("rate")
        assert stage is not None
        assert stage["rows_in"] == sum(stage["parts"].values()) == ROWS
        assert stage["parts"]["waiting"] == stage["extra"]["outstanding"] - sum(
            stage["parts"].get(name, 0) for name in ("http_error", "prose")
        )
        assert stage["extra"]["requests"] == 50
        first = {row["uid"]: row for row in job.table("ratings").to_pylist()}
        assert len(first) == ROWS - stage["parts"]["waiting"]
        # What the judge did not rate has a posterior from its neighbors, and no rating.
        curated = {row["uid"]: row for row in job.table("curation").to_pylist()}
        unrated = [uid for uid in curated if first.get(uid, {}).get("rating") is None]
        assert unrated
        assert all(curated[uid]["quality"] is not None for uid in unrated)

        server.rule = good_night
        server.requests.clear()
        job.run()
        rated = sum(row["rating"] is not None for row in first.values())
        assert len(server.requests) == ROWS - rated
        rows = job.table("ratings").to_pylist()
        assert len({row["uid"] for row in rows}) == len(rows) == ROWS
        assert all(row["rating"] is not None for row in rows)
        models = {model["role"]: model for model in job.manifest()["models"]}
        assert models["judge"]["revision"] == rows[0]["rater"]

        server.requests.clear()
        output = job.run(RAY_ADDRESS="127.0.0.1:1")
        assert "nothing to do" in output
        assert server.requests == []


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_a_pool_judged_by_an_engine_of_the_cluster(tmp_path: Path):
    """The bundled model, held to the form by a pattern: every row gets a whole rating."""
    engine = {
        "type": "vllm",
        "model": "bundled:smollm2",
        "engine_gpus": 0,
        "engine_cpus": 1.25,
        "context_tokens": 1024,
        "max_tokens": 48,
        "batch_rows": 16,
    }
    job = job_of(tmp_path, {"type": "judge", "max_rated": 32, "engine": engine})
    # What this model finds is noise: every row may be released, whatever it says of it.
    job.run("curate.keep_at=0.0", "curate.margin=0.0", timeout_s=500)
    stage = job.stage("rate")
    assert stage is not None
    assert stage["parts"]["rated"] == stage["rows_in"] == 32
    assert stage["extra"]["not_chosen"] == ROWS - 32
    assert stage["extra"]["output_tokens"] > 32 * 20
    rows = job.table("ratings").to_pylist()
    assert (
        sorted(row["uid"] for row in rows)
        == sorted(row["uid"] for row in job.table("records").to_pylist())[:32]
    )
    assert all(1 <= row[name] <= 10 for row in rows for name in ("rarity", "overall"))
