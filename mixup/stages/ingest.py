"""Ingest: sources → files, occurrences, records, quarantine.

Tasks read parts of files and parse them row by row; what they parse is brought together by content
(``mixup.stages.pieces``); other tasks find the duplicates there and write the tables. The memory of
each of them is bounded, whatever the size of a file, a row group or a bucket.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc

from mixup.config import IngestConfig
from mixup.ledger import StageCounts
from mixup.stages.compact import compact
from mixup.stages.parsed import parsed_blocks
from mixup.stages.pieces import STAGING, Piece, PieceWriter, clear_staging
from mixup.stages.run import (
    Manifest,
    RunContext,
    Stopwatch,
    commit_stream,
    run_tasks,
    stage_state,
)
from mixup.stages.sources import Chunk, SourceFile, chunks_of
from mixup.stages.streams import UNREACHABLE
from mixup.stages.writing import held_places, write_partition
from mixup.tables import (
    Snapshot,
    read_files,
    scan_files,
    snapshot,
    write_by_bucket,
    write_file,
)
from mixup.workspace import Workspace

logger = logging.getLogger(__name__)

_WAVE_BYTES = 16_000_000_000
_PARTITION_BYTES = 128_000_000
_TASK_BYTES = 32_000_000
_FOOTERS_AT_ONCE = 16
# Tasks that wait tell an autoscaler what would be used; they cost the driver next to nothing.
_IN_FLIGHT = 1000


@dataclass(frozen=True)
class Wave:
    """Chunks that are read, brought together and written before the next ones are looked at.

    Attributes:
        workspace: Where the tables are.
        config: The section of the config.
        folder: Where its pieces lie in the workspace.
        chunks: What is read, in the order of paths and places.
        partitions: Into how many parts, a multiple of the buckets, its rows are divided by key.
        known: What the tables held before.
    """

    workspace: Workspace
    config: IngestConfig
    folder: str
    chunks: tuple[Chunk, ...]
    partitions: int
    known: Mapping[str, Snapshot]

    @property
    def files(self) -> list[str]:
        """The fingerprints of the files that it reads from."""
        return sorted({chunk.file.fingerprint for chunk in self.chunks})


@dataclass(frozen=True)
class Staged:
    """What a reading task did: the pieces that it wrote, and its counts."""

    pieces: Sequence[Piece]
    counts: Mapping[str, int]


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


def ingest(context: RunContext, config: IngestConfig, files: Sequence[SourceFile]) -> StageCounts:
    """Read files that have not been read; each wave of their chunks is committed by itself.

    Raises:
        LedgerError: If a row is neither new, a duplicate nor in the quarantine.
    """
    watch = Stopwatch()
    workspace = context.workspace
    state = stage_state(workspace, "ingest", "records", inputs=[], decides=config.fingerprint())
    clear_staging(workspace)
    context.committer("records", "occurrences", "quarantine", "files")  # makes the tables
    forget_unreachable(context, files)
    before = {name: snapshot(workspace, name) for name in ("occurrences", "quarantine")}
    before["quarantine"] = with_rows_of(workspace, before["quarantine"], files)
    chunks = all_chunks(files, config.chunk_bytes)
    ends = {chunk.file.fingerprint: place for place, chunk in enumerate(chunks)}
    totals: Counter[str] = Counter()
    done = 0
    for number, part in enumerate(waves(chunks, _WAVE_BYTES)):
        wave = Wave(
            workspace=workspace,
            config=config,
            folder=f"{STAGING}/{context.run}-{number}",
            chunks=tuple(part),
            partitions=partitions_of(part, workspace.buckets),
            known={**before, "records": snapshot(workspace, "records")},
        )
        totals += _ingest_wave(context, wave)
        read = chunks[done : done + len(part)]
        ended = [chunk.file for at, chunk in enumerate(read, done) if _is_last(ends, at, chunk)]
        record_files(context, ended, totals)
        done += len(part)
    clear_staging(workspace)
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


def _is_last(ends: Mapping[str, int], at: int, chunk: Chunk) -> bool:
    return ends[chunk.file.fingerprint] == at


def all_chunks(files: Sequence[SourceFile], chunk_bytes: int) -> list[Chunk]:
    """The chunks of all files, in the order of paths and places: the first of equals is new."""
    ordered = sorted(files, key=lambda file: file.path)
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:  # a Parquet file's chunks are in its footer
        found = list(pool.map(lambda file: chunks_of(file, chunk_bytes), ordered))
    return [chunk for chunks in found for chunk in chunks]


def waves(chunks: Sequence[Chunk], limit: int) -> Iterator[list[Chunk]]:
    """Runs of chunks of at most some bytes, or of one chunk."""
    wave: list[Chunk] = []
    held = 0
    for chunk in chunks:
        if wave and held + chunk.size > limit:
            yield wave
            wave, held = [], 0
        wave.append(chunk)
        held += chunk.size
    if wave:
        yield wave


def partitions_of(chunks: Sequence[Chunk], buckets: int) -> int:
    """Into how many parts the rows of some chunks are divided: a multiple of the buckets."""
    size = sum(chunk.size for chunk in chunks)
    return buckets * max(1, -(-size // (buckets * _PARTITION_BYTES)))


def _ingest_wave(context: RunContext, wave: Wave) -> Counter[str]:
    filesystem, root = context.workspace.filesystem()
    filesystem.create_dir(f"{root}/{wave.folder}", recursive=True)
    try:
        return _read_and_write(context, wave)
    finally:
        # On a full disk its room is needed; what cannot be removed goes as the next run starts.
        with suppress(OSError):
            filesystem.delete_dir(f"{root}/{wave.folder}")


def _read_and_write(context: RunContext, wave: Wave) -> Counter[str]:
    import ray

    committer = context.committer("records", "occurrences", "quarantine")
    shared = ray.put(wave)
    pieces: list[Piece] = []

    def staged() -> Iterator[Manifest]:
        spans = [(shared, *span) for span in _reading_tasks(wave)]
        task = ray.remote(num_cpus=1)(stage_chunks)
        for done in run_tasks(task, spans, in_flight=_IN_FLIGHT):
            pieces.extend(done.pieces)
            yield Manifest(counts=done.counts)

    totals = commit_stream(
        staged(),
        committer,
        stage="ingest",
        unit="rows",
        stall=context.stall(stage_chunks.__name__),
    )
    task = ray.remote(num_cpus=1)(write_pieces)
    groups = [(shared, group) for group in writing_tasks(pieces)]
    written = run_tasks(task, groups, in_flight=_IN_FLIGHT)
    return totals + commit_stream(
        written,
        committer,
        stage="ingest",
        unit="new",
        stall=context.stall(write_pieces.__name__),
    )


def _reading_tasks(wave: Wave) -> Iterator[tuple[int, int]]:
    """The chunks of each task: one, or several small ones."""
    first = 0
    for part in waves(wave.chunks, wave.config.chunk_bytes):
        yield first, first + len(part)
        first += len(part)


def stage_chunks(wave: Wave, first: int, end: int) -> Staged:
    """Read and parse some of a wave's chunks; runs in a worker."""
    writer = PieceWriter(wave.workspace, wave.folder, f"{first:07d}")
    counts: Counter[str] = Counter()
    for chunk in wave.chunks[first:end]:
        key = chunk.file.fingerprint
        for rows in parsed_blocks(chunk, wave.config, wave.partitions):
            bad = rows.num_rows - rows["reason"].null_count
            lost = pc.sum(pc.equal(rows["reason"], UNREACHABLE)).as_py() or 0
            counts.update({"rows": rows.num_rows, "quarantined": bad})
            counts.update({f"rows:{key}": rows.num_rows, f"quarantined:{key}": bad})
            if lost:
                counts[f"{UNREACHABLE}:{key}"] += lost
            writer.add(rows)
    writer.flush()
    return Staged(writer.pieces, counts)


def writing_tasks(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """The pieces of each task: those of one partition, or of several small ones."""
    ordered = sorted(pieces, key=lambda piece: (piece.partition, piece.path))
    task: list[Piece] = []
    held = 0
    for _, found in groupby(ordered, key=lambda piece: piece.partition):
        own = list(found)
        size = sum(piece.length for piece in own)
        if task and held + size > _TASK_BYTES:
            yield task
            task, held = [], 0
        task.extend(own)
        held += size
    if task:
        yield task


def write_pieces(wave: Wave, pieces: Sequence[Piece]) -> Manifest:
    """Write the rows of some partitions to the tables; runs in a worker."""
    files, counts = [], Counter()
    held = held_places(wave.workspace, wave.known["quarantine"], wave.files)
    for partition, own in groupby(pieces, key=lambda piece: piece.partition):
        done = write_partition(
            wave.workspace,
            list(own),
            partition=partition,
            partitions=wave.partitions,
            known=wave.known,
            files=wave.files,
            quarantined=held,
        )
        files.extend(done.files)
        counts.update(done.counts)
    return Manifest(files, counts=counts)


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
