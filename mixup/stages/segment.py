"""Segment: raw text → files, segments, quarantine.

Tasks read parts of files, clean their articles and cut them into blocks; what they cut is brought
together by content (``mixup.stages.pieces``), and other tasks leave out what is there already. The
memory of each of them is bounded by an article and by what a piece holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mixup.ledger import StageCounts
from mixup.mixture_config import TextConfig
from mixup.records import bucket_of
from mixup.stages.articles import read_articles
from mixup.stages.compact import compact
from mixup.stages.cut_article import CUT, cut_article
from mixup.stages.ingest import (
    Staged,
    all_chunks,
    forget_unreachable,
    partitions_of,
    record_files,
    waves,
    with_rows_of,
    writing_tasks,
)
from mixup.stages.pieces import STAGING, Piece, PieceWriter, clear_staging
from mixup.stages.run import Manifest, RunContext, Stopwatch, commit_stream
from mixup.stages.sources import Chunk, SourceFile
from mixup.stages.streams import UNREACHABLE
from mixup.stages.writing import Output, held_places, uid_range
from mixup.tables import Snapshot, scan_files, snapshot
from mixup.workspace import Workspace

_WAVE_BYTES = 16_000_000_000
_BLOCK_ROWS = 2048
_TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class TextWave:
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
    config: TextConfig
    folder: str
    chunks: tuple[Chunk, ...]
    partitions: int
    known: Mapping[str, Snapshot]

    @property
    def files(self) -> list[str]:
        """The fingerprints of the files that it reads from."""
        return sorted({chunk.file.fingerprint for chunk in self.chunks})


def segment_files(
    context: RunContext, config: TextConfig, files: Sequence[SourceFile]
) -> StageCounts:
    """Read files that have not been read; each wave of their chunks is committed by itself.

    Raises:
        LedgerError: If an article neither gave segments nor is in the quarantine.
    """
    watch = Stopwatch()
    workspace = context.workspace
    clear_staging(workspace)
    context.committer("segments", "quarantine", "files")  # makes the tables
    forget_unreachable(context, files)
    held = with_rows_of(workspace, snapshot(workspace, "quarantine"), files)
    chunks = all_chunks(files, config.chunk_bytes)
    last = {chunk.file.fingerprint: place for place, chunk in enumerate(chunks)}
    totals: Counter[str] = Counter()
    done = 0
    for number, part in enumerate(waves(chunks, _WAVE_BYTES)):
        wave = TextWave(
            workspace=workspace,
            config=config,
            folder=f"{STAGING}/{context.run}-text-{number}",
            chunks=tuple(part),
            partitions=partitions_of(part, workspace.buckets),
            known={"quarantine": held, "segments": snapshot(workspace, "segments")},
        )
        totals += _segment_wave(context, wave)
        read = enumerate(chunks[done : done + len(part)], done)
        ended = [chunk.file for at, chunk in read if last[chunk.file.fingerprint] == at]
        record_files(context, ended, totals)
        done += len(part)
    clear_staging(workspace)
    counts = StageCounts(
        stage="segment",
        unit="articles",
        rows_in=totals["articles"],
        parts={"segmented": totals["segmented"], "quarantined": totals["quarantined"]},
        dropped=("quarantined",),
        seconds=watch.seconds,
        extra={"segments": totals["new"], "duplicate": totals["duplicate"]},
    ).check()
    compact(context, "segments", "quarantine", "files")
    return counts.log()


def _segment_wave(context: RunContext, wave: TextWave) -> Counter[str]:
    filesystem, root = context.workspace.filesystem()
    filesystem.create_dir(f"{root}/{wave.folder}", recursive=True)
    try:
        return _read_and_write(context, wave)
    finally:
        # On a full disk its room is needed; what cannot be removed goes as the next run starts.
        with suppress(OSError):
            filesystem.delete_dir(f"{root}/{wave.folder}")


def _read_and_write(context: RunContext, wave: TextWave) -> Counter[str]:
    committer = context.committer("segments", "quarantine")
    pieces: list[Piece] = []

    def staged() -> Iterator[Manifest]:
        for done in context.each(segment_chunks, wave, list(_reading_tasks(wave))):
            pieces.extend(done.pieces)
            yield Manifest(counts=done.counts)

    totals = commit_stream(staged(), committer, stage="segment", unit="articles")
    groups = [(group,) for group in writing_tasks(pieces)]
    written = context.each(write_segments, wave, groups)
    return totals + commit_stream(written, committer, stage="segment", unit="new")


def _reading_tasks(wave: TextWave) -> Iterator[tuple[int, int]]:
    """The chunks of each task: one, or several small ones."""
    first = 0
    for part in waves(wave.chunks, wave.config.chunk_bytes):
        yield first, first + len(part)
        first += len(part)


def segment_chunks(wave: TextWave, first: int, end: int) -> Staged:
    """Read and cut the articles of some of a wave's chunks; runs in a worker."""
    writer = PieceWriter(wave.workspace, wave.folder, f"{first:07d}")
    counts: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    for chunk in wave.chunks[first:end]:
        key = chunk.file.fingerprint
        for article in read_articles(chunk, wave.config):
            cut = cut_article(article, chunk.file, wave.config)
            bad = "reason" in cut[0]
            counts.update({"articles": 1, "quarantined" if bad else "segmented": 1})
            counts.update({f"rows:{key}": 1, f"quarantined:{key}": int(bad)})
            counts[f"{UNREACHABLE}:{key}"] += cut[0].get("reason") == UNREACHABLE
            for row in cut:
                rows.append({**row, "partition": bucket_of(row["segment"], wave.partitions)})
                if len(rows) == _BLOCK_ROWS:
                    writer.add(pa.Table.from_pylist(rows, schema=CUT))
                    rows = []
    writer.add(pa.Table.from_pylist(rows, schema=CUT))
    writer.flush()
    return Staged(writer.pieces, +counts)


