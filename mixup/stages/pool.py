"""The pool of a run within one bucket: which records belong to it, and what is missing for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from mixup.cover import uncovered
from mixup.tables import Snapshot, read_files, scan_files
from mixup.workspace import Workspace


def pool_occurrences(
    workspace: Workspace,
    occurrences: Snapshot,
    bucket: int | None,
    pool: Sequence[str],
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """The occurrences of one bucket in the pool's files: all columns, or some with ``file``."""
    rows = read_files(workspace, "occurrences", occurrences.in_bucket(bucket), columns)
    return rows.filter(pc.is_in(rows["file"], value_set=pa.array(pool, pa.string())))


def pool_by_age(
    workspace: Workspace, tables: Mapping[str, Snapshot], bucket: int | None, pool: Sequence[str]
) -> pa.Table:
    """The pool's occurrences, those of one bucket or (None) all, in the order in which they came.

    That is the order in which their files were read, then the files' paths, then the offsets.
    """
    columns = ["fingerprint", "ingested_at", "path"]
    files = read_files(workspace, "files", tables["files"].paths, columns)
    files = files.sort_by([("ingested_at", "ascending"), ("path", "ascending")])
    rank = {file: place for place, file in enumerate(files["fingerprint"].to_pylist())}
    found = tables["occurrences"]
    paths = found.paths if bucket is None else found.in_bucket(bucket)
    columns = ["file", "offset", "uid", "source", "licence", "extra"]
    rows = read_files(workspace, "occurrences", paths, columns)
    rows = rows.filter(pc.is_in(rows["file"], value_set=pa.array(pool, pa.string())))
    ranks = pa.array([rank[file] for file in rows["file"].to_pylist()], pa.int64())
    rows = rows.append_column("rank", ranks)
    return rows.sort_by([("rank", "ascending"), ("offset", "ascending")])


def missing_keys(
    workspace: Workspace,
    candidates: pa.Array | pa.ChunkedArray,
    outcomes: Snapshot,
    bucket: int | None,
    *,
    key: str,
    where: tuple[str, str] | None = None,
) -> pa.Table:
    """The candidate keys of one bucket without a final outcome, with the attempts made so far.

    Args:
        workspace: The workspace.
        candidates: Distinct keys.
        outcomes: The table that would hold them.
        bucket: The bucket.
        key: The key's column.
        where: A column and the value its outcomes must have, such as the encoder's revision.
    """
    columns = [key, "reason", "attempts", *([where[0]] if where else [])]
    held = read_files(workspace, outcomes.table, outcomes.in_bucket(bucket), columns)
    if where:
        held = held.filter(pc.equal(held[where[0]], where[1]))
    return uncovered(pa.table({key: candidates}), held, key)


def records_of(
    workspace: Workspace, records: Snapshot, bucket: int | None, wanted: pa.Table
) -> Iterator[pa.Table]:
    """The records of one bucket whose uid is wanted, a row group at a time, with their attempts."""
    attempts = dict(zip(wanted["uid"].to_pylist(), wanted["attempts"].to_pylist(), strict=True))
    uids = pa.array(list(attempts), pa.string())
    for part in scan_files(workspace, "records", records.in_bucket(bucket)):
        found = part.filter(pc.is_in(part["uid"], value_set=uids))
        if found.num_rows:
            made = [attempts[uid] for uid in found["uid"].to_pylist()]
            yield found.append_column("attempts", pa.array(made, pa.int32()))
