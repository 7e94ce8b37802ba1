"""The rows of the pool as cells need them: what is known of each record, and its vector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixup.selection.licences import union
from mixup.stages.cell import CellSettings
from mixup.stages.decontaminate import contamination_of
from mixup.stages.embed import vectors_from_arrow
from mixup.stages.pool import pool_by_age
from mixup.tables import Snapshot, read_files, scan_files
from mixup.workspace import Workspace

POOLED = ("occurrences", "records", "embeddings", "ratings", "contamination")
"""The tables that decide where a row belongs and what becomes of it."""

_VECTORS = ("uid", "encoder", "reason", "vector")


def pool_rows(
    workspace: Workspace,
    tables: Mapping[str, Snapshot],
    bucket: int | None,
    pool: Sequence[str],
    settings: CellSettings,
) -> pa.Table:
    """The records of one bucket that are in the pool, one row each: all but texts and vectors.

    Columns: ``uid``; ``file``, ``rank``, ``offset`` and ``source`` of its oldest occurrence;
    ``licence``, the union over its occurrences; ``rating``, null where unrated; ``contaminated``;
    and ``usable``, whether it has a vector.
    """
    found = pool_by_age(workspace, tables, bucket, pool)
    licences: dict[str, set[str]] = {}
    for uid, licence in zip(found["uid"].to_pylist(), found["licence"].to_pylist(), strict=True):
        licences.setdefault(uid, set()).add(licence)
    uids = pa.array(list(licences), pa.string())
    first = found.take(rows_of_uids(uids, found))
    ratings = _of(workspace, tables, "ratings", bucket, ["uid", "rater", "rating"])
    ratings = ratings.filter(pc.equal(ratings["rater"], settings.rater))
    vectors = _of(workspace, tables, "embeddings", bucket, ["uid", "encoder", "reason"])
    vectors = vectors.filter(is_usable(vectors, settings))
    return pa.table(
        {
            "uid": uids,
            "file": first["file"],
            "rank": first["rank"],
            "offset": first["offset"],
            "source": first["source"],
            "licence": pa.array([union(found) for found in licences.values()], pa.string()),
            "rating": ratings["rating"].combine_chunks().take(rows_of_uids(uids, ratings)),
            "contaminated": pc.is_in(uids, _contaminated(workspace, tables, bucket, settings)),
            "usable": pc.is_in(uids, vectors["uid"].combine_chunks()),
        }
    )


def is_usable(embeddings: pa.Table, settings: CellSettings) -> pa.ChunkedArray:
    """Which rows of the table of embeddings hold a vector of the encoder."""
    return pc.and_(
        pc.equal(embeddings["encoder"], settings.encoder), pc.is_null(embeddings["reason"])
    )


def vectors_of(
    workspace: Workspace,
    tables: Mapping[str, Snapshot],
    bucket: int | None,
    wanted: pa.Array,
    settings: CellSettings,
) -> Iterable[pa.Table]:
    """The uids and vectors of the wanted rows of one bucket, a row group at a time."""
    if not len(wanted):
        return
    paths = tables["embeddings"].in_bucket(bucket)
    for part in scan_files(workspace, "embeddings", paths, _VECTORS):
        mine = part.filter(pc.and_(is_usable(part, settings), pc.is_in(part["uid"], wanted)))
        if mine.num_rows:
            yield mine.select(["uid", "vector"])


def _of(
    workspace: Workspace,
    tables: Mapping[str, Snapshot],
    name: str,
    bucket: int | None,
    columns: list[str],
) -> pa.Table:
    found = tables[name]
    paths = found.paths if bucket is None else found.in_bucket(bucket)
    return read_files(workspace, name, paths, columns)


def rows_of_uids(uids: pa.Array, rows: pa.Table) -> pa.Array:
    """For each uid the first row of a table that has it; null where there is none."""
    return pc.index_in(uids, rows["uid"].combine_chunks())


def _contaminated(
    workspace: Workspace,
    tables: Mapping[str, Snapshot],
    bucket: int | None,
    settings: CellSettings,
) -> pa.Array:
    if settings.questions is None:
        return pa.array([], pa.string())
    hits = contamination_of(
        workspace, tables["contamination"], bucket, settings.questions, only_hits=True
    )
    return hits["uid"].combine_chunks()


def uniform(uid: str) -> float:
    """A number from 0 to 1 that a row's key decides, for draws that depend on nothing else."""
    return int(uid[-8:], 16) / (1 << 32)


def drawn_vectors(
    workspace: Workspace, tables: Mapping[str, Snapshot], settings: CellSettings, share: float
) -> tuple[list[str], np.ndarray]:
    """The uids and vectors of a share of all rows with a vector, drawn by their keys."""
    uids: list[str] = []
    vectors: list[np.ndarray] = []
    for part in scan_files(workspace, "embeddings", tables["embeddings"].paths, _VECTORS):
        mine = part.filter(is_usable(part, settings))
        drawn = [uniform(uid) < share for uid in mine["uid"].to_pylist()]
        mine = mine.filter(pa.array(drawn, pa.bool_()))
        if mine.num_rows:
            uids += mine["uid"].to_pylist()
            vectors.append(vectors_from_arrow(mine["vector"]))
    return uids, np.concatenate(vectors) if vectors else np.empty((0, 0), np.float32)
