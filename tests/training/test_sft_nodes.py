"""Two nodes with a worker each; one is killed in the middle, and another one takes its place."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_sft_resume import (
    assert_same,
    end,
    finish,
    model,  # noqa: F401  a fixture
    start,
    state,
    undisturbed,  # noqa: F401  a fixture
    wait_for_step,
    write_job,
)


@pytest.fixture
def nodes() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "two_nodes.py")],
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
        ask(process, "")
        process.wait(timeout=60)
    finally:
        process.kill()
        end(process)


def ask(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{word}\n")
    process.stdin.flush()


def said(process: subprocess.Popen[str], word: str) -> str:
    """The rest of the line that begins with a word."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(word):
            return line.removeprefix(word).strip()
    raise AssertionError(f"the cluster ended before it said {word!r}")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_node_that_is_killed_changes_nothing(
    undisturbed,  # noqa: F811
    nodes,
    model,  # noqa: F811
    examples,
    tmp_path,
):
    address = said(nodes, "address")
    process = start(write_job(tmp_path, model, examples, ray={"address": address}))
    try:
        wait_for_step(process, tmp_path, 12)
        ask(nodes, "kill")
        said(nodes, "done kill")
        ask(nodes, "add")
        said(nodes, "done add")
        finish(process)
    finally:
        end(process)
    assert_same(state(undisturbed), state(tmp_path))
