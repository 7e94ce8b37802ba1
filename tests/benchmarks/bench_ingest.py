"""Ingest of one JSONL or Parquet file: rows per second, and the most memory of any process.

    BENCH_INGEST_BYTES=2e9 make bench ARGS="-k ingest"

Prints figures, asserts none of them.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from memory import Memory

from mixup.actors.resources import cluster
from mixup.config import IngestConfig, RayConfig
from mixup.lock import acquire
from mixup.records import content_key
from mixup.stages.ingest import ingest
from mixup.stages.run import RunContext
from mixup.stages.sources import find_files
from mixup.tables import row_count
from mixup.workspace import ensure_workspace

BYTES = int(float(os.environ.get("BENCH_INGEST_BYTES", "20e6")))


def made_rows(size: int) -> Iterator[bytes]:
    """Lines of about 700 bytes; one in 20 repeats an earlier one, one in 1,000 is broken."""
    draw = random.Random(0)
    words = [content_key(number)[: draw.randint(2, 10)] for number in range(5000)]
    texts = [" ".join(draw.choices(words, k=30)) for _ in range(5000)]
    made, number, last = 0, 0, b""
    while made < size:
        number += 1
        answer = "\n".join(draw.choices(texts, k=draw.randint(1, 4)))
        row = {"instruction": f"{number} {draw.choice(texts)}", "output": answer, "rating": 3}
        line = last if number % 20 == 0 else json.dumps(row).encode() + b"\n"
        if number % 1000 == 0:
            line = line[: len(line) // 2] + b"\n"
        yield line
        made, last = made + len(line), line


def write_jsonl(path: Path) -> None:
    with path.open("wb") as file:
        file.writelines(made_rows(BYTES))


def write_parquet(path: Path) -> None:
    """The same good rows, in one row group: the worst case of splitting."""
    values = [json.loads(line) for line in made_rows(BYTES // 4) if line.endswith(b"}\n")]
    pq.write_table(pa.Table.from_pylist(values), path, row_group_size=len(values))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("buckets", [1, 64])
@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_ingest_one_file(tmp_path, write, buckets):
    path = tmp_path / ("pool.parquet" if write is write_parquet else "pool.jsonl")
    write(path)
    workspace = ensure_workspace(str(tmp_path / "w"), buckets=buckets)
    config = IngestConfig(paths=[str(path)])
    memory = Memory()
    with acquire(workspace, "bench") as lease, cluster(RayConfig(cpus=2)), memory.watched():
        start = time.perf_counter()
        counts = ingest(
            RunContext(workspace, "bench", lease.token), config, find_files(config.paths)
        )
        seconds = time.perf_counter() - start
    assert row_count(workspace, "records") == counts.parts["new"]
    size = path.stat().st_size
    print(
        f"\n{path.name}, {size / 1e6:,.0f} MB, {buckets} bucket(s): {counts.rows_in:,} rows in "
        f"{seconds:.1f} s, {counts.rows_in / seconds:,.0f} rows/s, {size / 1e6 / seconds:.1f} MB/s"
    )
    print("\n".join(memory.lines()))
