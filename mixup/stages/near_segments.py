"""Near: segments that say what an older one says → ``segments.duplicate_of``.

Tasks write the sketches of one bucket's segments as pieces by band; other tasks compare the
segments that have a band in common; the outcomes go back to the buckets. Only segments of the run's
files count, and a bucket in which nothing changes is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixup.commits import write_file
from mixup.ledger import StageCounts
from mixup.mixture.near_text import HASHES, bands_of, leaders_of
from mixup.records import bucket_of
from mixup.stages.compact import compact
from mixup.stages.manifests import Manifest, commit_stream
from mixup.stages.pieces import STAGING, Piece, PieceWriter, by_partition, staging
from mixup.stages.run import RunContext, StageState, Stopwatch, stage_state
from mixup.tables import Snapshot, read_files, scan_files, snapshot
from mixup.workspace import Workspace

_BANDED = pa.schema(
    [
        ("partition", pa.int32()),
        ("band", pa.string()),
        ("segment", pa.string()),
        ("rank", pa.int64()),
        ("offset", pa.int64()),
        ("number", pa.int32()),
        ("sketch", pa.binary()),
    ]
)
_FOUND = pa.schema(
    [("partition", pa.int32()), ("segment", pa.string()), ("duplicate_of", pa.string())]
)
_KNOWN = ["segment", "file", "offset", "number", "sketch"]


@dataclass(frozen=True)
class NearWork:
    """What the tasks share.

    Attributes:
        workspace: The workspace.
        segments: The table as it was.
        ranks: The rank of each file of the run, the oldest first.
        threshold: The least similarity of near-duplicates.
        folder: Where pieces lie in the workspace.
    """

    workspace: Workspace
    segments: Snapshot
    ranks: Mapping[str, int]
    threshold: float
    folder: str


def near_state(context: RunContext, threshold: float, files: Sequence[str]) -> StageState:
    """Whether the segments of these files have been compared with one another."""
    decides = [threshold, sorted(files)]
    return stage_state(context.workspace, "near", "segments", inputs=[], decides=decides)


def mark_near(
    context: RunContext, state: StageState, threshold: float, files: Sequence[str]
) -> StageCounts:
    """Note of each segment which older one it nearly repeats.

    Raises:
        LedgerError: If a segment is neither kept nor a near-duplicate.
    """
    watch = Stopwatch()
    workspace = context.workspace
    committer = context.committer("segments")
    folder = f"{STAGING}/{context.run}-near"
    segments = snapshot(workspace, "segments")
    work = NearWork(workspace, segments, _ranks(workspace, files), threshold, folder)
    with staging(workspace, folder):
        staged = context.each(band_bucket, work, [(b,) for b in segments.buckets])
        banded = by_partition(chain.from_iterable(staged))
        groups = [(pieces,) for _, pieces in sorted(banded.items())]
        found = by_partition(chain.from_iterable(context.each(compare_bands, work, groups)))
        arguments = [(bucket, found[bucket]) for bucket in segments.buckets]
        written = context.each(note_bucket, work, arguments)
        totals = commit_stream(written, committer, stage="near", unit="segments")
    counts = StageCounts(
        stage="near",
        unit="segments",
        rows_in=totals["segments"],
        parts={name: totals[name] for name in ("kept", "near_duplicate")},
        seconds=watch.seconds,
    ).check()
    compact(context, "segments")
    committer.complete("segments", state.completion(context.run, dict(counts.parts)))
    return counts.log()


def _ranks(workspace: Workspace, files: Sequence[str]) -> dict[str, int]:
    """The order in which files were read, as for the rows of a pool."""
    columns = ["fingerprint", "ingested_at", "path"]
    rows = read_files(workspace, "files", snapshot(workspace, "files").paths, columns)
    rows = rows.sort_by([("ingested_at", "ascending"), ("path", "ascending")])
    wanted = set(files)
    ordered = [found for found in rows["fingerprint"].to_pylist() if found in wanted]
    return {fingerprint: rank for rank, fingerprint in enumerate(ordered)}


def band_bucket(work: NearWork, bucket: int) -> list[Piece]:
    """Write the sketches of one bucket's segments, once for each band; runs in a worker."""
    writer = PieceWriter(work.workspace, work.folder, f"bands-{bucket:05d}")
    paths = work.segments.in_bucket(bucket)
    for part in scan_files(work.workspace, "segments", paths, _KNOWN):
        rows = [
            {
                **{name: row[name] for name in ("segment", "offset", "number", "sketch")},
                "partition": bucket_of(band, work.workspace.buckets),
                "band": band,
                "rank": work.ranks[row["file"]],
            }
            for row in part.to_pylist()
            if row["file"] in work.ranks
            for band in bands_of(np.frombuffer(row["sketch"], dtype="<u4"))
        ]
        writer.add(pa.Table.from_pylist(rows, schema=_BANDED))
    writer.flush()
    return writer.pieces


