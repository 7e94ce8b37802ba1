"""Vectors of a real pool, for the benchmarks that made-up ones would flatter.

They are read from the workspace that ``make pool WORKSPACE=DIR`` leaves, which the variable
MIXUP_BENCH_POOL names; a pool that is not embedded whole yet does as well.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from mixup.models.bundled import MINILM
from mixup.models.encoder import SentenceEncoder
from mixup.records import content_key
from mixup.stages.embed import vectors_from_arrow
from mixup.tables import read_files, snapshot
from mixup.workspace import open_workspace

POOL = os.environ.get("MIXUP_BENCH_POOL", "")
needs_pool = pytest.mark.skipif(
    not POOL, reason="MIXUP_BENCH_POOL names no workspace of `make pool`"
)


def real_vectors() -> np.ndarray:
    """The pool's unit vectors, float32 (N, D), in the order of a fixed shuffle."""
    vectors = vectors_from_arrow(_embedded()["vector"])
    return vectors[np.random.default_rng(0).permutation(len(vectors))]


def vectors_of(uids: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """The vectors of some records, (N, D): those of the pool, else of the bundled encoder.

    What had to be embedded is kept in the temporary folder for the next call.

    Args:
        uids: N uids.
        texts: What the encoder reads of each.
    """
    found: dict[str, np.ndarray] = {}
    if POOL:
        rows = _embedded()
        rows = rows.filter(pc.is_in(rows["uid"], value_set=pa.array(uids, pa.string())))
        found = dict(zip(rows["uid"].to_pylist(), vectors_from_arrow(rows["vector"]), strict=True))
    missing = [at for at, uid in enumerate(uids) if uid not in found]
    if missing:
        names = [uids[at] for at in missing]
        made = _made(names, [texts[at] for at in missing])
        found |= dict(zip(names, made, strict=True))
    return np.array([found[uid] for uid in uids])


def _embedded() -> pa.Table:
    workspace = open_workspace(POOL)
    paths = snapshot(workspace, "embeddings").paths
    rows = read_files(workspace, "embeddings", paths, ["uid", "vector"])
    return rows.filter(rows["vector"].is_valid()).sort_by("uid")


def _made(uids: list[str], texts: list[str]) -> np.ndarray:
    kept = Path(tempfile.gettempdir()) / f"mixup-bench-{content_key(MINILM, uids)}.npy"
    if not kept.exists():
        print(f"\nembedding {len(texts):,} rows once, at about 30 a second; kept as {kept}")
        np.save(kept, SentenceEncoder(MINILM, cpus=2).encode(texts).vectors_ND)
    return np.load(kept, allow_pickle=False)
