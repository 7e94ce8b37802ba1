"""The pool of a run within one bucket: which records belong to it, and what is missing for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from mixup.tables import Snapshot, read_files, scan_files, uncovered
from mixup.workspace import Workspace


def pool_occurrences(
    workspace: Workspace, occurrences: Snapshot, bucket: int | None, pool: Sequence[str]
) -> pa.Table:
    """All columns of the occurrences of one bucket in the files of the pool."""
    rows = read_files(workspace, "occurrences", occurrences.in_bucket(bucket))
    return rows.filter(pc.is_in(rows["file"], value_set=pa.array(pool, pa.string())))


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
