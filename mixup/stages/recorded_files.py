"""Which files were read to the end, what they held, and which of them could not be reached."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from mixup.commits import write_by_bucket, write_file
from mixup.stages.run import RunContext
from mixup.stages.sources import SourceFile
from mixup.stages.streams import UNREACHABLE
from mixup.tables import Snapshot, read_files, scan_files, snapshot
from mixup.workspace import Workspace


def known_files(workspace: Workspace) -> set[str]:
    """The fingerprints of the files that were read to the end.

    One that could not be reached has a quarantine row that says so, is left out of this run whole,
    and is tried again by the next.
    """
    paths = snapshot(workspace, "files").paths
    return set(read_files(workspace, "files", paths, ["fingerprint"])["fingerprint"].to_pylist())


def unread_files(workspace: Workspace, files: Sequence[SourceFile]) -> list[SourceFile]:
    """The files, in their present state, that no run has read to the end."""
    known = known_files(workspace)
    return [file for file in files if file.fingerprint not in known]


def pool_counts(workspace: Workspace, pool: Sequence[str]) -> tuple[int, int]:
    """The rows of the pool's files, and how many of them are in the quarantine."""
    columns = ["fingerprint", "rows", "quarantined"]
    files = read_files(workspace, "files", snapshot(workspace, "files").paths, columns)
    files = files.filter(pc.is_in(files["fingerprint"], value_set=pa.array(pool, pa.string())))
    return pc.sum(files["rows"]).as_py() or 0, pc.sum(files["quarantined"]).as_py() or 0


def forget_unreachable(context: RunContext, files: Sequence[SourceFile]) -> None:
    """Remove the quarantine rows that said of these files that they could not be reached.

    Such a file is not recorded as read, so it comes here again, with the rows that it gave then
    already held.
    """
    workspace, committer = context.workspace, context.committer("quarantine")
    again = pa.array([file.shown for file in files], pa.string())

    def stale(rows: pa.Table) -> pa.ChunkedArray:
        # By path: in reach, the file has another size and time, and so another fingerprint.
        return pc.and_(pc.is_in(rows["path"], again), pc.equal(rows["reason"], UNREACHABLE))

    for path in snapshot(workspace, "quarantine").paths:
        parts = scan_files(workspace, "quarantine", [path], ["path", "reason"])
        if any(pc.any(stale(rows)).as_py() for rows in parts):
            rows = read_files(workspace, "quarantine", [path])
            kept = rows.filter(pc.invert(stale(rows)))
            committer.add(write_by_bucket(workspace, "quarantine", kept), {"quarantine": [path]})
    committer.commit()


def with_rows_of(workspace: Workspace, now: Snapshot, files: Sequence[SourceFile]) -> Snapshot:
    """The part of a snapshot of the quarantine that has rows of some files.

    There is none, unless a run ended while it read them; then tasks need not look for any.
    """
    again = pa.array([file.fingerprint for file in files], pa.string())
    found = [
        path
        for path in now.paths
        if any(
            pc.any(pc.is_in(rows["file"], again)).as_py()
            for rows in scan_files(workspace, now.table, [path], ["file"])
        )
    ]
    return Snapshot(now.table, now.version, {None: tuple(found)})


def record_files(context: RunContext, files: Sequence[SourceFile], totals: Counter[str]) -> None:
    """Record files as read, but for those that could not be reached."""
    reached = [file for file in files if not totals[f"{UNREACHABLE}:{file.fingerprint}"]]
    if reached:
        committer = context.committer("files")
        rows = _file_rows(reached, totals)
        committer.add([write_file(context.workspace, "files", rows, None)])
        committer.commit()


def _file_rows(files: Sequence[SourceFile], totals: Counter[str]) -> pa.Table:
    now = datetime.now(UTC)
    return pa.table(
        {
            "fingerprint": [file.fingerprint for file in files],
            "path": [file.shown for file in files],
            "size": [file.size for file in files],
            "modified": [file.modified for file in files],
            "ingested_at": pa.array([now] * len(files), pa.timestamp("us", tz="UTC")),
            "rows": [totals[f"rows:{file.fingerprint}"] for file in files],
            "quarantined": [totals[f"quarantined:{file.fingerprint}"] for file in files],
        }
    )
