"""The shuffle of curation: rows on their way from buckets to their cells, and back.

Only the rows of cells that are worked on are read. A row goes to its home with all that is known of
it, and to each cell that it visits with what a neighbor needs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixup.records import TURNS
from mixup.stages.cell import Cell, CellSettings, cell_of
from mixup.stages.cell_tasks import CellWork, rows_by_cell
from mixup.stages.pieces import Piece, PieceWriter
from mixup.stages.pool_rows import pool_rows, rows_of_uids, vectors_of
from mixup.tables import read_files
from mixup.workspace import Workspace

CurationWork = CellWork[CellSettings]

CELL_ROWS = pa.schema(
    [
        ("partition", pa.int32()),
        ("visitor", pa.bool_()),
        ("uid", pa.string()),
        ("rank", pa.int64()),
        ("offset", pa.int64()),
        ("source", pa.string()),
        ("rating", pa.int8()),
        ("vector", pa.list_(pa.float32())),
        ("licence", pa.string()),
        ("contaminated", pa.bool_()),
        ("task", pa.string()),
        ("turns", TURNS),
        ("tokens", pa.int32()),
        ("tier", pa.string()),
        ("cluster", pa.string()),
    ]
)
_KNOWN_OF_OWN = {"records": ["task", "turns", "tokens"], "curation": ["tier", "cluster"]}
_OF_ALL = ("uid", "rank", "offset", "source", "rating", "vector")


def stage_bucket(work: CurationWork, bucket: int) -> list[Piece]:
    """Write the rows of one bucket as pieces of the cells that are worked on; runs in a worker."""
    workspace, tables, settings = work.workspace, work.tables, work.settings
    places = read_files(workspace, "places", tables["places"].in_bucket(bucket))
    places = visible_in(places, work.cells)
    rows = pool_rows(workspace, tables, bucket, work.pool, settings)
    rows = joined(rows.filter(pc.is_in(rows["uid"], places["uid"])), places, ["cell", "visits"])
    for name, columns in _KNOWN_OF_OWN.items():
        found = read_files(workspace, name, tables[name].in_bucket(bucket), ["uid", *columns])
        rows = joined(rows, found, columns)
    writer = PieceWriter(workspace, work.folder, f"cells-{bucket:05d}")
    wanted = rows["uid"].combine_chunks()
    for part in vectors_of(workspace, tables, bucket, wanted, settings):
        known = joined(part, rows, [name for name in rows.column_names if name != "uid"])
        write_by_cell(writer, known, work.cells, CELL_ROWS, _OF_ALL)
    writer.flush()
    return writer.pieces


def cells_of(workspace: Workspace, pieces: Sequence[Piece]) -> Iterator[Cell]:
    """The cells of some pieces, one after another."""
    for number, rows in rows_by_cell(workspace, pieces):
        yield cell_of(number, rows)


def visible_in(places: pa.Table, cells: Collection[int]) -> pa.Table:
    """The places of rows that are at home in one of the cells, or visit one."""
    wanted = pa.array(sorted(cells), pa.int32())
    lists = places["visits"].combine_chunks()
    visiting = pc.unique(
        pc.filter(pc.list_parent_indices(lists), pc.is_in(pc.list_flatten(lists), wanted))
    )
    rows = pa.array(np.arange(places.num_rows))
    kept = pc.or_(pc.is_in(places["cell"], wanted), pc.is_in(rows, visiting.cast(pa.int64())))
    return places.filter(kept)


def joined(rows: pa.Table, others: pa.Table, columns: Sequence[str]) -> pa.Table:
    """The rows with columns of the others that have the same uid; null where there is none."""
    at = rows_of_uids(rows["uid"].combine_chunks(), others)
    for name in columns:
        rows = rows.append_column(name, others[name].combine_chunks().take(at))
    return rows


def write_by_cell(
    writer: PieceWriter,
    rows: pa.Table,
    cells: Collection[int],
    schema: pa.Schema,
    of_all: Sequence[str],
) -> None:
    """Write rows as pieces of those of the cells that they are at home in or visit.

    Args:
        writer: Takes the rows.
        rows: With the columns ``cell`` and ``visits``.
        cells: The cells that are worked on.
        schema: Of a piece, with ``partition`` and ``visitor``.
        of_all: The columns that a visitor has; the others are null there.
    """
    home = rows.append_column("partition", rows["cell"])
    home = home.filter(_wanted(home["partition"], cells))
    writer.add(_shaped(home, schema, visitor=False))
    lists = rows["visits"].combine_chunks()
    at, visited = pc.list_parent_indices(lists), pc.list_flatten(lists)
    near = rows.select(of_all).take(at).append_column("partition", visited)
    near = near.filter(_wanted(near["partition"], cells))
    writer.add(_shaped(near, schema, visitor=True))


def _wanted(numbers: pa.ChunkedArray, cells: Collection[int]) -> pa.ChunkedArray:
    return pc.is_in(numbers, pa.array(sorted(cells), pa.int32()))


def _shaped(rows: pa.Table, schema: pa.Schema, *, visitor: bool) -> pa.Table:
    """All columns of a piece; those that a visitor does not have are null."""
    rows = rows.append_column("visitor", pa.array([visitor] * rows.num_rows, pa.bool_()))
    columns = [
        rows[field.name].cast(field.type)
        if field.name in rows.column_names
        else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
