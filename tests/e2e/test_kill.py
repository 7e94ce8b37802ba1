"""A driver that is killed or asked to end: the same command goes on from the last commit."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from completeness import check_complete, texts_of
from conftest import Job
from kill_table import Undisturbed, kill_table, undisturbed
from processes import end, members, survivors

from mixup.commits import last_completion
from mixup.tables import row_count
from mixup.workspace import Workspace

# Ray's agent spends a minute on a report to a server that died with the driver, before it ends too.
FATE_SHARING_S = 120.0


@dataclass(frozen=True)
class Killed:
    """A run that was killed.

    Attributes:
        process: Its driver.
        family: The processes of Ray that it had started.
        rows: The rows it had committed to the table of its stage.
    """

    process: subprocess.Popen[str]
    family: dict[psutil.Process, str]
    rows: int

    def log(self) -> str:
        """What it wrote, once nothing of it is left: Ray's processes end by themselves."""
        left = survivors(self.process, self.family, timeout_s=FATE_SHARING_S)
        assert not left, left
        return self.process.communicate()[0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """A run that nothing was done to."""
    return undisturbed(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Takes the runs that a test starts; nothing of them outlives it."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        end(process)


def kill_amid(job: Job, stage: str, table: str, started: list[subprocess.Popen[str]]) -> Killed:
    """Start the job and kill its driver, alone, once the stage has committed some rows."""
    workspace = Workspace(str(job.workspace))
    process = job.start()
    started.append(process)
    while not row_count(workspace, table):
        assert process.poll() is None, process.communicate()[0][-6000:]
        time.sleep(0.05)
    family = members(process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert last_completion(workspace, table, stage) is None
    assert any("raylet" in name for name in family.values())
    return Killed(process, family, row_count(workspace, table))


def terminate_amid(job: Job, held: int, started: list[subprocess.Popen[str]]) -> str:
    """Ask the job to end once it has committed more samples than were held; what it wrote."""
    process = job.start()
    started.append(process)
    while row_count(Workspace(str(job.workspace)), "samples") <= held:
        assert process.poll() is None, process.communicate()[0][-6000:]
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output[-3000:]
    return output


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_runs_that_are_ended_lose_nothing(
    whole: Undisturbed, tmp_path: Path, started: list[subprocess.Popen[str]]
):
    """Killed amid embedding, then amid distillation, then asked to end: nothing shows it.

    The runs that are killed distill in batches of another size than the one that is not. Every
    request has a seed of its own, and in float32 on a CPU all texts were the same none the less;
    a batch may round differently, though, and a token flip, so that a few are allowed to differ.
    """
    records, clusters = whole.job.rows("records"), whole.job.rows("clusters")
    in_threes = (*whole.job.overrides, "distill.batch_clusters=3")
    job = Job(tmp_path / "killed", overrides=in_threes)
    embedding = kill_amid(job, "embed", "embeddings", started)
    assert 0 < embedding.rows < records
    distilling = kill_amid(job, "distill", "samples", started)
    assert 0 < distilling.rows < clusters
    terminated = terminate_amid(job, distilling.rows, started)
    assert "taking the lock over from run" in terminated
    assert "mixup: terminated; what was done is committed" in terminated
    assert job.rows("samples") > distilling.rows
    held = texts_of(job)
    log = job.run(timeout_s=400)

    assert "taking the lock over from run" not in log  # a terminated run gives it back
    for stage in ("ingest", "embed", "rate", "curate"):
        assert f"{stage}: nothing to do" in log
        assert job.stage(stage) is None
    distilled = job.stage("distill")
    assert distilled is not None
    assert distilled["rows_in"] == clusters - len(held)
    check_complete(job, whole.job)
    texts, expected = texts_of(job), texts_of(whole.job)
    assert {key: texts[key] for key in held} == held
    assert sum(texts[key] == expected[key] for key in texts) >= 0.95 * len(texts)

    embedding.log()
    log = distilling.log()
    assert "taking the lock over from run" in log
    assert "ingest: nothing to do" in log
    assert f"embed: {records - embedding.rows} records in" in log


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_one_of_each_is_killed_and_nothing_is_lost(whole: Undisturbed, tmp_path: Path):
    """A worker, the engine and a raylet: the short form of `make kills`."""
    kinds = ("worker", "engine", "raylet")
    kills = kill_table(tmp_path, whole, kills=3, seed=2, show=print, kinds=kinds)
    assert {kill.victim for kill in kills} == set(kinds)
    assert not [kill for kill in kills if kill.wrong]
