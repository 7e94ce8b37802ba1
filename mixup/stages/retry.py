"""Outcomes that are to be tried again make room: a key must never have two.

A stage that retries keys takes a snapshot of its table, calls ``clear_retryable`` with it, and goes
on finding what is missing in that snapshot. Its files stay on the disk, so that the attempts made
so far are known although the table no longer has them.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from mixup.commits import write_file
from mixup.cover import is_retryable
from mixup.stages.cover import TASK_CPUS
from mixup.stages.manifests import Manifest, run_tasks
from mixup.stages.run import RunContext
from mixup.tables import Snapshot, read_files
from mixup.workspace import Workspace

_IN_FLIGHT = 32


def clear_retryable(
    context: RunContext, outcomes: Snapshot, where: tuple[str, str] | None = None
) -> int:
    """Remove the outcomes that are to be tried again, in one commit; how many there were.

    A run that is killed before it has tried a removed key again leaves it missing, as if it had
    never been tried.

    Args:
        context: The run.
        outcomes: The table's snapshot, the newest version. Light tasks read it, a bucket each;
            without files, Ray is left alone.
        where: A column and the value that the outcomes must have, such as a judge's revision.
    """
    if not outcomes.files:
        return 0
    import ray

    task = ray.remote(num_cpus=TASK_CPUS)(without_retryable)
    arguments = [(context.workspace, outcomes, bucket, where) for bucket in outcomes.files]
    found = list(run_tasks(task, arguments, in_flight=_IN_FLIGHT))
    cleared = sum(manifest.counts["cleared"] for manifest in found)
    if cleared:
        files = [file for manifest in found for file in manifest.files]
        removed = [path for manifest in found for path in manifest.removed.get(outcomes.table, ())]
        committer = context.committer(outcomes.table)
        committer.add(files, {outcomes.table: removed})
        committer.commit()
    return cleared


def without_retryable(
    workspace: Workspace, outcomes: Snapshot, bucket: int | None, where: tuple[str, str] | None
) -> Manifest:
    """Rewrite the files of one bucket that hold an outcome to be tried again; runs in a worker."""
    name = outcomes.table
    columns = ["reason", "attempts", *([where[0]] if where else [])]
    touched = [
        path
        for path in outcomes.in_bucket(bucket)
        if pc.any(_again(read_files(workspace, name, [path], columns), where)).as_py()
    ]
    if not touched:
        return Manifest(counts={"cleared": 0})
    rows = read_files(workspace, name, touched)
    kept = rows.filter(pc.invert(_again(rows, where)))
    files = [write_file(workspace, name, kept, bucket)] if kept.num_rows else []
    return Manifest(files, {name: touched}, {"cleared": rows.num_rows - kept.num_rows})


def _again(rows: pa.Table, where: tuple[str, str] | None) -> pa.ChunkedArray:
    again = is_retryable(rows)
    if where is None:
        return again
    return pc.and_(again, pc.fill_null(pc.equal(rows[where[0]], where[1]), False))