def compare_bands(work: NearWork, pieces: Sequence[Piece]) -> list[Piece]:
    """Compare the segments of one partition's bands; runs in a worker.

    The oldest is first in its band, so that of two segments it is never the older one that goes.
    """
    partition = pieces[0].partition
    writer = PieceWriter(work.workspace, work.folder, f"near-{partition:05d}")
    rows = pa.concat_tables([piece.read(work.workspace) for piece in pieces])
    order = ["band", "rank", "offset", "number", "segment"]
    rows = rows.sort_by([(name, "ascending") for name in order])
    found: dict[str, str] = {}
    bands = rows["band"].to_pylist()
    for _, places in groupby(range(len(bands)), key=bands.__getitem__):
        at = list(places)
        if len(at) < 2:
            continue
        same = rows.slice(at[0], len(at))
        sketches = np.frombuffer(b"".join(same["sketch"].to_pylist()), dtype="<u4")
        keys = same["segment"].to_pylist()
        for row, leader in enumerate(leaders_of(sketches.reshape(-1, HASHES), work.threshold)):
            if leader != row:
                found[keys[row]] = min(keys[leader], found.get(keys[row]) or keys[leader])
    made = [
        {"partition": bucket_of(key, work.workspace.buckets), "segment": key, "duplicate_of": of}
        for key, of in sorted(found.items())
    ]
    writer.add(pa.Table.from_pylist(made, schema=_FOUND))
    writer.flush()
    return writer.pieces


def note_bucket(work: NearWork, bucket: int, pieces: Sequence[Piece]) -> Manifest:
    """Write what was found of one bucket's segments, where it is new; runs in a worker."""
    found: dict[str, str] = {}
    for piece in pieces:
        for row in piece.read(work.workspace).to_pylist():
            key, of = row["segment"], row["duplicate_of"]
            found[key] = min(of, found.get(key) or of)
    files, removed, counts = [], [], {"segments": 0, "kept": 0, "near_duplicate": 0}
    for path in work.segments.in_bucket(bucket):
        rows = read_files(work.workspace, "segments", [path])
        mine = pc.is_in(rows["file"], pa.array(sorted(work.ranks), pa.string()))
        keys, held = rows["segment"].to_pylist(), rows["duplicate_of"].to_pylist()
        now = [
            found.get(key) if is_mine else before
            for key, is_mine, before in zip(keys, mine.to_pylist(), held, strict=True)
        ]
        near = sum(
            found.get(k) is not None for k, m in zip(keys, mine.to_pylist(), strict=True) if m
        )
        total = pc.sum(mine).as_py() or 0
        counts["segments"] += total
        counts["near_duplicate"] += near
        counts["kept"] += total - near
        if now != held:
            place = rows.schema.get_field_index("duplicate_of")
            rows = rows.set_column(place, "duplicate_of", pa.array(now, pa.string()))
            files.append(write_file(work.workspace, "segments", rows, bucket))
            removed.append(path)
    return Manifest(files, {"segments": removed} if removed else {}, counts)
