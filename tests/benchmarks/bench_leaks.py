"""The search for pairs that are nearly in another split: pairs a second, the exponent, and memory.

    MIXUP_BENCH_SHARES=0.15,0.62 make bench ARGS="-k bench_leaks"

Pairs are made by rule of shares of the Wikipedia passages and of the instruction rows in
`../shared/data`; 0.62 of both are some 20,000 pairs. Skips with a reason where they are absent.
Prints figures, asserts that every pair has an outcome.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from figures import exponent
from made_mixture import text_files
from made_pairs import make_pairs
from memory import Memory
from whole_pool import DATA

from mixup.actors.resources import cluster
from mixup.config import RayConfig
from mixup.lock import acquire
from mixup.stages.leaks import leaks_state, note_leaks
from mixup.stages.run import RunContext
from mixup.stages.sources import find_files
from mixup.tables import row_count
from mixup.workspace import Workspace, ensure_workspace

SHARES = [float(share) for share in os.environ.get("MIXUP_BENCH_SHARES", "0.15,0.62").split(",")]
REPEATS = int(os.environ.get("MIXUP_BENCH_REPEATS", "2"))
TEXT, POOL = "wikipedia_passages", ("gpteacher", "alpaca_gpt4_en_demo_1k", "databricks_dolly_3k")
NEAR = 0.8

pytestmark = [
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no real rows at {DATA}"),
    pytest.mark.timeout(7200),
]


def build(place: Path, share: float) -> Workspace:
    """A workspace with the pairs of a share of the real rows."""
    for name in (TEXT, *POOL):
        rows = pq.read_table(DATA / f"{name}.parquet")
        pq.write_table(rows.slice(0, round(share * rows.num_rows)), place / f"{name}.parquet")
    workspace = ensure_workspace(str(place / "w"), buckets=8)
    pool = find_files([str(place / f"{name}.parquet") for name in POOL])
    make_pairs(workspace, text_files(place / f"{TEXT}.parquet"), pool)
    return workspace


def search(workspace: Workspace) -> tuple[float, int]:
    """Seconds of the stage, and the pairs that it leaves out."""
    with acquire(workspace, "bench") as lease:
        context = RunContext(workspace, "bench", lease.token)
        start = time.monotonic()
        counts = note_leaks(context, leaks_state(context, NEAR), NEAR)
        seconds = time.monotonic() - start
    assert counts.rows_in == row_count(workspace, "mixture")
    return seconds, counts.rows_in - counts.parts["kept"]


def test_leaks_of_real_rows(tmp_path: Path) -> None:
    memory, found = Memory(), []
    with cluster(RayConfig(cpus=2)), memory.watched():
        for share in SHARES:
            (tmp_path / f"{share}").mkdir()
            memory.phase = "making pairs"
            workspace = build(tmp_path / f"{share}", share)
            memory.phase = f"leaks {share}"
            runs = [search(workspace) for _ in range(REPEATS)]
            pairs = row_count(workspace, "mixture")
            seconds, left_out = min(runs)
            found.append((pairs, seconds))
            print(f"  {pairs:,} pairs, {row_count(workspace, 'segments'):,} segments: ", end="")
            print(f"{seconds:.1f} s, {pairs / seconds:,.0f} pairs/s, {left_out} left out")
            print("\n".join(memory.lines(memory.phase)))
    exponent(found)
