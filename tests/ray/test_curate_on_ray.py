"""Curation of many cells on Ray comes to the same as one call after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_pool
import pytest
from made_pool import Row, add, in_process, make_workspace, rows_of, settings

from mixup.lock import acquire
from mixup.refresh_config import CurateConfig
from mixup.stages.curate import curate_and_cluster, curate_state
from mixup.stages.manifests import Stall
from mixup.stages.run import RunContext, Runner, on_ray

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


def ending_early(
    function: Callable[..., Any], shared: object, arguments: Sequence[tuple], stall: Stall
) -> Iterator[Any]:
    """A runner whose run ends when one bucket's outcomes are there."""
    for number, found in enumerate(on_ray(function, shared, arguments, stall)):
        if function.__name__ == "gather_curation" and number == 1:
            raise KeyboardInterrupt
        yield found


@pytest.mark.usefixtures("ray_cluster")
def test_a_change_of_settings_that_was_interrupted_is_not_taken_for_done(tmp_path: Path):
    workspace = make_workspace(tmp_path / "w", 4)
    add(workspace, POOL)
    with acquire(workspace, "r") as lease:
        context = RunContext(workspace, "r", lease.token, ("file-1",), commit_interval_s=0.0)
        curate_and_cluster(context, MADE)
        assert curate_state(context, MADE).is_current
        other = settings(curate=CurateConfig(min_rated=4, neighbors=3, cell_rows=60))
        with pytest.raises(KeyboardInterrupt):
            curate_and_cluster(replace(context, runner=ending_early), other)
        assert not curate_state(context, MADE).is_current
        assert not curate_state(context, other).is_current
        curate_and_cluster(context, MADE)
        assert curate_state(context, MADE).is_current
