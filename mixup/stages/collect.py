"""Collect: items that a teacher made → records and occurrences, so that they are rows like others.

From here on an item is embedded, rated, compared with evaluation questions and placed in a cell by
the stages that do so for rows of a pool. It occurs in a file of its own kind, *the items that a
teacher made from a text file*, at an offset that is a number drawn from its key and no place.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mixup.commits import write_file
from mixup.ledger import StageCounts
from mixup.records import Turn, bucket_of, content_key
from mixup.selection.licences import allowed
from mixup.stages.candidates import Teaching, is_used
from mixup.stages.compact import compact
from mixup.stages.manifests import Manifest, commit_stream
from mixup.stages.parsed import parsed_table
from mixup.stages.pieces import STAGING, Piece, PieceWriter, staging
from mixup.stages.run import RunContext, StageState, Stopwatch, stage_state
from mixup.stages.sources import SourceFile
from mixup.stages.writing import write_partition
from mixup.tables import read_files, scan_files, snapshot

ITEMS = "#items"
"""Added to a text file's path where its items are meant: they stand on none of its lines."""
_BLOCK_ROWS = 2048
_SEGMENT = ["segment", "article", "file", "source", "licence", "duplicate_of"]


@dataclass(frozen=True)
class Collecting:
    """What the tasks share.

    Attributes:
        work: The teacher's work; its snapshots are those after it.
        folder: Where pieces lie in the workspace.
    """

    work: Teaching
    folder: str


def items_file(file: str, teacher: str) -> str:
    """The key of the items that a teacher made from a text file, as a file of the pool."""
    return content_key("items", file, teacher)


def collect_state(context: RunContext, teacher: str, files: Sequence[str]) -> StageState:
    """Whether every item of the teacher is a record."""
    return stage_state(
        context.workspace,
        "collect",
        "occurrences",
        inputs=["candidates"],
        decides=[teacher, sorted(files)],
    )


def collect(
    context: RunContext, state: StageState, work: Teaching, files: Sequence[SourceFile]
) -> StageCounts:
    """Write the items that are no records yet, each content once.

    Raises:
        LedgerError: If an item is neither new, a duplicate nor of a licence that is not allowed.
    """
    watch = Stopwatch()
    workspace = context.workspace
    committer = context.committer("records", "occurrences", "files", "quarantine")
    folder = f"{STAGING}/{context.run}-items"
    shared = Collecting(work, folder)
    buckets = work.tables["candidates"].buckets
    with staging(workspace, folder):
        staged = context.each(stage_items, shared, [(bucket,) for bucket in buckets])
        pieces: list[Piece] = []
        totals: Counter[str] = Counter()
        for found, counts in staged:
            pieces += found
            totals += counts
        known = {name: snapshot(workspace, name) for name in ("records", "occurrences")}
        groups = [
            (known, [piece for piece in pieces if piece.partition == bucket])
            for bucket in sorted({piece.partition for piece in pieces})
        ]
        written = context.each(write_items, shared, groups)
        totals += commit_stream(written, committer, stage="collect", unit="new")
    _record(context, work, files, totals)
    counts = StageCounts(
        stage="collect",
        unit="items",
        rows_in=totals["items"],
        parts={name: totals[name] for name in ("new", "duplicate", "licence")},
        seconds=watch.seconds,
    ).check()
    compact(context, "records", "occurrences", "files")
    committer.complete("occurrences", state.completion(context.run, dict(counts.parts)))
    return counts.log()


def stage_items(shared: Collecting, bucket: int) -> tuple[list[Piece], Counter[str]]:
    """Write one bucket's items as pieces by the bucket of their record; runs in a worker."""
    work = shared.work
    writer = PieceWriter(work.workspace, shared.folder, f"items-{bucket:05d}")
    counts: Counter[str] = Counter()
    paths = work.tables["segments"].in_bucket(bucket)
    segments = read_files(work.workspace, "segments", paths, _SEGMENT)
    segments = segments.filter(is_used(segments, pa.array(sorted(work.files), pa.string())))
    known = {row["segment"]: row for row in segments.to_pylist()}
    block: list[dict[str, Any]] = []
    for part in scan_files(
        work.workspace, "candidates", work.tables["candidates"].in_bucket(bucket)
    ):
        mine = pc.and_(pc.equal(part["teacher"], work.teacher), pc.is_valid(part["uid"]))
        for row in part.filter(mine).to_pylist():
            segment = known.get(row["segment"])
            if segment is None or row["task"] not in work.tasks:
                continue
            counts["items"] += 1
            if not allowed(segment["licence"], work.licences):
                counts["licence"] += 1
                continue
            counts[f"rows:{segment['file']}"] += 1
            block.append(_parsed(row, segment, work))
            if len(block) == _BLOCK_ROWS:
                writer.add(parsed_table(block))
                block = []
    if block:
        writer.add(parsed_table(block))
    writer.flush()
    return writer.pieces, counts


def _parsed(row: dict[str, Any], segment: dict[str, Any], work: Teaching) -> dict[str, Any]:
    """An item as ingest has a row that it parsed."""
    extra = {
        "segment": row["segment"],
        "article": segment["article"],
        "rule": row["rule"] or "",
        "teacher": work.teacher,
    }
    return {
        "partition": bucket_of(row["uid"], work.workspace.buckets),
        "uid": row["uid"],
        "file": items_file(segment["file"], work.teacher),
        "offset": int(row["candidate"][:15], 16),
        "source": segment["source"],
        "licence": segment["licence"],
        "extra": json.dumps(extra, sort_keys=True),
        "task": row["task"],
        "turns": [Turn(**turn) for turn in row["turns"]],
        "tokens": row["tokens"],
    }


def write_items(shared: Collecting, known: Any, pieces: Sequence[Piece]) -> Manifest:
    """Write the items of one bucket of records; runs in a worker."""
    work = shared.work
    return write_partition(
        work.workspace,
        sorted(pieces, key=lambda piece: piece.path),
        partition=pieces[0].partition,
        partitions=work.workspace.buckets,
        known=known,
        files=sorted(items_file(file, work.teacher) for file in work.files),
        quarantined=set(),
    )


def _record(
    context: RunContext, work: Teaching, files: Sequence[SourceFile], totals: Counter[str]
) -> None:
    """Record the items of each text file as a file of the pool, where they are not yet."""
    paths = snapshot(context.workspace, "files").paths
    rows = read_files(context.workspace, "files", paths, ["fingerprint"])
    held = set(rows["fingerprint"].to_pylist())
    new = [file for file in files if items_file(file.fingerprint, work.teacher) not in held]
    if not new:
        return
    now = pa.array([datetime.now(UTC)] * len(new), pa.timestamp("us", tz="UTC"))
    rows = pa.table(
        {
            "fingerprint": [items_file(file.fingerprint, work.teacher) for file in new],
            "path": [f"{file.shown}{ITEMS}" for file in new],
            "size": [file.size for file in new],
            "modified": [file.modified for file in new],
            "ingested_at": now,
            "rows": [totals[f"rows:{file.fingerprint}"] for file in new],
            "quarantined": [0] * len(new),
        }
    )
    committer = context.committer("files")
    committer.add([write_file(context.workspace, "files", rows, None)])
    committer.commit()
