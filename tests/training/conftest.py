"""A Ray cluster for each file of tests, two CPUs as on the smallest machine.

One for all would hand on what a test leaves: the actors of a stage that stalls keep their CPUs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_training import write_examples, write_tiny_model

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
