"""The rows of a rated library: which rows of a workspace are rated, and why the others are not.

Tasks look at one bucket each. First they count, so that it is known which share of a task type's
rows is drawn; then they write the rows that are drawn as pieces by task type.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mixup.mixture.items import CONSTRUCTION
from mixup.selection.licences import allowed
from mixup.stages.cell import CellSettings
from mixup.stages.cell_rows import joined
from mixup.stages.outcomes import NO_EMBEDDING
from mixup.stages.pieces import Piece, PieceWriter
from mixup.stages.pool_rows import POOLED, pool_rows, uniform, vectors_of
from mixup.stages.rate import UNRATED
from mixup.tables import Snapshot, read_files
from mixup.workspace import Workspace

READ = (*POOLED, "files", "targets")
"""The tables that decide which rows of a workspace are in a library."""

BY_CONSTRUCTION = "by_construction"
"""The class follows from how the row was made, which is no observation."""
HELD_OUT = "held_out"
"""The row is in a mixture's split for tests or validation."""
LICENCE = "licence"
OVER_MAX_ROWS = "over_max_rows"
"""The task type has more rows than a library takes."""

_KNOWN: Mapping[str, Sequence[str]] = {
    "records": ["task"],
    "ratings": ["rater", "source", "reason"],
    "targets": ["split", "rating_source"],
}
_HELD_OUT_SPLITS = ("test", "validation")
CANDIDATES = pa.schema(
    [
        ("partition", pa.int32()),
        ("uid", pa.string()),
        ("place", pa.int32()),
        ("rank", pa.int64()),
        ("offset", pa.int64()),
        ("rating", pa.int8()),
        ("source", pa.string()),
        ("vector", pa.list_(pa.float32())),
    ]
)
"""A row on its way to its task type. ``place`` is that of its source among the library's."""


@dataclass(frozen=True)
class RatedSource:
    """A workspace from which rated rows are taken; it is only read.

    Attributes:
        workspace: The workspace.
        tables: Snapshots of ``READ``.
        pool: The files whose rows count.
        settings: The encoder and the rater.
        licences: The licences that are allowed; None: all.
    """

    workspace: Workspace
    tables: Mapping[str, Snapshot]
    pool: Sequence[str]
    settings: CellSettings
    licences: Sequence[str] | None

    @property
    def buckets(self) -> list[int]:
        """The buckets that hold rows."""
        return self.tables["occurrences"].buckets

    def versions(self) -> dict[str, int]:
        """The versions of the tables."""
        return {name: found.version for name, found in sorted(self.tables.items())}


def judged_rows(source: RatedSource, bucket: int) -> pa.Table:
    """The rows of one bucket with their ``task``, ``rating``, ``source`` and ``reason``.

    A row without a reason is one that the library may hold; the first reason that fits is given.
    """
    workspace, tables = source.workspace, source.tables
    rows = pool_rows(workspace, tables, bucket, source.pool, source.settings)
    rows = rows.drop_columns(["source"])  # of the row; from here on it is that of the rating
    for name, columns in _KNOWN.items():
        found = read_files(workspace, name, tables[name].in_bucket(bucket), ["uid", *columns])
        if name == "ratings":
            found = found.filter(pc.equal(found["rater"], source.settings.rater))
        rows = joined(rows, found, [column for column in columns if column != "rater"])
    known = rows.select(["rating", "reason", "split", "rating_source", "licence", "usable"])
    reasons = [reason_of(row, source.licences) for row in known.to_pylist()]
    place = rows.schema.get_field_index("reason")
    return rows.set_column(place, "reason", pa.array(reasons, pa.string()))


def reason_of(row: Mapping[str, object], licences: Sequence[str] | None) -> str | None:
    """Why a row is not in the library; None where it may be."""
    if row["rating"] is None:
        by_construction = row["rating_source"] == CONSTRUCTION
        return BY_CONSTRUCTION if by_construction else str(row["reason"] or UNRATED)
    if not allowed(str(row["licence"]), licences):
        return LICENCE
    if row["split"] in _HELD_OUT_SPLITS:
        return HELD_OUT
    return None if row["usable"] else NO_EMBEDDING


def count_bucket(sources: Sequence[RatedSource], place: int, bucket: int) -> Counter[str]:
    """The rows of one bucket of a source: by reason, others by ``task:`` and their task type."""
    rows = judged_rows(sources[place], bucket)
    pairs = zip(rows["reason"].to_pylist(), rows["task"].to_pylist(), strict=True)
    return Counter(reason or f"task:{task}" for reason, task in pairs)


@dataclass(frozen=True)
class Drawing:
    """What the tasks share that write rows.

    Attributes:
        workspace: The workspace of the library.
        sources: Where its rows come from.
        tasks: The task types; their order is that of the partitions.
        shares: Of each of them the share of its rows that is drawn.
        folder: Where pieces lie in the workspace.
    """

    workspace: Workspace
    sources: Sequence[RatedSource]
    tasks: Sequence[str]
    shares: Sequence[float]
    folder: str


def draw_bucket(drawing: Drawing, place: int, bucket: int) -> tuple[list[Piece], int]:
    """Write the rows of one bucket that are drawn; their pieces, and how many others there were."""
    source = drawing.sources[place]
    rows = judged_rows(source, bucket)
    rows = rows.filter(pc.is_null(rows["reason"]))
    partitions = [drawing.tasks.index(task) for task in rows["task"].to_pylist()]
    drawn = [
        uniform(uid) < drawing.shares[at]
        for uid, at in zip(rows["uid"].to_pylist(), partitions, strict=True)
    ]
    rows = rows.append_column("partition", pa.array(partitions, pa.int32()))
    rows = rows.append_column("place", pa.array([place] * rows.num_rows, pa.int32()))
    rows = rows.filter(pa.array(drawn, pa.bool_()))
    writer = PieceWriter(drawing.workspace, drawing.folder, f"rows-{place:02d}-{bucket:05d}")
    wanted = rows["uid"].combine_chunks()
    names = [name for name in CANDIDATES.names if name not in ("uid", "vector")]
    for part in vectors_of(source.workspace, source.tables, bucket, wanted, source.settings):
        writer.add(joined(part, rows, names).select(CANDIDATES.names).cast(CANDIDATES))
    writer.flush()
    return writer.pieces, len(drawn) - sum(drawn)
