"""Work by cell, whatever is done there: rows come together, are worked off, and go back.

Curation (``curate``) and mixing (``mix``) place every row in a cell, bring the rows of the cells in
which something has changed together, work these cells off in tasks, and take the outcomes back to
their buckets. The memory of a task is bounded by a cell or by a bucket, and the driver holds the
places of pieces and a few numbers a cell.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Generic, TypeVar

import pyarrow as pa

from mixup.errors import LedgerError
from mixup.lock import ensure_held
from mixup.records import bucket_of
from mixup.stages.cell import CellSettings
from mixup.stages.fitted_cells import place_pool
from mixup.stages.pieces import STAGING, Piece, PieceWriter, by_partition
from mixup.stages.placing import Placement
from mixup.stages.pool_rows import POOLED
from mixup.stages.run import RunContext
from mixup.tables import Snapshot, snapshot
from mixup.workspace import Workspace

Settings = TypeVar("Settings")

_TASK_ROWS = 40_000


@dataclass(frozen=True)
class CellWork(Generic[Settings]):
    """What is to be done of a pool's cells.

    Attributes:
        workspace: Where the tables are.
        tables: The tables that are read.
        pool: The files of the pool.
        settings: What decides.
        folder: Where pieces lie in the workspace.
        alive: The cells that have rows.
        cells: Those of them that are to be done.
    """

    workspace: Workspace
    tables: Mapping[str, Snapshot]
    pool: Sequence[str]
    settings: Settings
    folder: str
    alive: frozenset[int]
    cells: frozenset[int]

    @property
    def others(self) -> frozenset[int]:
        """The cells whose outcomes stay as they are."""
        return self.alive - self.cells

    @property
    def buckets(self) -> list[int]:
        """The buckets of records."""
        return self.tables["occurrences"].buckets

    def only(self, cells: Iterable[int]) -> CellWork[Settings]:
        """The same with some of its cells to do."""
        return replace(self, cells=frozenset(cells))


@dataclass(frozen=True)
class Placed(Generic[Settings]):
    """A pool whose rows have all been placed.

    Attributes:
        work: The work on all of its cells.
        placement: What is known of each cell.
        fit: The key of the cells' fit.
    """

    work: CellWork[Settings]
    placement: Placement
    fit: str

    def keys(self, decides: object) -> dict[int, str]:
        """A key of all that decides the outcome of each cell, with JSON data of what else does."""
        cells = sorted(self.work.alive)
        return {cell: self.placement.cells[cell].key(decides) for cell in cells}


def place_work(
    context: RunContext,
    settings: Settings,
    cells: CellSettings,
    *,
    outcomes: Sequence[str],
    folder: str,
) -> Placed[Settings]:
    """Place the rows of the pool in cells, all of which are then to be done.

    Args:
        context: The run.
        settings: What decides the work.
        cells: What decides the cells.
        outcomes: The tables that the work writes.
        folder: The name of the folder of its pieces, after the run's.
    """
    workspace = context.workspace
    context.committer("places", "contamination", *outcomes)  # makes the tables
    tables = {name: snapshot(workspace, name) for name in (*POOLED, "places", "files", *outcomes)}
    fitted, placement, places = place_pool(context, cells, tables)
    every = frozenset(cell for cell, found in placement.cells.items() if found.rows)
    work = CellWork(
        workspace=workspace,
        tables={**tables, "places": places},
        pool=context.pool,
        settings=settings,
        folder=f"{STAGING}/{context.run}-{folder}",
        alive=every,
        cells=every,
    )
    return Placed(work, placement, fitted.fit)


@dataclass(frozen=True)
class CellsDone:
    """The key with which each cell was last done, kept in a file of the workspace."""

    workspace: Workspace
    path: str

    def changed(self, keys: Mapping[int, str]) -> frozenset[int]:
        """The cells that are not as they were when they were last done."""
        done = self._read()
        return frozenset(cell for cell, key in keys.items() if done.get(str(cell)) != key)

    def forget_but(self, cells: frozenset[int]) -> None:
        """The others are done now: as no run left them, until all of them are committed."""
        done = self._read()
        kept = {cell: key for cell, key in done.items() if int(cell) in cells}
        if kept != done:
            self.workspace.write_json(self.path, kept)

    def remember(self, keys: Mapping[int, str]) -> None:
        """All cells are as they should be, now that the outcomes are committed."""
        self.workspace.write_json(self.path, {str(cell): key for cell, key in keys.items()})

    def _read(self) -> dict[str, str]:
        return self.workspace.read_json(self.path) or {}


def staged_rows(
    context: RunContext,
    work: CellWork[Settings],
    stage: Callable[[CellWork[Settings], int], list[Piece]],
) -> list[Piece]:
    """Bring the rows of the cells that are to be done together.

    Args:
        context: The run.
        work: The cells.
        stage: Writes the rows of one bucket as pieces of these cells; runs in a worker.
    """
    buckets = work.buckets if work.cells else []
    found = context.each(stage, work, [(bucket,) for bucket in buckets])
    return [piece for pieces in found for piece in pieces]


def groups_of(pieces: Sequence[Piece], placement: Placement) -> Iterator[list[Piece]]:
    """The pieces of each task: those of one cell, or of several small ones."""
    group: list[Piece] = []
    held = 0
    for cell, own in _by_cell(pieces):
        rows = placement.cells[cell].rows + placement.cells[cell].visitors
        if group and held + rows > _TASK_ROWS:
            yield group
            group, held = [], 0
        group += own
        held += rows
    if group:
        yield group


def rows_by_cell(workspace: Workspace, pieces: Sequence[Piece]) -> Iterator[tuple[int, pa.Table]]:
    """The cells of some pieces and their rows, one after another; runs in a worker."""
    for cell, own in _by_cell(pieces):
        yield cell, pa.concat_tables([piece.read(workspace) for piece in own])


def _by_cell(pieces: Sequence[Piece]) -> Iterator[tuple[int, list[Piece]]]:
    ordered = sorted(pieces, key=lambda piece: (piece.partition, piece.path))
    for cell, own in groupby(ordered, key=lambda piece: piece.partition):
        yield cell, list(own)


def outcomes_by_key(
    work: CellWork[Settings],
    pieces: Sequence[Piece],
    tables: Sequence[str],
    outcomes: Iterable[Sequence[pa.Table]],
) -> dict[str, list[Piece]]:
    """Write the outcomes of some cells as pieces by bucket, for each table; runs in a worker.

    Args:
        work: The cells.
        pieces: The rows of these cells, which name the files.
        tables: The tables.
        outcomes: Of each cell its rows of each of them, the key as their first column.
    """
    buckets, name = work.workspace.buckets, f"{pieces[0].partition:07d}"
    writers = [PieceWriter(work.workspace, work.folder, f"{table}-{name}") for table in tables]
    for found in outcomes:
        for writer, rows in zip(writers, found, strict=True):
            placed = [bucket_of(key, buckets) for key in rows[0].to_pylist()]
            writer.add(rows.append_column("partition", pa.array(placed, pa.int32())))
    for writer in writers:
        writer.flush()
    return {table: writer.pieces for table, writer in zip(tables, writers, strict=True)}


def by_bucket(
    done: Iterable[Mapping[str, Sequence[Piece]]], tables: Sequence[str]
) -> dict[str, defaultdict[int, list[Piece]]]:
    """The pieces of each bucket of each table, from those of all tasks."""
    parts = list(done)
    return {name: by_partition(piece for part in parts for piece in part[name]) for name in tables}


def checked_totals(
    context: RunContext, placed: Placed[Settings], work: CellWork[Settings], totals: Counter[str]
) -> Counter[str]:
    """The counts of all outcomes, and of the cells, once it is sure that they are complete.

    Raises:
        LedgerError: If a row has no outcome, or two.
        TableError: If the run has lost the workspace's lock.
    """
    rows = placed.placement.rows
    if totals["rows"] != rows:
        raise LedgerError(f"{rows} rows were placed and {totals['rows']} have an outcome")
    ensure_held(context.workspace, context.token)
    return totals + Counter(cells=len(work.alive), cells_done=len(work.cells))
