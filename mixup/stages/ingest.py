"""Ingest: sources → files, occurrences, records, quarantine.

Tasks read parts of files and parse row by row; one shuffle brings equal content together, bucket by
bucket; there duplicates are found and the tables are written.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mixup.config import IngestConfig
from mixup.errors import RecordError
from mixup.ledger import StageCounts
from mixup.records import TURNS, bucket_of, content_key, estimated_tokens, uid_of
from mixup.stages.compact import compact
from mixup.stages.cover import TASK_CPUS, manifests_of
from mixup.stages.rows import RawRow, read_rows
from mixup.stages.run import (
    Manifest,
    RunContext,
    Stopwatch,
    commit_stream,
    stage_state,
)
from mixup.stages.sources import Chunk, SourceFile, chunks_of
from mixup.stages.streams import UNREACHABLE
from mixup.tables import Snapshot, read_files, snapshot, write_by_bucket, write_file
from mixup.text.formats import ParsedRow, decode_line, parse_row
from mixup.text.tasks import detect_task
from mixup.workspace import Workspace

logger = logging.getLogger(__name__)

_ROWS_PER_BLOCK = 4096
_RAW_KEPT_BYTES = 4096
_WAVE_BYTES = 16_000_000_000
_WAVE_BYTES_PER_BUCKET = 1_000_000_000
_PARSED = pa.schema(
    [
        ("bucket", pa.int32()),
        ("uid", pa.string()),
        ("file", pa.string()),
        ("path", pa.string()),
        ("offset", pa.int64()),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("extra", pa.string()),
        ("task", pa.string()),
        ("language", pa.string()),
        ("turns", TURNS),
        ("tokens", pa.int32()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("raw", pa.binary()),
    ]
)


def unread_files(workspace: Workspace, files: Sequence[SourceFile]) -> list[SourceFile]:
    """The files, in their present state, that no run has read to the end."""
    rows = read_files(workspace, "files", snapshot(workspace, "files").paths, ["fingerprint"])
    known = set(rows["fingerprint"].to_pylist())
    return [file for file in files if file.fingerprint not in known]


def pool_counts(workspace: Workspace, pool: Sequence[str]) -> tuple[int, int]:
    """The rows of the pool's files, and how many of them are in the quarantine."""
    columns = ["fingerprint", "rows", "quarantined"]
    files = read_files(workspace, "files", snapshot(workspace, "files").paths, columns)
    files = files.filter(pc.is_in(files["fingerprint"], value_set=pa.array(pool, pa.string())))
    return pc.sum(files["rows"]).as_py() or 0, pc.sum(files["quarantined"]).as_py() or 0


def ingest(context: RunContext, config: IngestConfig, files: Sequence[SourceFile]) -> StageCounts:
    """Read files that have not been read; each wave of them is committed by itself.

    Raises:
        LedgerError: If a row is neither new, a duplicate nor in the quarantine.
    """
    watch = Stopwatch()
    state = stage_state(
        context.workspace, "ingest", "records", inputs=[], decides=config.fingerprint()
    )
    totals: Counter[str] = Counter()
    # One shuffle holds a wave: a workspace of few buckets takes small ones.
    limit = min(_WAVE_BYTES, context.workspace.buckets * _WAVE_BYTES_PER_BUCKET)
    for wave in _waves(files, limit):
        totals += _ingest_wave(context, config, wave)
    counts = StageCounts(
        stage="ingest",
        unit="occurrences",
        rows_in=totals["rows"],
        parts={name: totals[name] for name in ("new", "duplicate", "quarantined")},
        dropped=("quarantined",),
        seconds=watch.seconds,
    ).check()
    compact(context, "records", "occurrences", "quarantine", "files")
    committer = context.committer("records")
    committer.complete("records", state.completion(context.run, dict(counts.parts)))
    return counts.log()


def _waves(files: Sequence[SourceFile], limit: int) -> Iterator[list[SourceFile]]:
    wave: list[SourceFile] = []
    held = 0
    for file in files:
        if wave and held + file.size > limit:
            yield wave
            wave, held = [], 0
        wave.append(file)
        held += max(file.size, 0)
    if wave:
        yield wave


