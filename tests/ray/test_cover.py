"""Cover on Ray: what is missing is found and done, batch by batch, in bounded memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from ray import cloudpickle
from ray.data._internal.execution import streaming_executor_state as module

from mixup.actors.ray_data import Looks
from mixup.commits import Completion, write_by_bucket
from mixup.cover import uncovered
from mixup.lock import acquire
from mixup.stages.cover import ActorPool, cover_buckets
from mixup.stages.manifests import Manifest, commit_stream
from mixup.stages.run import RunContext
from mixup.tables import read_files, row_count, snapshot
from mixup.workspace import Workspace, ensure_workspace

PATIENCE_S = 60.0


class _Waiting:
    """Works on its second batch only once the driver has seen what came of the first."""

    def __init__(self, seen: str) -> None:
        self._seen, self._calls = Path(seen), 0

    def __call__(self, batch: pa.Table) -> pa.Table:
        self._calls += 1
        deadline = time.monotonic() + PATIENCE_S
        while self._calls > 1 and not self._seen.exists():
            if time.monotonic() > deadline:
                raise TimeoutError("the first batch never reached the driver")
            time.sleep(0.05)
        return batch


def _forty_rows(batch: pa.Table):
    yield pa.table({"x": list(range(40))})


def _note(batch: pa.Table) -> pa.Table:
    return Manifest(counts={"rows": batch.num_rows}).to_table()


@pytest.mark.usefixtures("ray_cluster")
def test_a_large_block_reaches_the_driver_in_the_actors_batches(tmp_path: Path):
    """One task's rows are one block; they must not come back all at once at the end.

    The actor books all but what the light tasks need, as an engine on a laptop does.
    """
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import it
    seen = tmp_path / "seen"
    pool = ActorPool(_Waiting, (str(seen),), size=1, batch_rows=8, cpus=1.7)
    rows = []
    for manifest in cover_buckets([0], _forty_rows, pool, _note):
        seen.touch()
        rows.append(manifest.counts["rows"])
    assert rows == [8] * 5


def test_no_bucket_no_ray():
    assert list(cover_buckets([], _forty_rows, None, _note)) == []


def missing_uids(batch: pa.Table, workspace: Workspace, tables: dict):
    for bucket in batch["bucket"].to_pylist():
        held = {
            name: read_files(workspace, name, tables[name].in_bucket(bucket), columns)
            for name, columns in (
                ("records", ["uid"]),
                ("ratings", ["uid", "reason", "attempts"]),
            )
        }
        yield uncovered(held["records"], held["ratings"], "uid")


def write_outcomes(batch: pa.Table, workspace: Workspace) -> pa.Table:
    count = batch.num_rows
    blank = pa.nulls(count, pa.float32())
    rows = pa.table(
        {
            "uid": batch["uid"],
            "rater": ["trivial"] * count,
            "rarity": blank,
            "complexity": blank,
            "informativeness": blank,
            "overall": blank,
            "rating": pa.nulls(count, pa.int8()),
            "source": ["trivial"] * count,
            "reason": ["trivial"] * count,
            "attempts": pa.array([1] * count, pa.int32()),
        }
    )
    files = write_by_bucket(workspace, "ratings", rows)
    return Manifest(files, counts={"rows": count}).to_table()


def cover_trivially(workspace: Workspace, run: str) -> int:
    """Cover all records with a trivial outcome; how many were missing."""
    with acquire(workspace, run) as lease:
        context = RunContext(workspace, run, lease.token)
        tables = {name: snapshot(workspace, name) for name in ("records", "ratings")}
        totals = commit_stream(
            cover_buckets(
                tables["records"].buckets,
                partial(missing_uids, workspace=workspace, tables=tables),
                None,
                partial(write_outcomes, workspace=workspace),
            ),
            context.committer("ratings"),
            stage="trivial",
            unit="rows",
        )
        done = Completion("trivial", "f", {}, dict(totals), run)
        context.committer("ratings").complete("ratings", done)
    return totals["rows"]


def make_records(workspace: Workspace, rows: int) -> None:
    """Write small records, a bucket at a time; keys are spread evenly over the buckets."""
    step = (1 << 32) // rows
    per_bucket = rows // workspace.buckets
    with acquire(workspace, "make") as lease:
        committer = RunContext(workspace, "make", lease.token).committer("records")
        for bucket in range(workspace.buckets):
            first = bucket * per_bucket
            uids = [f"{place * step:08x}{place:024x}" for place in range(first, first + per_bucket)]
            turns = [[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]]
            table = pa.table(
                {
                    "uid": uids,
                    "task": ["qa"] * per_bucket,
                    "language": pa.nulls(per_bucket, pa.string()),
                    "turns": turns * per_bucket,
                    "tokens": pa.array([2] * per_bucket, pa.int32()),
                }
            )
            committer.add(write_by_bucket(workspace, "records", table))
        committer.commit()


def main() -> None:
    """Cover a pool of argv[2] records in argv[1]; prints missing rows and the driver's memory."""
    import psutil

    from mixup.actors.resources import cluster
    from mixup.config import RayConfig

    workspace = ensure_workspace(sys.argv[1], buckets=16)
    with cluster(RayConfig(cpus=2, object_store_gb=0.5)):
        before = cover_trivially(workspace, "first")
        again = cover_trivially(workspace, "second")
        memory = psutil.Process(os.getpid()).memory_info().rss
    print(json.dumps({"first": before, "second": again, "rss": memory}))


