"""A driver killed with SIGKILL, twice: the same command goes on from the last commit."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from conftest import SHORT, Job

from mixup.records import TABLES
from mixup.tables import last_completion, row_count
from mixup.workspace import Workspace

# Small batches and frequent commits: a stage of seconds has a middle in which it can be killed.
OFTEN = (
    *SHORT,
    "embed.batch_rows=64",
    "distill.batch_clusters=8",
    "distill.max_tokens=16",
    "commit_interval_s=0.2",
)
FATE_SHARING_S = 60.0


@dataclass(frozen=True)
class Killed:
    """A run that was killed: what it logged, and the rows it had committed to a table."""

    log: str
    rows: int


def kill_amid(job: Job, stage: str, table: str) -> Killed:
    """Start the job and kill its driver, alone, once the stage has committed some rows.

    Ray's processes must end by themselves; those that stay are ended here and named.
    """
    workspace = Workspace(str(job.workspace))
    process = job.start()
    try:
        while not row_count(workspace, table):
            assert process.poll() is None, process.communicate()[0][-6000:]
            time.sleep(0.05)
        family = members(process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert last_completion(workspace, table, stage) is None
        assert any("raylet" in name for name in family.values())
        assert not (left := survivors(process, family)), left
        return Killed(process.communicate()[0], row_count(workspace, table))
    finally:
        end(process)


def members(process: subprocess.Popen[str]) -> dict[psutil.Process, str]:
    """The processes of a job beside its driver: its session's, and its descendants, with names."""
    found = {other for other in psutil.process_iter() if session_of(other) == process.pid}
    if psutil.pid_exists(process.pid):
        found.update(psutil.Process(process.pid).children(recursive=True))
    return {other: name_of(other) for other in found if other.pid != process.pid}


def session_of(process: psutil.Process) -> int:
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return -1


def name_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:200] or process.name()
    except psutil.NoSuchProcess:
        return "ended"


def survivors(
    process: subprocess.Popen[str], family: dict[psutil.Process, str]
) -> dict[psutil.Process, str]:
    """Those of a dead driver's processes, and any that they started, that do not end in time."""
    deadline = time.monotonic() + FATE_SHARING_S
    while True:
        family = family | members(process)
        left = {other: name for other, name in family.items() if is_alive(other)}
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.2)


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end(process: subprocess.Popen[str]) -> None:
    """End the driver and all that it started, whatever a test came to."""
    for other in (*members(process), process):
        try:
            other.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()
    if process.stdout:
        process.stdout.close()


def keys_of(job: Job, name: str) -> Counter[tuple]:
    table = job.table(name).select(list(TABLES[name].key))
    return Counter(tuple(row.values()) for row in table.to_pylist())


def texts_of(job: Job) -> dict[str, str | None]:
    return {row["sample"]: row["text"] for row in job.table("samples").to_pylist()}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_killed_runs_lose_nothing(tmp_path: Path):
    whole = Job(tmp_path / "whole", overrides=OFTEN)
    started = time.monotonic()
    whole.run(timeout_s=400)
    print("baseline", time.monotonic() - started)
    job = Job(tmp_path / "killed", overrides=OFTEN)
    records, clusters = whole.rows("records"), whole.rows("clusters")

    started = time.monotonic()
    embedding = kill_amid(job, "embed", "embeddings")
    print("killed in embed", time.monotonic() - started, embedding.rows, records)
    assert 0 < embedding.rows < records

    started = time.monotonic()
    distilling = kill_amid(job, "distill", "samples")
    print("killed in distill", time.monotonic() - started, distilling.rows, clusters)
    assert 0 < distilling.rows < clusters
    assert "taking the lock over from run" in distilling.log
    assert "ingest: nothing to do" in distilling.log
    print(distilling.log)

    started = time.monotonic()
    log = job.run(timeout_s=400)
    print("last", time.monotonic() - started)
    print(log)
    assert "taking the lock over from run" in log
    for stage in ("ingest", "embed", "rate", "curate"):
        assert f"{stage}: nothing to do" in log
        assert job.stage(stage) is None
    distilled = job.stage("distill")
    assert distilled is not None
    assert distilled["rows_in"] == clusters - distilling.rows
    first, second = texts_of(whole), texts_of(job)
    print("equal texts", sum(first[k] == second.get(k) for k in first), len(first))
    check_complete(job, whole)


def check_complete(job: Job, whole: Job) -> None:
    """The tables are those of an uninterrupted run, and the ledger sums."""
    for name in TABLES:
        keys = keys_of(job, name)
        assert set(keys.values()) <= {1}, name
        assert keys == keys_of(whole, name), name
    scores = Counter(job.table("rewards")["sample"].to_pylist())
    assert scores == Counter({key: 4 for key, text in texts_of(job).items() if text is not None})
    manifest = job.manifest()
    assert manifest["fates"] == whole.manifest()["fates"]
    assert sum(manifest["fates"].values()) == manifest["counts"]["occurrences"]
    for stage in manifest["stages"]:
        assert sum(stage["parts"].values()) == stage["rows_in"], stage