def _ingest_wave(
    context: RunContext, config: IngestConfig, files: Sequence[SourceFile]
) -> Counter[str]:
    import ray

    workspace = context.workspace
    _forget_unreachable(context, files)
    chunks = [chunk for file in files for chunk in chunks_of(file, config.chunk_bytes)]
    known = {name: snapshot(workspace, name) for name in ("records", "occurrences", "quarantine")}
    dataset = (
        ray.data.from_items(
            [{"chunk": index} for index in range(len(chunks))], override_num_blocks=len(chunks)
        )
        .map_batches(
            partial(_parse_chunks, chunks=chunks, config=config, buckets=workspace.buckets),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=TASK_CPUS,
        )
        .repartition(workspace.buckets, keys=["bucket"])
        .map_batches(
            partial(_write_buckets, workspace=workspace, known=known),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=TASK_CPUS,
        )
    )
    committer = context.committer("records", "occurrences", "quarantine", "files")
    totals = commit_stream(manifests_of(dataset), committer, stage="ingest", unit="rows")
    reached = [file for file in files if not totals[f"{UNREACHABLE}:{file.fingerprint}"]]
    if reached:
        committer.add([write_file(workspace, "files", _file_rows(reached, totals), None)])
    committer.commit()
    return Counter({name: count for name, count in totals.items() if ":" not in name})


def _forget_unreachable(context: RunContext, files: Sequence[SourceFile]) -> None:
    """Remove the quarantine rows that said of these files that they could not be reached.

    Such a file is not recorded as read, so it comes here again, with the rows that it gave then
    already held.
    """
    workspace, committer = context.workspace, context.committer("quarantine")
    again = pa.array([file.fingerprint for file in files], pa.string())
    for path in snapshot(workspace, "quarantine").paths:
        rows = read_files(workspace, "quarantine", [path])
        stale = pc.and_(
            pc.is_in(rows["file"], value_set=again), pc.equal(rows["reason"], UNREACHABLE)
        )
        if pc.any(stale).as_py():
            kept = rows.filter(pc.invert(stale))
            committer.add(write_by_bucket(workspace, "quarantine", kept), {"quarantine": [path]})
    committer.commit()


def _file_rows(files: Sequence[SourceFile], totals: Counter[str]) -> pa.Table:
    now = datetime.now(UTC)
    return pa.table(
        {
            "fingerprint": [file.fingerprint for file in files],
            "path": [file.path for file in files],
            "size": [file.size for file in files],
            "modified": [file.modified for file in files],
            "ingested_at": pa.array([now] * len(files), pa.timestamp("us", tz="UTC")),
            "rows": [totals[f"rows:{file.fingerprint}"] for file in files],
            "quarantined": [totals[f"quarantined:{file.fingerprint}"] for file in files],
        }
    )


def _parse_chunks(
    batch: pa.Table, chunks: Sequence[Chunk], config: IngestConfig, buckets: int
) -> Iterator[pa.Table]:
    """Read and parse the rows of some chunks; runs in a worker."""
    for index in batch["chunk"].to_pylist():
        chunk = chunks[index]
        block: list[dict[str, Any]] = []
        for row in read_rows(chunk, max_row_bytes=config.max_row_bytes):
            block.append(parsed_fields(row, chunk.file, config, buckets))
            if len(block) >= _ROWS_PER_BLOCK:
                yield pa.Table.from_pylist(block, schema=_PARSED)
                block = []
        yield pa.Table.from_pylist(block, schema=_PARSED)


def parsed_fields(
    row: RawRow, file: SourceFile, config: IngestConfig, buckets: int
) -> dict[str, Any]:
    """The columns of one row: those of a record and its occurrence, or of a quarantine row."""
    place = {"file": file.fingerprint, "path": file.path, "offset": row.offset}
    try:
        if row.reason:
            raise RecordError(row.reason, row.detail)
        parsed = parse_row(row.value if row.value is not None else decode_line(row.raw))
    except RecordError as error:
        key = content_key(file.fingerprint, row.offset)
        return {
            **place,
            "bucket": bucket_of(key, buckets),
            "reason": error.reason,
            "detail": str(error).encode("utf-8", "replace").decode()[:500],
            "raw": _raw_bytes(row)[:_RAW_KEPT_BYTES],
        }
    return {**place, **_record_fields(parsed, file, config, buckets)}


