"""Raw text to pairs by rules, without embedding: pairs a second, the exponent, and memory.

    MIXUP_BENCH_SEGMENTS=5000,20000,100000 make bench ARGS="-k mixture_job"

Articles are made, each with facts of its own; every record gets a vector drawn by its key, so that
what is measured is all but the encoder. Prints figures, asserts that every row has an outcome.
"""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from made_mixture import item_files, mix_settings, text_files, write_articles
from made_pool import ENCODER
from memory import Memory

from mixup.actors.resources import cluster
from mixup.commits import write_file
from mixup.config import RayConfig
from mixup.lock import acquire
from mixup.mixture_config import TextConfig
from mixup.records import content_key
from mixup.stages.candidates import Teaching, teach_state
from mixup.stages.collect import collect, collect_state
from mixup.stages.embed import vectors_to_arrow
from mixup.stages.manifests import Manifest
from mixup.stages.mix import mix
from mixup.stages.near_segments import mark_near, near_state
from mixup.stages.run import RunContext
from mixup.stages.segment import segment_files
from mixup.stages.teach_rules import rules_teacher, teach_by_rules
from mixup.tables import read_files, snapshot
from mixup.workspace import Workspace, ensure_workspace

SIZES = [int(size) for size in os.environ.get("MIXUP_BENCH_SEGMENTS", "1000,4000").split(",")]
TASKS = ("qa", "mcq", "tfq", "cs", "para")
pytestmark = pytest.mark.timeout(7200)


def drawn_vectors(workspace: Workspace, table: str, bucket: int) -> Manifest:
    """A vector for each record of a bucket; runs in a worker."""
    uids = read_files(workspace, table, snapshot(workspace, table).in_bucket(bucket), ["uid"])
    keys = uids["uid"].to_pylist()
    vectors = np.stack(
        [np.random.default_rng(int(content_key(key)[:8], 16)).normal(size=64) for key in keys]
    ).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    count = len(keys)
    rows = pa.table(
        {
            "uid": keys,
            "encoder": [ENCODER] * count,
            "vector": vectors_to_arrow(vectors),
            "truncated": [False] * count,
            "reason": pa.nulls(count, pa.string()),
            "attempts": pa.array([1] * count, pa.int32()),
        }
    )
    return Manifest([write_file(workspace, "embeddings", rows, bucket)])


def build(place: Path, articles: int, memory: Memory) -> tuple[int, int, float]:
    """Segments, pairs and seconds of a mixture of so many articles."""
    write_articles(place / "a.jsonl", articles)
    files = text_files(place / "a.jsonl")
    workspace = ensure_workspace(str(place / "w"), buckets=max(8, articles // 4000))
    teacher = rules_teacher(0)
    names = [file.fingerprint for file in files]
    with acquire(workspace, "bench") as lease:
        context = RunContext(workspace, "bench", lease.token)

        def work() -> Teaching:
            tables = {name: snapshot(workspace, name) for name in ("segments", "candidates")}
            return Teaching(workspace, tables, names, TASKS, teacher, 0, None)

        start = time.monotonic()
        memory.phase = f"{articles} articles"
        context.committer("segments", "candidates")
        segment_files(context, TextConfig(max_tokens=256), files)
        mark_near(context, near_state(context, 0.8, names), 0.8, names)
        teach_by_rules(context, teach_state(context, work()), work())
        collect(context, collect_state(context, teacher, names), work(), files)
        until = time.monotonic()
        committer = context.committer("embeddings", "ratings")
        buckets = [("records", bucket) for bucket in snapshot(workspace, "records").buckets]
        for done in context.each(drawn_vectors, workspace, buckets):
            committer.add(done.files)
        committer.commit()
        embedded = time.monotonic()
        items = item_files(files)
        settings = mix_settings(items=frozenset(items), classes=dict.fromkeys(items, 5))
        counts = mix(RunContext(workspace, "bench", lease.token, tuple(items)), settings)
        seconds = time.monotonic() - start - (embedded - until)
    segments = sum(
        part.num_rows
        for bucket in range(workspace.buckets)
        for part in [
            read_files(
                workspace, "segments", snapshot(workspace, "segments").in_bucket(bucket), ["number"]
            )
        ]
    )
    return segments, counts.extra["pairs"], seconds


def test_mixture_of_made_text(tmp_path):
    memory = Memory()
    found = []
    with cluster(RayConfig(cpus=2)), memory.watched():
        for size in SIZES:
            (tmp_path / str(size)).mkdir()
            segments, pairs, seconds = build(tmp_path / str(size), size, memory)
            found.append((segments, seconds))
            print(f"  {segments:,} segments, {pairs:,} pairs, {seconds:.1f} s, ", end="")
            print(f"{pairs / seconds:.0f} pairs/s")
            print("\n".join(memory.lines(f"{size} articles")))
            assert pairs > segments
    (small, first), (large, last) = found[0], found[-1]
    print(f"  exponent {math.log(last / first) / math.log(large / small):.2f}")
    print(json.dumps(found))
