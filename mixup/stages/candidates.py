"""Candidates: what a teacher makes, or fails to make, of each segment and task type.

A candidate's key is made from the segment, the task and the teacher's revision. It lies in the
bucket of its segment, so that what is missing is known bucket by bucket.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mixup.cover import uncovered
from mixup.mixture.items import Item, Segment
from mixup.records import TABLES, content_key, estimated_tokens
from mixup.selection.licences import allowed
from mixup.stages.run import RunContext, StageState, stage_state
from mixup.tables import Snapshot, read_files, scan_files
from mixup.workspace import Workspace

MADE = "made"
_COLUMNS = [
    *("segment", "article", "file", "title", "text", "context", "licence", "duplicate_of"),
]


@dataclass(frozen=True)
class Teaching:
    """What a teacher is to make, and of what.

    Attributes:
        workspace: The workspace.
        tables: Snapshots of ``segments`` and ``candidates``.
        files: Fingerprints of the text files of this run.
        tasks: The task types.
        teacher: The teacher's revision.
        seed: The seed of the run.
        licences: The licences that are allowed; None: all.
    """

    workspace: Workspace
    tables: Mapping[str, Snapshot]
    files: Sequence[str]
    tasks: Sequence[str]
    teacher: str
    seed: int
    licences: Sequence[str] | None


@dataclass(frozen=True)
class Wanted:
    """One item that is wanted.

    Attributes:
        candidate: Its key.
        segment: The segment.
        task: The task type.
        attempts: How often it was tried before.
    """

    candidate: str
    segment: Segment
    task: str
    attempts: int


def teach_state(context: RunContext, work: Teaching) -> StageState:
    """Whether every item that the teacher is to make has an outcome."""
    return stage_state(
        context.workspace,
        "teach",
        "candidates",
        inputs=["segments"],
        decides=[work.teacher, sorted(work.tasks), sorted(work.files), work.licences],
    )


def candidate_key(segment: str, task: str, teacher: str) -> str:
    """The key of what a teacher makes of a segment for a task type."""
    return content_key("candidate", segment, task, teacher)


def wanted_items(work: Teaching, bucket: int) -> Iterator[Wanted]:
    """The candidates of one bucket's segments that have no final outcome; runs in a worker.

    A row group of segments is held at a time.
    """
    columns = ["candidate", "teacher", "reason", "attempts"]
    held = read_files(
        work.workspace, "candidates", work.tables["candidates"].in_bucket(bucket), columns
    )
    held = held.filter(pc.equal(held["teacher"], work.teacher))
    files = pa.array(sorted(work.files), pa.string())
    paths = work.tables["segments"].in_bucket(bucket)
    for part in scan_files(work.workspace, "segments", paths, _COLUMNS):
        rows = {
            candidate_key(row["segment"], task, work.teacher): (row, task)
            for row in part.filter(is_used(part, files)).to_pylist()
            if allowed(row["licence"], work.licences)
            for task in work.tasks
        }
        keys = pa.table({"candidate": pa.array(list(rows), pa.string())})
        missing = uncovered(keys, held, "candidate")
        for key, attempts in zip(
            missing["candidate"].to_pylist(), missing["attempts"].to_pylist(), strict=True
        ):
            row, task = rows[key]
            segment = Segment(
                row["segment"], row["article"], row["title"], row["text"], row["context"]
            )
            yield Wanted(key, segment, task, attempts)


def is_used(segments: pa.Table, files: pa.Array) -> pa.ChunkedArray:
    """Which segments are of the run's files and no near-duplicates."""
    return pc.and_(pc.is_in(segments["file"], files), pc.is_null(segments["duplicate_of"]))


def candidate_row(
    wanted: Wanted, teacher: str, item: Item | None, *, rule: str = "", reason: str | None = None
) -> dict[str, Any]:
    """The outcome of a wanted item as columns."""
    row = {
        "candidate": wanted.candidate,
        "segment": wanted.segment.key,
        "task": wanted.task,
        "teacher": teacher,
        "rule": rule or None,
        "reason": reason,
        "attempts": wanted.attempts + 1,
    }
    if item is None:
        return row
    turns = item.turns
    return {
        **row,
        "uid": item.uid,
        "turns": [turn._asdict() for turn in turns],
        "tokens": sum(estimated_tokens(turn.content) for turn in turns),
    }


def candidate_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Outcomes as a table."""
    return pa.Table.from_pylist(list(rows), schema=TABLES["candidates"].file_schema)