def write_segments(wave: TextWave, pieces: Sequence[Piece]) -> Manifest:
    """Write the rows of some partitions to the tables; runs in a worker."""
    quarantined = held_places(wave.workspace, wave.known["quarantine"], wave.files)
    bad = Output(wave.workspace, "quarantine", None)
    files, counts = [], Counter[str]()
    for partition, own in groupby(pieces, key=lambda piece: piece.partition):
        bucket = partition * wave.workspace.buckets // wave.partitions
        found = list(own)
        seen = _held(wave, found, partition, bucket)
        segments = Output(wave.workspace, "segments", bucket)
        for piece in found:
            rows = piece.read(wave.workspace)
            refused = rows.filter(pc.is_valid(rows["reason"]))
            here = zip(refused["file"].to_pylist(), refused["offset"].to_pylist(), strict=True)
            fresh = pa.array([place not in quarantined for place in here], pa.bool_())
            bad.add(_with_time(refused.filter(fresh)))
            good = rows.filter(pc.is_null(rows["reason"]))
            new = good.filter(_first(good["segment"].to_pylist(), seen))
            segments.add(new)
            counts.update(new=new.num_rows, duplicate=good.num_rows - new.num_rows)
        files += segments.flush()
    return Manifest([*files, *bad.flush()], counts=counts)


def _with_time(rows: pa.Table) -> pa.Table:
    return rows.append_column("seen_at", pa.array([datetime.now(UTC)] * rows.num_rows, _TIME))


def _held(wave: TextWave, pieces: Sequence[Piece], partition: int, bucket: int) -> set[str]:
    """The segments among those of the pieces that the table holds."""
    paths = wave.known["segments"].in_bucket(bucket)
    if not paths:
        return set()
    keys = pa.concat_tables([piece.read(wave.workspace, ["segment"]) for piece in pieces])
    wanted, span = pc.unique(keys["segment"]), uid_range(partition, wave.partitions)
    seen: set[str] = set()
    parts = scan_files(wave.workspace, "segments", paths, ["segment"], within={"segment": span})
    for rows in parts:
        seen.update(rows["segment"].filter(pc.is_in(rows["segment"], wanted)).to_pylist())
    return seen


def _first(keys: Sequence[str], seen: set[str]) -> pa.Array:
    """Which keys come for the first time; ``seen`` takes them."""
    first: list[bool] = []
    for key in keys:
        first.append(key not in seen)
        seen.add(key)
    return pa.array(first, pa.bool_())
