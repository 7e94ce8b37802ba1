"""Pairs by the stages of the mixture job, without an encoder and a judge.

Every record gets a vector drawn by its key, and every row of a pool counts as of the highest class.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from made_mixture import item_files, mix_settings
from made_pool import ENCODER
from ray import cloudpickle

from mixup.commits import write_file
from mixup.config import IngestConfig
from mixup.lock import acquire
from mixup.mixture_config import TextConfig
from mixup.records import content_key
from mixup.stages.candidates import Teaching, teach_state
from mixup.stages.collect import collect, collect_state
from mixup.stages.embed import vectors_to_arrow
from mixup.stages.ingest import ingest
from mixup.stages.manifests import Manifest
from mixup.stages.mix import mix
from mixup.stages.near_segments import mark_near, near_state
from mixup.stages.run import RunContext
from mixup.stages.segment import segment_files
from mixup.stages.sources import SourceFile
from mixup.stages.teach_rules import rules_teacher, teach_by_rules
from mixup.tables import read_files, snapshot
from mixup.workspace import Workspace

TASKS = ("qa", "mcq", "tfq", "cs", "para")


class MadePairs(NamedTuple):
    """What was made, and the seconds that it took without the vectors."""

    pairs: int
    seconds: float


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


def make_pairs(
    workspace: Workspace, texts: Sequence[SourceFile], pool: Sequence[SourceFile] = ()
) -> MadePairs:
    """Fill the tables ``segments`` and ``mixture`` from raw text and a pool."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import it
    teacher = rules_teacher(0)
    names = [file.fingerprint for file in texts]

    def work() -> Teaching:
        tables = {name: snapshot(workspace, name) for name in ("segments", "candidates")}
        return Teaching(workspace, tables, names, TASKS, teacher, 0, None)

    with acquire(workspace, "bench") as lease:
        context = RunContext(workspace, "bench", lease.token)
        start = time.monotonic()
        context.committer("segments", "candidates")
        if pool:
            ingest(context, IngestConfig(paths=[file.path for file in pool]), pool)
        segment_files(context, TextConfig(), texts)
        mark_near(context, near_state(context, 0.8, names), 0.8, names)
        teach_by_rules(context, teach_state(context, work()), work())
        collect(context, collect_state(context, teacher, names), work(), texts)
        until = time.monotonic()
        committer = context.committer("embeddings", "ratings")
        buckets = [("records", bucket) for bucket in snapshot(workspace, "records").buckets]
        for done in context.each(drawn_vectors, workspace, buckets):
            committer.add(done.files)
        committer.commit()
        embedded = time.monotonic()
        items = item_files(texts)
        used = [*items, *(file.fingerprint for file in pool)]
        settings = mix_settings(items=frozenset(items), classes=dict.fromkeys(used, 5))
        counts = mix(RunContext(workspace, "bench", lease.token, tuple(used)), settings)
        seconds = time.monotonic() - start - (embedded - until)
    return MadePairs(counts.extra["pairs"], seconds)
