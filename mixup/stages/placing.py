"""Place: the pool's rows → their home cells, and the cells that they visit, bucket by bucket.

What comes back to the driver is a few numbers a cell. One of them is a sum of hashes over all that
decides a cell's outcome, so that cells are known that have nothing new.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from mixup.clusters.cells import Cells
from mixup.clusters.places import assign
from mixup.commits import WrittenFile, write_file
from mixup.records import TABLES, content_key
from mixup.stages.cell import CellSettings
from mixup.stages.embed import vectors_from_arrow
from mixup.stages.pool_rows import pool_rows, rows_of_uids, vectors_of
from mixup.tables import Snapshot, read_files
from mixup.workspace import Workspace

_HASHES = 1 << 128


@dataclass
class CellInput:
    """What is known of a cell before it is read.

    Attributes:
        rows: Rows at home in it.
        visitors: Rows of other cells that visit it.
        rated: Rows at home in it that are rated.
        content: The sum of the hashes of all of these, modulo 2**128.
    """

    rows: int = 0
    visitors: int = 0
    rated: int = 0
    content: int = 0

    def add(self, other: CellInput) -> None:
        """Take the part of another bucket."""
        self.rows += other.rows
        self.visitors += other.visitors
        self.rated += other.rated
        self.content = (self.content + other.content) % _HASHES

    def key(self, decides: object) -> str:
        """A key of the cell's input and of what else decides its outcome."""
        return content_key(self.rows, self.visitors, f"{self.content:x}", decides)


@dataclass
class Placement:
    """The places of the rows of some buckets.

    Attributes:
        cells: What is known of each cell that has rows or visitors.
        rows: The pool's rows.
        blind: Those of them without a vector, which have no cell.
        new: Rows that were placed now.
        similarity: The sum, over those, of their cosine similarity to the centroid of their home.
    """

    cells: dict[int, CellInput] = field(default_factory=dict)
    rows: int = 0
    blind: int = 0
    new: int = 0
    similarity: float = 0.0

    def add(self, other: Placement) -> None:
        """Take the part of another bucket."""
        for cell, found in other.cells.items():
            self.cells.setdefault(cell, CellInput()).add(found)
        self.rows += other.rows
        self.blind += other.blind
        self.new += other.new
        self.similarity += other.similarity


@dataclass(frozen=True)
class PlacedBucket:
    """What a placing task did: its part of the placement, and the files that it wrote."""

    placement: Placement
    files: Sequence[WrittenFile] = ()
    removed: Sequence[str] = ()


def place_bucket(
    workspace: Workspace,
    tables: Mapping[str, Snapshot],
    bucket: int | None,
    pool: Sequence[str],
    settings: CellSettings,
    cells: Cells,
    fit: str,
) -> PlacedBucket:
    """Place the rows of one bucket that have no place yet; runs in a worker."""
    rows = pool_rows(workspace, tables, bucket, pool, settings)
    usable = rows.filter(rows["usable"])
    before = tables["places"].in_bucket(bucket)
    stored = read_files(workspace, "places", before)
    held = stored.filter(
        pc.and_(_still_right(stored, cells, fit), pc.is_in(stored["uid"], usable["uid"]))
    )
    placed_before = pc.is_in(usable["uid"], held["uid"].combine_chunks())
    missing = usable.filter(pc.invert(placed_before))
    placement = Placement(rows=rows.num_rows, blind=rows.num_rows - usable.num_rows)
    placed = [held]
    wanted = missing["uid"].combine_chunks()
    for part in vectors_of(workspace, tables, bucket, wanted, settings):
        uids = part["uid"].to_pylist()
        found = assign(vectors_from_arrow(part["vector"]), cells, uids=uids)
        placement.new += len(uids)
        placement.similarity += float(found.similarities_N.sum())
        visits = [[cell for cell in row if cell >= 0] for row in found.visits_NV.tolist()]
        columns = [uids, [fit] * len(uids), found.homes_N, visits]
        placed.append(pa.table(columns, schema=TABLES["places"].file_schema))
    places = pa.concat_tables(placed)
    _describe(placement, usable, places)
    if not missing.num_rows and places.num_rows == stored.num_rows:
        return PlacedBucket(placement)
    files = [write_file(workspace, "places", places, bucket)] if places.num_rows else []
    return PlacedBucket(placement, files, before)


def _still_right(places: pa.Table, cells: Cells, fit: str) -> pa.Array:
    """Which places are of this fit and name only cells that were not split since."""
    leaves = set(cells.ids.tolist())
    right = [
        of == fit and cell in leaves and leaves.issuperset(visits)
        for of, cell, visits in zip(
            places["fit"].to_pylist(),
            places["cell"].to_pylist(),
            places["visits"].to_pylist(),
            strict=True,
        )
    ]
    return pa.array(right, pa.bool_())


def _describe(placement: Placement, usable: pa.Table, places: pa.Table) -> None:
    """Add each row to what is known of its cells."""
    places = places.take(rows_of_uids(usable["uid"].combine_chunks(), places))
    columns = [usable[name].to_pylist() for name in ("uid", "rating", "file", "offset")]
    rest = zip(usable["licence"].to_pylist(), usable["contaminated"].to_pylist(), strict=True)
    cells = zip(places["cell"].to_pylist(), places["visits"].to_pylist(), strict=True)
    for seen, own, (cell, visits) in zip(zip(*columns, strict=True), rest, cells, strict=True):
        home = placement.cells.setdefault(cell, CellInput())
        content = int(content_key("own", *seen, *own), 16)
        home.add(CellInput(rows=1, rated=int(seen[1] is not None), content=content))
        for visited in visits:
            content = int(content_key("visitor", *seen), 16)
            there = placement.cells.setdefault(visited, CellInput())
            there.add(CellInput(visitors=1, content=content))
