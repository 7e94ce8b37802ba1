"""Vectors of a real pool, for the benchmarks that made-up ones would flatter.

They are read from the workspace that ``make pool WORKSPACE=DIR`` leaves, which the variable
MIXUP_BENCH_POOL names; a pool that is not embedded whole yet does as well.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

from mixup.stages.embed import vectors_from_arrow
from mixup.tables import read_files, snapshot
from mixup.workspace import open_workspace

POOL = os.environ.get("MIXUP_BENCH_POOL", "")
needs_pool = pytest.mark.skipif(
    not POOL, reason="MIXUP_BENCH_POOL names no workspace of `make pool`"
)


def real_vectors() -> np.ndarray:
    """The pool's unit vectors, float32 (N, D), in the order of a fixed shuffle."""
    workspace = open_workspace(POOL)
    rows = read_files(
        workspace, "embeddings", snapshot(workspace, "embeddings").paths, ["uid", "vector"]
    )
    rows = rows.filter(rows["vector"].is_valid()).sort_by("uid")
    vectors = vectors_from_arrow(rows["vector"])
    return vectors[np.random.default_rng(0).permutation(len(vectors))]
