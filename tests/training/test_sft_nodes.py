"""Two nodes with a worker each; one is killed in the middle, and another one takes its place."""

from __future__ import annotations

import pytest
from job_processes import end, finish, start, wait_for_step
from test_sft_resume import (
    assert_same,
    model,  # noqa: F401  a fixture
    state,
    undisturbed,  # noqa: F401  a fixture
    write_job,
)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_node_that_is_killed_changes_nothing(
    undisturbed,  # noqa: F811
    two_nodes,
    model,  # noqa: F811
    examples,
    tmp_path,
):
    nodes = two_nodes(1)  # so that each has room for one worker
    job = write_job(tmp_path, model, examples, ray={"address": nodes.address})
    process = start("train-sft", job)
    try:
        wait_for_step(process, tmp_path / "w", 12)
        nodes.do("kill")
        nodes.do("add")
        finish(process)
    finally:
        end(process)
    assert_same(state(undisturbed), state(tmp_path))
