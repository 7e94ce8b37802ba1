"""Segment: raw text → files, segments, quarantine.

Files are read in waves (``mixup.stages.waves``): tasks clean the articles of their parts and cut
them into blocks, and other tasks leave out what is there already. The memory of each of them is
bounded by an article and by what a piece holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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
from mixup.stages.manifests import Manifest
from mixup.stages.pieces import Piece, PieceWriter
from mixup.stages.run import RunContext, Stopwatch
from mixup.stages.sources import SourceFile
from mixup.stages.streams import UNREACHABLE
from mixup.stages.waves import Reading, Staged, Wave, read_in_waves
from mixup.stages.writing import Output, held_places, uid_range
from mixup.tables import scan_files

_BLOCK_ROWS = 2048
_TIME = pa.timestamp("us", tz="UTC")


def segment_files(
    context: RunContext, config: TextConfig, files: Sequence[SourceFile]
) -> StageCounts:
    """Read files that have not been read.

    Raises:
        LedgerError: If an article neither gave segments nor is in the quarantine.
    """
    watch = Stopwatch()
    totals = read_in_waves(context, config, files, _READING)
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


def segment_chunks(wave: Wave[TextConfig], first: int, end: int) -> Staged:
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


def write_segments(wave: Wave[TextConfig], pieces: Sequence[Piece]) -> Manifest:
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


def _held(wave: Wave[TextConfig], pieces: Sequence[Piece], partition: int, bucket: int) -> set[str]:
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


_READING = Reading(
    stage="segment",
    unit="articles",
    tables=("segments", "quarantine"),
    read=segment_chunks,
    write=write_segments,
)