def _record_fields(
    parsed: ParsedRow, file: SourceFile, config: IngestConfig, buckets: int
) -> dict[str, Any]:
    uid = uid_of(parsed.turns)
    return {
        "bucket": bucket_of(uid, buckets),
        "uid": uid,
        "source": parsed.source or file.name,
        "licence": parsed.licence or config.licence or "unknown",
        "extra": json.dumps(parsed.extra, ensure_ascii=False, sort_keys=True),
        "task": detect_task(parsed.turns),
        "language": parsed.language,
        "turns": [turn._asdict() for turn in parsed.turns],
        "tokens": sum(estimated_tokens(turn.content) for turn in parsed.turns),
    }


def _raw_bytes(row: RawRow) -> bytes:
    if row.raw or row.value is None:
        return row.raw
    return json.dumps(row.value, ensure_ascii=False, default=str).encode("utf-8", "replace")


def _write_buckets(rows: pa.Table, workspace: Workspace, known: dict[str, Snapshot]) -> pa.Table:
    """Write the rows of one or several whole buckets; runs in a worker.

    Rows that an earlier, interrupted run wrote already are left alone.
    """
    bad = rows.filter(pc.is_valid(rows["reason"]))
    good = rows.filter(pc.is_null(rows["reason"]))
    held = read_files(workspace, "quarantine", known["quarantine"].paths, ["file", "offset"])
    bad = _not_yet(bad, held)
    bad = bad.append_column("seen_at", pa.array([datetime.now(UTC)] * len(bad), _TIME))
    files = write_by_bucket(workspace, "quarantine", bad)
    totals = Counter(rows=rows.num_rows, quarantined=rows.num_rows - good.num_rows)
    totals.update(f"rows:{file}" for file in rows["file"].to_pylist())
    totals.update(
        f"quarantined:{file}"
        for file in rows.filter(pc.is_valid(rows["reason"]))["file"].to_pylist()
    )
    unreachable = rows.filter(pc.equal(rows["reason"], UNREACHABLE))
    totals.update(f"{UNREACHABLE}:{file}" for file in unreachable["file"].to_pylist())
    for bucket in sorted(pc.unique(good["bucket"]).to_pylist()):
        part = good.filter(pc.equal(good["bucket"], bucket))
        written, new = _write_bucket(part, workspace, known, bucket)
        files += written
        totals.update(new=new, duplicate=part.num_rows - new)
    return Manifest(files, counts=totals).to_table()


_TIME = pa.timestamp("us", tz="UTC")


def _write_bucket(
    rows: pa.Table, workspace: Workspace, known: dict[str, Snapshot], bucket: int
) -> tuple[list, int]:
    """Write one bucket's occurrences and new records; the files and how many rows are new."""
    rows = rows.sort_by([("path", "ascending"), ("offset", "ascending")])
    held = read_files(workspace, "records", known["records"].in_bucket(bucket), ["uid"])
    seen = set(held["uid"].to_pylist())
    first: list[bool] = []
    for uid in rows["uid"].to_pylist():
        first.append(uid not in seen)
        seen.add(uid)
    records = rows.filter(pa.array(first, pa.bool_()))
    paths = known["occurrences"].in_bucket(bucket)
    occurrences = _not_yet(rows, read_files(workspace, "occurrences", paths, ["file", "offset"]))
    files = [
        write_file(workspace, name, part, bucket)
        for name, part in (("records", records), ("occurrences", occurrences))
        if part.num_rows
    ]
    return files, records.num_rows


def _not_yet(rows: pa.Table, held: pa.Table) -> pa.Table:
    """The rows whose (file, offset) is not held."""
    places = set(zip(held["file"].to_pylist(), held["offset"].to_pylist(), strict=True))
    if not places:
        return rows
    here = zip(rows["file"].to_pylist(), rows["offset"].to_pylist(), strict=True)
    return rows.filter(pa.array([place not in places for place in here], pa.bool_()))
