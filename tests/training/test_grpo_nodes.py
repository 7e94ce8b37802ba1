"""Two nodes with a rank each, and an engine on one of them: the same is learned as on one node."""

from __future__ import annotations

import pytest
from job_processes import end, finish, session_of, start, wait_for_step
from test_train_grpo import assert_learned_the_same, trained  # noqa: F401  a fixture
from tiny_grpo import grpo_config


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_ranks_on_two_nodes_learn_the_same(
    trained,  # noqa: F811
    two_nodes,
    distiller,
    pairs,
    tmp_path,
):
    nodes = two_nodes(2)
    # A node of 2 CPUs has no room for both ranks; engine and rewards, 0.95 in all, fit anywhere.
    config = grpo_config(tmp_path / "w", distiller, pairs, "workers.cpus=1.1")
    process = start(
        "train-grpo", tmp_path / "w.yaml", "workers.cpus=1.1", f"ray.address={nodes.address}"
    )
    try:
        wait_for_step(process, config.workspace, 1)
        ranks = [
            other
            for other in session_of(nodes.process)
            if "RayTrainWorker" in " ".join(other.cmdline())
        ]
        assert len({rank.ppid() for rank in ranks}) == len(ranks) == 2  # each of another raylet
        finish(process)
    finally:
        end(process)
    assert_learned_the_same(config, trained)
