"""Reading in waves: files → rows, brought together by content → tables.

Tasks read parts of files and write their rows as pieces by content (``mixup.stages.pieces``); other
tasks find the duplicates there and write the tables. Each wave of parts is committed before the
next ones are looked at, so that the memory, the disk and what a crash loses are bounded, whatever
the size of a file, a row group or a bucket.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Generic, TypeVar

from mixup.config import IngestConfig
from mixup.mixture_config import TextConfig
from mixup.stages.manifests import Manifest, commit_stream
from mixup.stages.pieces import STAGING, Piece, clear_staging
from mixup.stages.recorded_files import forget_unreachable, record_files, with_rows_of
from mixup.stages.run import RunContext
from mixup.stages.sources import Chunk, SourceFile, chunks_of
from mixup.tables import Snapshot, snapshot
from mixup.workspace import Workspace

Config = TypeVar("Config", bound=IngestConfig | TextConfig)

_WAVE_BYTES = 16_000_000_000
_PARTITION_BYTES = 128_000_000
_TASK_BYTES = 32_000_000
_FOOTERS_AT_ONCE = 16


@dataclass(frozen=True)
class Wave(Generic[Config]):
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
    config: Config
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


@dataclass(frozen=True)
class Reading(Generic[Config]):
    """What a stage that reads files does with a wave.

    Attributes:
        stage: The stage's name.
        unit: The name of the count of what is read.
        tables: What it writes: first the table of contents, which earlier waves have written to.
        read: Reads and parses the chunks of a wave from one place to another; runs in a worker.
            Of each file it counts ``rows:``, ``quarantined:`` and, if so, ``unreachable_file:``.
        write: Writes the rows of some partitions to the tables; runs in a worker.
    """

    stage: str
    unit: str
    tables: tuple[str, ...]
    read: Callable[[Wave[Config], int, int], Staged]
    write: Callable[[Wave[Config], Sequence[Piece]], Manifest]


def read_in_waves(
    context: RunContext, config: Config, files: Sequence[SourceFile], reading: Reading[Config]
) -> Counter[str]:
    """Read files that have not been read; each wave of their chunks is committed by itself.

    Returns:
        The counts of all tasks.
    """
    workspace, (contents, *others) = context.workspace, reading.tables
    clear_staging(workspace)
    context.committer(*reading.tables, "files")  # makes the tables
    forget_unreachable(context, files)
    before = {name: snapshot(workspace, name) for name in others}
    before["quarantine"] = with_rows_of(workspace, before["quarantine"], files)
    chunks = all_chunks(files, config.chunk_bytes)
    last = {chunk.file.fingerprint: place for place, chunk in enumerate(chunks)}
    totals: Counter[str] = Counter()
    done = 0
    for number, part in enumerate(waves(chunks, _WAVE_BYTES)):
        wave = Wave(
            workspace=workspace,
            config=config,
            folder=f"{STAGING}/{context.run}-{reading.stage}-{number}",
            chunks=tuple(part),
            partitions=partitions_of(part, workspace.buckets),
            known={**before, contents: snapshot(workspace, contents)},
        )
        totals += _staged_wave(context, wave, reading)
        read = enumerate(part, done)
        ended = [chunk.file for at, chunk in read if last[chunk.file.fingerprint] == at]
        record_files(context, ended, totals)
        done += len(part)
    clear_staging(workspace)
    return totals


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


def _staged_wave(context: RunContext, wave: Wave[Config], reading: Reading[Config]) -> Counter[str]:
    filesystem, root = context.workspace.filesystem()
    filesystem.create_dir(f"{root}/{wave.folder}", recursive=True)
    try:
        return _read_and_write(context, wave, reading)
    finally:
        # On a full disk its room is needed; what cannot be removed goes as the next run starts.
        with suppress(OSError):
            filesystem.delete_dir(f"{root}/{wave.folder}")


def _read_and_write(
    context: RunContext, wave: Wave[Config], reading: Reading[Config]
) -> Counter[str]:
    committer = context.committer(*reading.tables)
    pieces: list[Piece] = []

    def staged() -> Iterator[Manifest]:
        for done in context.each(reading.read, wave, list(_reading_tasks(wave))):
            pieces.extend(done.pieces)
            yield Manifest(counts=done.counts)

    totals = commit_stream(staged(), committer, stage=reading.stage, unit=reading.unit)
    groups = [(group,) for group in writing_tasks(pieces)]
    written = context.each(reading.write, wave, groups)
    return totals + commit_stream(written, committer, stage=reading.stage, unit="new")


def _reading_tasks(wave: Wave[Config]) -> Iterator[tuple[int, int]]:
    """The chunks of each task: one, or several small ones."""
    first = 0
    for part in waves(wave.chunks, wave.config.chunk_bytes):
        yield first, first + len(part)
        first += len(part)


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
