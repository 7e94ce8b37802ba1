"""A job as a user runs it, in a process of its own: its start, its steps, and its end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from mixup.training.metrics import read_progress
from mixup.workspace import Workspace

ROOT = Path(__file__).parents[2]


def start(command: str, job: Path, *overrides: str) -> subprocess.Popen[str]:
    """``mixup COMMAND JOB``, in a session of its own, so that all it starts is found."""
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen(
        [sys.executable, "-m", "mixup", command, str(job), *overrides],
        env={**kept, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for the end of a job that must not fail; its output."""
    log, _ = process.communicate(timeout=300)
    assert process.returncode == 0, log[-6000:]
    return log


def session_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """What a job started and is left, itself included."""
    found = []
    for other in psutil.process_iter():
        try:
            if os.getsid(other.pid) == process.pid:
                found.append(other)
        except ProcessLookupError:
            continue
    return found


def wait_for_step(process: subprocess.Popen[str], workspace: str | Path, step: int) -> None:
    """Wait until the training of a job has come to a step."""
    while not is_at(Workspace(str(workspace)), step):
        assert process.poll() is None, process.communicate()[0][-6000:]
        time.sleep(0.05)


def is_at(workspace: Workspace, step: int) -> bool:
    """Whether the training of a workspace has come to a step."""
    names = workspace.list("checkpoints")
    found = read_progress(workspace, f"checkpoints/{names[0]}") if names else None
    return found is not None and found["step"] >= step


def end(process: subprocess.Popen[str]) -> None:
    """End what a test left running."""
    deadline = time.monotonic() + 60
    while left := [other for other in session_of(process) if other.status() != "zombie"]:
        if time.monotonic() > deadline or process.poll() is None:
            for other in left:
                other.kill()
        time.sleep(0.2)
    process.wait()
    if process.stdout:
        process.stdout.close()
