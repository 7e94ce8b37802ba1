"""Faults on Ray: actors that are killed are replaced, and a row that kills them is given up."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
import ray.data
from ray import cloudpickle

from mixup.actors.deaths import CRASHED, Guard
from mixup.actors.logs import last_lines
from mixup.actors.resources import cluster
from mixup.config import RayConfig
from mixup.errors import StalledError
from mixup.stages.cover import ActorPool, cover_buckets
from mixup.stages.manifests import Manifest, Stall, commit_stream


@pytest.fixture(autouse=True)
def _by_value() -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import it


class _Mortal:
    """Dies of row 13, each time; and of nothing in particular, once, at row 20."""

    def __init__(self, folder: str) -> None:
        self._guard = Guard.of_actor("a test actor")
        self._folder = Path(folder)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = batch["x"].to_pylist()
        found = self._guard.run(
            [str(row) for row in rows], lambda places: [self._work(rows[at]) for at in places]
        )
        done = [CRASHED if result is None else result for result in found]
        return batch.append_column("done", pa.array(done))

    def _work(self, row: int) -> str:
        once = self._folder / "died"
        if row == 13 or (row == 20 and not once.exists()):
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"


def _forty_rows(batch: pa.Table):
    yield pa.table({"x": list(range(40))})


def _note(batch: pa.Table) -> pa.Table:
    counts = {
        f"{row}:{done}": 1 for row, done in batch.select(["x", "done"]).to_pandas().to_numpy()
    }
    return Manifest(counts=counts).to_table()


@pytest.mark.usefixtures("ray_cluster")
def test_a_row_that_kills_its_actor_is_given_up_and_costs_no_other(tmp_path: Path):
    pool = ActorPool(_Mortal, (str(tmp_path),), size=1, batch_rows=16, cpus=1.0, calls=2)
    seen: dict[str, int] = {}
    for manifest in cover_buckets([0], _forty_rows, pool, _note):
        seen.update(manifest.counts)
    expected = {f"{row}:{CRASHED if row == 13 else 'done'}": 1 for row in range(40)}
    assert seen == expected


class _Stuck:
    """Says something, then works for ever."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        print("loading shard 3 of 4", file=sys.stderr, flush=True)
        time.sleep(600)
        return batch


class _Nothing:
    def add(self, files, removed=None) -> None: ...

    def commit(self) -> None: ...


@pytest.mark.usefixtures("ray_cluster")
def test_a_stalled_stage_fails_with_the_actors_last_lines_and_ends_with_its_cluster():
    pool = ActorPool(_Stuck, (), size=1, batch_rows=16, cpus=1.0)
    stall = Stall(15.0, partial(last_lines, _Stuck.__name__))
    with cluster(RayConfig()):
        stream = cover_buckets([0], _forty_rows, pool, _note)
        with pytest.raises(StalledError, match="distill: no row finished for 15 s") as stalled:
            commit_stream(stream, _Nothing(), stage="distill", unit="rows", stall=stall)  # type: ignore[arg-type]
        assert _executions()  # Ray Data's, which still waits for the actor
    assert "loading shard 3 of 4" in stalled.value.details
    assert not _executions()


@pytest.mark.usefixtures("ray_cluster")
def test_an_execution_that_was_there_before_a_run_outlives_it():
    def slowly(row: dict) -> dict:
        time.sleep(1.0)
        return row

    rows = iter(ray.data.range(4, override_num_blocks=4).map(slowly, num_cpus=1).iter_rows())
    found = [next(rows)]
    with cluster(RayConfig()):
        pass
    assert sorted(row["id"] for row in [*found, *rows]) == [0, 1, 2, 3]


def _executions() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("StreamingExecutor")]
