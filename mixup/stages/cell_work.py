"""The work on a pool's cells: their rows are brought together, done, and taken to the tables.

Each function here runs in the driver, but for those that say otherwise; what comes back from a task
are the places of pieces, and counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import reduce

import pyarrow as pa

from mixup.records import bucket_of
from mixup.stages.cell import CellSettings
from mixup.stages.cell_rows import cells_of, groups_of, stage_bucket
from mixup.stages.curate_cell import Scoring, curate_cell
from mixup.stages.ingest import clear_staging
from mixup.stages.outcomes import gather_clusters, gather_curation
from mixup.stages.pieces import Piece, PieceWriter, by_partition
from mixup.stages.placing import Placement
from mixup.stages.reference import current_reference
from mixup.stages.reference_fit import CountedCells, Shares, count_cells, save_library
from mixup.stages.run import Manifest, RunContext, commit_stream
from mixup.tables import Snapshot
from mixup.workspace import Workspace

OUTCOMES = ("curation", "clusters")


@dataclass(frozen=True)
class CellWork:
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
    settings: CellSettings
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


@dataclass(frozen=True)
class DoneCells:
    """The outcomes of some cells, as pieces by bucket."""

    curation: Sequence[Piece]
    clusters: Sequence[Piece]


def do_cells(work: CellWork, regroup: bool, pieces: Sequence[Piece]) -> DoneCells:
    """Score and group some cells, one after another; runs in a worker."""
    workspace, settings = work.workspace, work.settings
    scoring = Scoring.of(current_reference(workspace, settings.scoring()), settings)
    name = f"{pieces[0].partition:07d}"
    writers = {table: PieceWriter(workspace, work.folder, f"{table}-{name}") for table in OUTCOMES}
    for cell in cells_of(workspace, pieces):
        found = curate_cell(cell, settings, scoring, regroup=regroup)
        for table, rows in zip(OUTCOMES, found, strict=True):
            writers[table].add(_partitioned(rows, workspace.buckets))
    for writer in writers.values():
        writer.flush()
    return DoneCells(writers["curation"].pieces, writers["clusters"].pieces)


def _partitioned(rows: pa.Table, buckets: int) -> pa.Table:
    """The rows with the bucket of their key, which is their first column."""
    placed = [bucket_of(key, buckets) for key in rows[0].to_pylist()]
    return rows.append_column("partition", pa.array(placed, pa.int32()))


@contextmanager
def staging(workspace: Workspace, folder: str) -> Iterator[None]:
    """A folder for pieces, that is there within the block."""
    clear_staging(workspace)
    filesystem, root = workspace.filesystem()
    filesystem.create_dir(f"{root}/{folder}", recursive=True)
    try:
        yield
    finally:
        with suppress(OSError):  # the next run clears what is left
            clear_staging(workspace)


def staged_rows(context: RunContext, work: CellWork) -> list[Piece]:
    """Bring the rows of the cells that are to be done together."""
    buckets = work.buckets if work.cells else []
    found = context.each(_stage_bucket, work, [(bucket,) for bucket in buckets])
    return [piece for pieces in found for piece in pieces]


def _stage_bucket(work: CellWork, bucket: int) -> list[Piece]:
    return stage_bucket(
        work.workspace, work.tables, bucket, work.pool, work.settings, work.cells, work.folder
    )


def fit_library(
    context: RunContext, work: CellWork, pieces: Sequence[Piece], placement: Placement
) -> None:
    """Fit the pool's own library on all cells."""
    rated = sum(cell.rated for cell in placement.cells.values())
    shares = Shares.of(rows=placement.rows, rated=rated)
    arguments = [(shares, group) for group in groups_of(pieces, placement)]
    # Added up as they come: the driver holds the counts of one task, not of all.
    counted = reduce(CountedCells.plus, context.each(_count_cells, work, arguments))
    next(context.each(_save_library, work, [(counted, rated)]))


def _count_cells(work: CellWork, shares: Shares, pieces: Sequence[Piece]) -> CountedCells:
    return count_cells(work.workspace, work.settings, pieces, work.folder, shares)


def _save_library(work: CellWork, counted: CountedCells, rated: int) -> None:
    save_library(work.workspace, work.settings, counted, rated)


def finish_cells(
    context: RunContext,
    work: CellWork,
    pieces: Sequence[Piece],
    placement: Placement,
    *,
    regroup: bool,
) -> Counter[str]:
    """Do the cells, and write their outcomes to the tables; the counts of all outcomes."""
    arguments = [(regroup, group) for group in groups_of(pieces, placement)]
    done = list(context.each(do_cells, work, arguments))
    clusters = by_partition([piece for part in done for piece in part.clusters])
    curation = by_partition([piece for part in done for piece in part.curation])
    committer = context.committer("clusters", "curation")
    buckets = sorted({*work.tables["clusters"].buckets, *clusters})
    arguments = [(bucket, clusters[bucket]) for bucket in buckets]
    gathered = context.each(_gather_clusters, work, arguments)
    totals = commit_stream(gathered, committer, stage="cluster", unit="clusters")
    arguments = [(bucket, curation[bucket]) for bucket in work.buckets]
    gathered = context.each(_gather_curation, work, arguments)
    return totals + commit_stream(gathered, committer, stage="curate", unit="rows")


def _gather_clusters(work: CellWork, bucket: int, pieces: Sequence[Piece]) -> Manifest:
    return gather_clusters(work.workspace, work.tables["clusters"], bucket, work.others, pieces)


def _gather_curation(work: CellWork, bucket: int, pieces: Sequence[Piece]) -> Manifest:
    return gather_curation(
        work.workspace, work.tables, bucket, work.pool, work.settings, work.others, pieces
    )
