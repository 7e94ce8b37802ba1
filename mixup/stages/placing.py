"""Place: the pool's rows → their home cells, and the cells that they visit, bucket by bucket.

What comes back to the driver is a few numbers a cell. One of them is a sum of hashes over all that
decides a cell's outcome, so that cells are known that have nothing new.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixup.clusters.cells import Cells
from mixup.clusters.places import assign
from mixup.records import TABLES, content_key
from mixup.selection.licences import union
from mixup.stages.cell import CellSettings
from mixup.stages.decontaminate import contamination_of
from mixup.stages.embed import vectors_from_arrow
from mixup.stages.pool import pool_by_age
from mixup.tables import Snapshot, WrittenFile, read_files, scan_files, write_file
from mixup.workspace import Workspace

PLACED = ("occurrences", "records", "embeddings", "ratings", "contamination")
"""The tables that decide where a row belongs and what becomes of it."""

_HASHES = 1 << 128
_VECTORS = ("uid", "encoder", "reason", "vector")


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


def pool_rows(
    workspace: Workspace,
    tables: Mapping[str, Snapshot],
    bucket: int | None,
    pool: Sequence[str],
    settings: CellSettings,
) -> pa.Table:
    """The records of one bucket that are in the pool, one row each: all but texts and vectors.

    Columns: ``uid``; ``file``, ``rank`` and ``offset`` of its oldest occurrence; ``licence``, the
    union over its occurrences; ``rating``, null where unrated; ``contaminated``; and ``usable``,
    whether it has a vector.
    """
    found = pool_by_age(workspace, tables, bucket, pool)
    licences: dict[str, set[str]] = {}
    for uid, licence in zip(found["uid"].to_pylist(), found["licence"].to_pylist(), strict=True):
        licences.setdefault(uid, set()).add(licence)
    uids = pa.array(list(licences), pa.string())
    first = found.take(pc.index_in(uids, found["uid"].combine_chunks()))
    ratings = _of(workspace, tables, "ratings", bucket, ["uid", "rater", "rating"])
    ratings = ratings.filter(pc.equal(ratings["rater"], settings.rater))
    vectors = _of(workspace, tables, "embeddings", bucket, ["uid", "encoder", "reason"])
    vectors = vectors.filter(is_usable(vectors, settings))
    return pa.table(
        {
            "uid": uids,
            "file": first["file"],
            "rank": first["rank"],
            "offset": first["offset"],
            "licence": pa.array([union(found) for found in licences.values()], pa.string()),
            "rating": ratings["rating"].combine_chunks().take(_places_in(uids, ratings)),
            "contaminated": pc.is_in(uids, _contaminated(workspace, tables, bucket, settings)),
            "usable": pc.is_in(uids, vectors["uid"].combine_chunks()),
        }
    )


def is_usable(embeddings: pa.Table, settings: CellSettings) -> pa.ChunkedArray:
    """Which rows of the table of embeddings hold a vector of the encoder."""
    return pc.and_(
        pc.equal(embeddings["encoder"], settings.encoder), pc.is_null(embeddings["reason"])
    )


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
    held = read_files(workspace, "places", before)
    held = held.filter(
        pc.and_(_still_right(held, cells, fit), pc.is_in(held["uid"], usable["uid"]))
    )
    placed_before = pc.is_in(usable["uid"], held["uid"].combine_chunks())
    missing = usable.filter(pc.invert(placed_before))
    placement = Placement(rows=rows.num_rows, blind=rows.num_rows - usable.num_rows)
    placed = [held]
    wanted = missing["uid"].combine_chunks()
    for part in vectors_of(workspace, tables, bucket, wanted, settings):
        uids = part["uid"].to_pylist()
        found = assign(
            vectors_from_arrow(part["vector"]),
            cells,
            border=settings.curate.cell_border,
            most=settings.curate.cell_copies,
            uids=uids,
        )
        placement.new += len(uids)
        placement.similarity += float(found.similarities_N.sum())
        visits = [[cell for cell in row if cell >= 0] for row in found.visits_NV.tolist()]
        columns = [uids, [fit] * len(uids), found.homes_N, visits]
        placed.append(pa.table(columns, schema=TABLES["places"].file_schema))
    places = pa.concat_tables(placed)
    _describe(placement, usable, places)
    if not missing.num_rows and places.num_rows == _rows_in(workspace, before):
        return PlacedBucket(placement)
    files = [write_file(workspace, "places", places, bucket)] if places.num_rows else []
    return PlacedBucket(placement, files, before)


def vectors_of(
    workspace: Workspace,
    tables: Mapping[str, Snapshot],
    bucket: int | None,
    wanted: pa.Array,
    settings: CellSettings,
) -> Iterable[pa.Table]:
    """The uids and vectors of the wanted rows of one bucket, a row group at a time."""
    if not len(wanted):
        return
    columns = ["uid", "encoder", "reason", "vector"]
    for part in scan_files(
        workspace, "embeddings", tables["embeddings"].in_bucket(bucket), columns
    ):
        mine = part.filter(pc.and_(is_usable(part, settings), pc.is_in(part["uid"], wanted)))
        if mine.num_rows:
            yield mine.select(["uid", "vector"])


def _of(
    workspace: Workspace,
    tables: Mapping[str, Snapshot],
    name: str,
    bucket: int | None,
    columns: list[str],
) -> pa.Table:
    found = tables[name]
    paths = found.paths if bucket is None else found.in_bucket(bucket)
    return read_files(workspace, name, paths, columns)


def _places_in(uids: pa.Array, rows: pa.Table) -> pa.Array:
    return pc.index_in(uids, rows["uid"].combine_chunks())


def _contaminated(
    workspace: Workspace,
    tables: Mapping[str, Snapshot],
    bucket: int | None,
    settings: CellSettings,
) -> pa.Array:
    if settings.questions is None:
        return pa.array([], pa.string())
    hits = contamination_of(
        workspace, tables["contamination"], bucket, settings.questions, only_hits=True
    )
    return hits["uid"].combine_chunks()


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


def _rows_in(workspace: Workspace, paths: Sequence[str]) -> int:
    return read_files(workspace, "places", paths, ["uid"]).num_rows


def _describe(placement: Placement, usable: pa.Table, places: pa.Table) -> None:
    """Add each row to what is known of its cells."""
    places = places.take(_places_in(usable["uid"].combine_chunks(), places))
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


def uniform(uid: str) -> float:
    """A number from 0 to 1 that a row's key decides, for draws that depend on nothing else."""
    return int(uid[-8:], 16) / (1 << 32)


def drawn_vectors(
    workspace: Workspace, tables: Mapping[str, Snapshot], settings: CellSettings, share: float
) -> tuple[list[str], np.ndarray]:
    """The uids and vectors of a share of all rows with a vector, drawn by their keys."""
    uids: list[str] = []
    vectors: list[np.ndarray] = []
    for part in scan_files(workspace, "embeddings", tables["embeddings"].paths, _VECTORS):
        mine = part.filter(is_usable(part, settings))
        drawn = [uniform(uid) < share for uid in mine["uid"].to_pylist()]
        mine = mine.filter(pa.array(drawn, pa.bool_()))
        if mine.num_rows:
            uids += mine["uid"].to_pylist()
            vectors.append(vectors_from_arrow(mine["vector"]))
    return uids, np.concatenate(vectors) if vectors else np.empty((0, 0), np.float32)
