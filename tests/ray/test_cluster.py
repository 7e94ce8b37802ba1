"""The cluster of a run: what is left in this process after its end."""

from __future__ import annotations

import pytest
import ray
from ray.exceptions import RaySystemError

from mixup.actors.resources import cluster
from mixup.config import RayConfig


def test_nothing_starts_a_cluster_of_its_own_after_the_end():
    with cluster(RayConfig(cpus=1, object_store_gb=0.1)):
        assert ray.get(ray.put(1)) == 1
    with pytest.raises(RaySystemError, match="Ray has not been started"):
        ray.put(1)
    assert not ray.is_initialized()
