"""The mixture job as a user runs it: killed in the middle, gone on with, and then nothing to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, environment, small_pool
from deltalake import DeltaTable
from processes import end, members, survivors

from mixup.tables import row_count
from mixup.workspace import Workspace

JOB = ROOT / "jobs" / "mixture.yaml"
OFTEN = ("embed.batch_rows=32", "commit_interval_s=0.2", "embed.actor_cpus=1.0")


def command(workspace: Path, pool: str) -> list[str]:
    job = [sys.executable, "-m", "mixup", "build-mixture", str(JOB)]
    return [*job, f"workspace={workspace}", pool, *OFTEN]


def run(workspace: Path, pool: str) -> str:
    done = subprocess.run(
        command(workspace, pool),
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def pairs(workspace: Path) -> dict[str, tuple]:
    """Every pair by its key."""
    rows = DeltaTable(str(workspace / "tables" / "mixture")).to_pyarrow_table().to_pylist()
    found = {row["pair"]: (row["split"], row["input"], row["output"], row["cot"]) for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_job_comes_to_the_same_pairs_and_then_has_nothing_to_do(tmp_path):
    pool = small_pool(tmp_path)
    run(tmp_path / "whole", pool)
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        command(killed, pool),
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        while not row_count(Workspace(str(killed)), "embeddings"):
            assert process.poll() is None, process.communicate()[0][-6000:]
            time.sleep(0.05)
        family = members(process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kept = row_count(Workspace(str(killed)), "embeddings")
        log = run(killed, pool)
        # Ray's agent spends a minute on a report to a server that died, before it ends too.
        assert not (left := survivors(process, family, timeout_s=120.0)), left
    finally:
        end(process)
    assert "teach: nothing to do" in log
    assert "embed: started" in log
    assert 0 < kept < row_count(Workspace(str(killed)), "embeddings")
    assert pairs(killed) == pairs(tmp_path / "whole")
    start = time.monotonic()
    log = run(killed, pool)
    assert "nothing to do" in log
    assert "embed" not in log
    print(f"a run with nothing to do took {time.monotonic() - start:.1f} s")
