"""A Ray cluster for each file of tests, two CPUs as on the smallest machine.

One for all would hand on what a test leaves: the actors of a stage that stalls keep their CPUs.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mixup.actors.resources import cluster
from mixup.config import RayConfig


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """A cluster as a run starts it."""
    with cluster(RayConfig(cpus=2, object_store_gb=0.5)):
        yield
