"""Curation of many cells on Ray comes to the same as one call after another."""

from __future__ import annotations

from pathlib import Path

import made_pool
import pytest
from made_pool import Row, add, in_process, make_workspace, rows_of, settings

from mixup.config import CurateConfig
from mixup.stages.run import Runner, on_ray

POOL = [
    Row(f"r{topic}-{variant}", topic, variant, overall=(2.0, 9.0, None)[variant % 3])
    for topic in range(12)
    for variant in range(25)
]
MADE = settings(curate=CurateConfig(min_rated=4, neighbors=3, cell_rows=40))


def curated(path: Path, buckets: int, runner: Runner) -> list[list[dict]]:
    """The rows of curation and clusters, by key."""
    workspace = make_workspace(path, buckets)
    add(workspace, POOL)
    counts = made_pool.curate(workspace, made=MADE, runner=runner)
    assert counts["cells"] == counts["cells_done"] >= 8
    tables = {"curation": "uid", "clusters": "cluster"}
    return [
        sorted(rows_of(workspace, name), key=lambda row: row[by]) for name, by in tables.items()
    ]


@pytest.mark.usefixtures("ray_cluster")
def test_the_outcome_is_that_of_any_order_of_cells_and_buckets(tmp_path: Path):
    plain = curated(tmp_path / "plain", 1, in_process)
    assert curated(tmp_path / "ray", 4, on_ray) == plain
