"""Ingest: sources → files, occurrences, records, quarantine.

Files are read in waves (``mixup.stages.waves``): tasks parse their parts row by row, and other
tasks write each content once, whatever the number of rows that have it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import pyarrow.compute as pc

from mixup.config import IngestConfig
from mixup.ledger import StageCounts
from mixup.stages.compact import compact
from mixup.stages.manifests import Manifest
from mixup.stages.parsed import parsed_blocks
from mixup.stages.pieces import Piece, PieceWriter
from mixup.stages.run import RunContext, Stopwatch, stage_state
from mixup.stages.sources import SourceFile
from mixup.stages.streams import UNREACHABLE
from mixup.stages.waves import Reading, Staged, Wave, read_in_waves
from mixup.stages.writing import held_places, write_partition


def ingest(context: RunContext, config: IngestConfig, files: Sequence[SourceFile]) -> StageCounts:
    """Read files that have not been read.

    Raises:
        LedgerError: If a row is neither new, a duplicate nor in the quarantine.
    """
    watch = Stopwatch()
    state = stage_state(
        context.workspace, "ingest", "records", inputs=[], decides=config.fingerprint()
    )
    totals = read_in_waves(context, config, files, _READING)
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


def stage_chunks(wave: Wave[IngestConfig], first: int, end: int) -> Staged:
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


def write_pieces(wave: Wave[IngestConfig], pieces: Sequence[Piece]) -> Manifest:
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


_READING = Reading(
    stage="ingest",
    unit="rows",
    tables=("records", "occurrences", "quarantine"),
    read=stage_chunks,
    write=write_pieces,
)
