"""One Ray cluster for all tests of this folder alone, two CPUs as on the smallest machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mixup.actors.resources import cluster
from mixup.config import RayConfig


@pytest.fixture(scope="package")
def ray_cluster() -> Iterator[None]:
    """A cluster as a run starts it."""
    with cluster(RayConfig(cpus=2, object_store_gb=0.5)):
        yield
