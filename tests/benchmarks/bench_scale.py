"""A large pool through cells, neighbors, curation and clustering: minutes, and peak memory.

    MIXUP_BENCH_POOL=DIR MIXUP_BENCH_ROWS=1e6 make bench ARGS="-k scale"

DIR is the workspace of ``make pool``. The rows are jittered copies of its vectors, a fifth of them
rated. Then one percent of rows is added: the cells that are done again and the clusters that stay
are printed. Prints figures, asserts that every row has an outcome.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from made_pool import settings
from memory import Memory
from real_vectors import needs_pool, real_vectors

from mixup.actors.resources import cluster
from mixup.commits import write_file
from mixup.config import RayConfig
from mixup.lock import acquire
from mixup.records import TABLES, bucket_of, content_key
from mixup.refresh_config import CurateConfig
from mixup.stages.curate import curate_and_cluster
from mixup.stages.embed import vectors_to_arrow
from mixup.stages.run import RunContext
from mixup.tables import read_files, snapshot
from mixup.workspace import Workspace, ensure_workspace

ROWS = int(float(os.environ.get("MIXUP_BENCH_ROWS", "20000")))
BUCKET_ROWS = 50_000
JITTER = 0.3
"""Length of the noise that is added to a unit vector: its copies have a cosine of about 0.9."""

pytestmark = [needs_pool, pytest.mark.timeout(7200)]
TASKS = ("qa", "cs", "para")


def jittered(vectors: np.ndarray, rows: int, draw: np.random.Generator) -> np.ndarray:
    """Copies of drawn vectors, each moved a little."""
    found = vectors[draw.integers(0, len(vectors), rows)]
    noise = draw.normal(size=found.shape).astype(np.float32)
    found = found + JITTER / np.sqrt(found.shape[1]) * noise
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def add_rows(workspace: Workspace, vectors: np.ndarray, first: int, rows: int, file: str) -> None:
    """Write so many rows, bucket by bucket."""
    context = RunContext(workspace, "made", 1)
    numbers = np.arange(first, first + rows)
    uids = np.array([content_key(int(number)) for number in numbers])
    buckets = np.array([bucket_of(uid, workspace.buckets) for uid in uids.tolist()])
    committer = context.committer("files", "occurrences", "records", "embeddings", "ratings")
    one = {"fingerprint": [file], "path": [file], "ingested_at": [datetime.now(UTC)]}
    committer.add([_file(workspace, "files", one, None)])
    for bucket in range(workspace.buckets):
        mine = np.flatnonzero(buckets == bucket)
        draw = np.random.default_rng([first, bucket])
        for name, columns in _columns(uids[mine], numbers[mine], vectors, draw, file).items():
            committer.add([_file(workspace, name, columns, bucket)])
    committer.commit()


def _columns(
    uids: np.ndarray, numbers: np.ndarray, vectors: np.ndarray, draw: np.random.Generator, file: str
) -> dict[str, dict]:
    rows = len(uids)
    turns = [
        [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}."}]
        for n in numbers.tolist()
    ]
    ratings = np.where(draw.random(rows) < 0.2, draw.integers(0, 6, rows), -1)
    rating = pa.array(ratings, pa.int8(), mask=ratings < 0)
    return {
        "occurrences": {"file": [file] * rows, "offset": numbers, "uid": uids},
        "records": {
            "uid": uids,
            "task": [TASKS[n % len(TASKS)] for n in numbers.tolist()],
            "turns": turns,
            "tokens": draw.integers(20, 400, rows),
        },
        "embeddings": {
            "uid": uids,
            "encoder": [MADE.encoder] * rows,
            "vector": vectors_to_arrow(jittered(vectors, rows, draw)),
        },
        "ratings": {"uid": uids, "rater": [MADE.rater] * rows, "rating": rating},
    }


MADE = settings(curate=CurateConfig())


def _file(workspace: Workspace, name: str, columns: dict, bucket: int | None):
    schema = TABLES[name].file_schema
    rows = len(next(iter(columns.values())))
    arrays = [
        pa.array(columns[field.name], field.type)
        if field.name in columns
        else pa.nulls(rows, field.type)
        for field in schema
    ]
    return write_file(workspace, name, pa.table(arrays, schema=schema), bucket)


def curated(workspace: Workspace, pool: tuple[str, ...]) -> tuple[dict, Memory, float]:
    memory = Memory()
    with acquire(workspace, "bench") as lease, cluster(RayConfig(cpus=2)), memory.watched():
        start = time.perf_counter()
        counts, clusters = curate_and_cluster(
            RunContext(workspace, "bench", lease.token, pool), MADE
        )
        seconds = time.perf_counter() - start
    return {"rows": counts.rows_in, **counts.extra, **clusters.extra}, memory, seconds


def cluster_keys(workspace: Workspace) -> set[str]:
    paths = snapshot(workspace, "clusters").paths
    return set(read_files(workspace, "clusters", paths, ["cluster"])["cluster"].to_pylist())


def test_scale(tmp_path: Path) -> None:
    vectors = real_vectors()
    buckets = max(1, ROWS // BUCKET_ROWS)
    workspace = ensure_workspace(str(tmp_path / "w"), buckets=buckets)
    add_rows(workspace, vectors, 0, ROWS, "first")
    counts, memory, seconds = curated(workspace, ("first",))
    assert counts["rows"] == ROWS
    _show(f"{ROWS:,} rows of {vectors.shape[1]} dimensions", counts, memory, seconds)
    before = cluster_keys(workspace)
    more = max(1, ROWS // 100)
    add_rows(workspace, vectors, ROWS, more, "second")
    counts, memory, seconds = curated(workspace, ("first", "second"))
    assert counts["rows"] == ROWS + more
    after = cluster_keys(workspace)
    _show(f"{more:,} rows more", counts, memory, seconds)
    print(f"    clusters that stay: {len(before & after) / max(1, len(before)):.4f}")
    print(f"    clusters to distill: {len(after - before) / max(1, len(after)):.4f}")


def _show(title: str, counts: dict, memory: Memory, seconds: float) -> None:
    print(f"\n{title}: {seconds / 60:.1f} minutes, {counts['rows'] / seconds:,.0f} rows/s")
    print(f"    {counts}")
    print("\n".join(memory.lines()))
