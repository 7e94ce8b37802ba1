"""Writing one partition of a wave: its duplicates found, its rows in the tables, in bounded memory.

All rows of equal content are in one partition, and its pieces come in the order of paths and
places, so that the first of equal rows is known without sorting them, or holding them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from mixup.commits import WrittenFile, write_file
from mixup.stages.manifests import Manifest
from mixup.stages.pieces import Piece
from mixup.tables import Snapshot, scan_files
from mixup.workspace import Workspace

Places = set[tuple[str, int]]
"""(file fingerprint, offset) of rows."""

_FILE_BYTES = 64_000_000
_TIME = pa.timestamp("us", tz="UTC")


class Output:
    """Rows on their way into files of one table and bucket, some megabytes each.

    Attributes:
        files: Those that are written.
    """

    def __init__(self, workspace: Workspace, table: str, bucket: int | None) -> None:
        self.files: list[WrittenFile] = []
        self._workspace, self._table, self._bucket = workspace, table, bucket
        self._held: list[pa.Table] = []
        self._bytes = 0

    def add(self, rows: pa.Table) -> None:
        """Take rows; writes a file when enough are held."""
        if rows.num_rows:
            self._held.append(rows)
            self._bytes += rows.nbytes
        if self._bytes >= _FILE_BYTES:
            self.flush()

    def flush(self) -> list[WrittenFile]:
        """Write what is held; all files so far."""
        if self._held:
            rows, self._held, self._bytes = pa.concat_tables(self._held), [], 0
            self.files.append(write_file(self._workspace, self._table, rows, self._bucket))
        return self.files


def write_partition(
    workspace: Workspace,
    pieces: Sequence[Piece],
    *,
    partition: int,
    partitions: int,
    known: Mapping[str, Snapshot],
    files: Sequence[str],
    quarantined: Places,
) -> Manifest:
    """Write the rows of one partition; those that an interrupted run wrote already are left alone.

    Args:
        workspace: Where the tables are.
        pieces: The partition's pieces, in the order of paths and places.
        partition: Its number.
        partitions: How many there are, a multiple of the workspace's buckets.
        known: What ``records`` and ``occurrences`` held before.
        files: The fingerprints of the files that are read.
        quarantined: The places of these files that are in the quarantine already.
    """
    bucket = partition * workspace.buckets // partitions
    span = uid_range(partition, partitions)
    seen = _held_uids(workspace, pieces, known["records"].in_bucket(bucket), span)
    placed = held_places(workspace, known["occurrences"], files, bucket=bucket, span=span)
    bad = Output(workspace, "quarantine", None)
    records = Output(workspace, "records", bucket)
    occurrences = Output(workspace, "occurrences", bucket)
    counts: Counter[str] = Counter()
    for piece in pieces:
        rows = piece.read(workspace)
        good = rows.filter(pc.is_null(rows["reason"]))
        refused = _not_yet(rows.filter(pc.is_valid(rows["reason"])), quarantined)
        now = pa.array([datetime.now(UTC)] * refused.num_rows, _TIME)
        bad.add(refused.append_column("seen_at", now))
        new = good.filter(_first(good, seen))
        records.add(new)
        occurrences.add(_not_yet(good, placed))
        counts.update(new=new.num_rows, duplicate=good.num_rows - new.num_rows)
    return Manifest([*records.flush(), *occurrences.flush(), *bad.flush()], counts=counts)


def uid_range(partition: int, partitions: int) -> tuple[str, str]:
    """The least key of a partition, and one that is above all of its keys."""
    low, high = (-(-number * (1 << 32) // partitions) for number in (partition, partition + 1))
    return f"{low:08x}", f"{high:08x}" if high < 1 << 32 else "g"


def _first(rows: pa.Table, seen: set[str]) -> pa.Array:
    """Which rows are the first with their uid; ``seen`` takes the uids."""
    first: list[bool] = []
    for uid in rows["uid"].to_pylist():
        first.append(uid not in seen)
        seen.add(uid)
    return pa.array(first, pa.bool_())


def _held_uids(
    workspace: Workspace, pieces: Sequence[Piece], paths: Sequence[str], span: tuple[str, str]
) -> set[str]:
    """The uids among those of the pieces that the table holds; the table's others are not kept."""
    if not paths:
        return set()
    uids = pa.concat_tables([piece.read(workspace, ["uid"]) for piece in pieces])["uid"]
    wanted = pc.unique(uids).drop_null()
    found: set[str] = set()
    for rows in scan_files(workspace, "records", paths, ["uid"], within={"uid": span}):
        found.update(rows["uid"].filter(pc.is_in(rows["uid"], wanted)).to_pylist())
    return found


def held_places(
    workspace: Workspace,
    held: Snapshot,
    files: Sequence[str],
    *,
    bucket: int | None = None,
    span: tuple[str, str] | None = None,
) -> Places:
    """The places of some files of which a table has rows: those that an interrupted run wrote.

    Args:
        workspace: Where the table is.
        held: The table, ``occurrences`` or ``quarantine``.
        files: Fingerprints, sorted.
        bucket: The bucket to look in.
        span: The keys to look for, from the least to below the second; all of them without it.
    """
    paths = held.in_bucket(bucket)
    if not paths or not files:
        return set()
    columns = ["file", "offset", *(["uid"] if span else [])]
    mine = pa.array(files, pa.string())
    places: Places = set()
    for rows in scan_files(
        workspace, held.table, paths, columns, within={"file": (files[0], files[-1])}
    ):
        found = rows.filter(pc.is_in(rows["file"], mine))
        if span and found.num_rows:
            inside = pc.and_(
                pc.greater_equal(found["uid"], span[0]), pc.less(found["uid"], span[1])
            )
            found = found.filter(inside)
        places.update(zip(found["file"].to_pylist(), found["offset"].to_pylist(), strict=True))
    return places


def _not_yet(rows: pa.Table, held: Places) -> pa.Table:
    """The rows whose place is not held."""
    if not held or not rows.num_rows:
        return rows
    here = zip(rows["file"].to_pylist(), rows["offset"].to_pylist(), strict=True)
    return rows.filter(pa.array([place not in held for place in here], pa.bool_()))