@pytest.mark.timeout(280)
def test_the_driver_does_not_grow_with_the_pool(tmp_path: Path):
    """From 10,000 to 1,000,000 records the driver's memory grows by less than 50 MB."""
    rss: dict[int, int] = {}
    for rows in (10_000, 1_000_000):
        place = tmp_path / str(rows)
        make_records(ensure_workspace(str(place), buckets=16), rows // 16 * 16)
        done = subprocess.run(
            [sys.executable, __file__, str(place)],
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["first"] == rows // 16 * 16
        assert found["second"] == 0
        workspace = ensure_workspace(str(place), buckets=16)
        assert row_count(workspace, "ratings") == rows // 16 * 16
        rss[rows] = found["rss"]
    growth_mb = (rss[1_000_000] - rss[10_000]) / 1e6
    print(f"driver: {rss[10_000] / 1e6:.0f} MB, then {growth_mb:+.1f} MB for 100 times the records")
    assert growth_mb < 50


class _Sleeper:
    """Takes seconds, in which nothing else happens."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        time.sleep(6)
        return batch


@pytest.mark.usefixtures("ray_cluster")
def test_the_driver_looks_ever_later_while_nothing_changes(monkeypatch: pytest.MonkeyPatch):
    """``Looks`` sets a private constant of Ray Data's; a release may move it."""
    looks: list[tuple[float, float]] = []
    step = Looks.on_execution_step

    def noted(self: Looks, executor: Any) -> None:
        step(self, executor)
        looks.append((time.monotonic(), module.WAIT_FOR_TASK_COMPLETION_TIMEOUT_S))

    monkeypatch.setattr(Looks, "on_execution_step", noted)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import it
    pool = ActorPool(_Sleeper, (), 1, 40, 1.0)
    assert len(list(cover_buckets([0], _forty_rows, pool, _note))) == 1
    waits = [wait for _, wait in looks]
    assert waits[0] == min(waits) == pytest.approx(0.1)
    assert max(waits) > 0.4  # a tenth of the six seconds
    start = looks[0][0]
    assert all(wait <= max(0.1, 0.1 * (at - start)) + 0.05 for at, wait in looks)
    late = [after - before for (before, wait), (after, _) in pairwise(looks) if wait > 0.4]
    assert max(late) > 0.39  # it is what Ray Data waits
    peak = waits.index(max(waits))
    assert min(waits[peak:]) == pytest.approx(0.1)  # what ends has it look often again


if __name__ == "__main__":
    main()
