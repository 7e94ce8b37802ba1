"""A Ray cluster for each file of tests, two CPUs as on the smallest machine.

One for all would hand on what a test leaves: the actors of a stage that stalls keep their CPUs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from job_processes import end
from tiny_grpo import write_pairs, write_tiny_distiller
from tiny_training import write_examples, write_tiny_model
from two_nodes import TwoNodes

from mixup.actors.resources import cluster
from mixup.config import RayConfig


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """A cluster as a run starts it."""
    with cluster(RayConfig(cpus=2, object_store_gb=0.5)):
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random model with a vocabulary of bytes."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `learn.jsonl` and `held_out.jsonl`."""
    return write_examples(tmp_path_factory.mktemp("examples"))


@pytest.fixture(scope="session")
def distiller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random model with the bundled one's tokenizer."""
    return write_tiny_distiller(tmp_path_factory.mktemp("distiller") / "m")


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `learn.jsonl`, `held_out.jsonl` and `rated.jsonl`."""
    return write_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture
def two_nodes() -> Iterator[Callable[[int], TwoNodes]]:
    """Starts a cluster of two nodes of so many CPUs, which is ended after the test."""
    with contextlib.ExitStack() as stack:

        def started(cpus: int) -> TwoNodes:
            nodes = TwoNodes(cpus)
            stack.callback(end, nodes.process)
            stack.callback(nodes.close)
            return nodes

        yield started
