"""Curate and cluster: everything that needs neighbors, cell by cell.

Every row is placed in a cell (``fitted_cells``). The rows of the cells in which something has
changed are brought together (``cell_rows``), each of these cells is scored and grouped by itself
(``curate_cell``), and the outcomes go back to their buckets (``outcomes``). The memory of a task is
bounded by a cell or by a bucket, and the driver holds a few numbers a cell. A small pool is one
cell, and then the results are exact.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from mixup.errors import LedgerError
from mixup.ledger import StageCounts
from mixup.lock import ensure_held
from mixup.quality.curation import Library
from mixup.records import bucket_of, content_key
from mixup.selection.acceptance import CONTAMINATED
from mixup.stages.cell import Cell, CellSettings
from mixup.stages.cell_rows import cells_of, stage_bucket
from mixup.stages.cluster import PASSED, SINGLETON
from mixup.stages.compact import compact
from mixup.stages.curate_cell import UNRATED, curate_cell
from mixup.stages.fitted_cells import place_pool
from mixup.stages.ingest import STAGING, clear_staging
from mixup.stages.outcomes import gather_clusters, gather_curation
from mixup.stages.pieces import Piece, PieceWriter
from mixup.stages.placing import PLACED, Placement
from mixup.stages.reference import (
    Reference,
    current_reference,
    forget_reference,
    reference_revision,
)
from mixup.stages.reference_fit import LIBRARY_ROWS, CountedCells, count_cells, save_library
from mixup.stages.run import (
    Manifest,
    RunContext,
    StageState,
    Stopwatch,
    commit_stream,
    stage_state,
)
from mixup.tables import Snapshot, snapshot
from mixup.workspace import Workspace

_INPUTS = ("occurrences", "records", "embeddings", "ratings")
TIERS = ("high", "low", "duplicate", UNRATED, CONTAMINATED)
_DONE = "fitted/cells-done.json"
_TASK_ROWS = 40_000


def curate_state(context: RunContext, settings: CellSettings) -> StageState:
    """Whether the cells have been scored and grouped for the pool as it is."""
    return stage_state(
        context.workspace,
        "curate",
        "curation",
        inputs=(*_INPUTS, "contamination") if settings.questions else _INPUTS,
        decides=[settings.everything(), context.pool_key],
    )


def curate_and_cluster(
    context: RunContext, settings: CellSettings
) -> tuple[StageCounts, StageCounts]:
    """Score and group the pool; the counts of the two stages.

    Raises:
        LedgerError: If a record is in no tier, or a low-quality one neither member nor left alone.
    """
    watch = Stopwatch()
    workspace = context.workspace
    state = curate_state(context, settings)
    grouping = stage_state(workspace, "cluster", "clusters", inputs=(), decides=settings.grouping())
    regroup = grouping.last is None or grouping.last.fingerprint != grouping.fingerprint
    totals = curate_cells(context, settings, regroup=regroup)
    curated = StageCounts(
        stage="curate",
        unit="records",
        rows_in=totals["rows"],
        parts={tier: totals[tier] for tier in TIERS},
        extra={name: totals[name] for name in ("cells", "cells_done")},
        seconds=watch.seconds,
    ).check()
    clustered = StageCounts(
        stage="cluster",
        unit="low-quality records",
        rows_in=totals["low"],
        parts={name: totals[name] for name in ("members", SINGLETON, *PASSED)},
        extra={name: totals[name] for name in ("clusters", "new", "kept", "dissolved")},
    ).check()
    record = {**clustered.parts, **clustered.extra}
    compact(context, "places", "clusters", "curation")
    committer = context.committer("clusters", "curation")
    committer.complete("clusters", grouping.completion(context.run, record))
    committer.complete("curation", state.completion(context.run, dict(curated.parts)))
    return curated.log(), clustered.log()


def curate_cells(context: RunContext, settings: CellSettings, *, regroup: bool) -> Counter[str]:
    """Place the pool, do the cells in which something has changed, and count all outcomes.

    Raises:
        LedgerError: If a row of the pool has no outcome, or two.
    """
    workspace = context.workspace
    context.committer("places", "clusters", "curation", "contamination")  # makes the tables
    tables = {name: snapshot(workspace, name) for name in (*PLACED, "places", "files", *_OUTCOMES)}
    fitted, placement, places = place_pool(context, settings, tables)
    folder = f"{STAGING}/{context.run}-cells"
    every = frozenset(cell for cell, found in placement.cells.items() if found.rows)
    tables = {**tables, "places": places}
    work = CellWork(workspace, tables, context.pool, settings, folder, alive=every, cells=every)
    is_due = _is_fit_due(workspace, placement, settings)
    if not is_due:
        work = replace(work, cells=_changed(work, placement, fitted.fit))
    with _staging(workspace, folder):
        pieces = _staged(context, work)
        if is_due:
            _fit_reference(context, work, pieces, placement)
        totals = _do_cells(context, work, pieces, placement, regroup=regroup)
    if totals["rows"] != placement.rows:
        raise LedgerError(f"{placement.rows} rows were placed and {totals['rows']} have an outcome")
    ensure_held(workspace, context.token)
    _remember(work, placement, fitted.fit)
    return totals + Counter(cells=len(every), cells_done=len(work.cells))


_OUTCOMES = ("curation", "clusters")


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
    reference = current_reference(workspace, settings.scoring())
    transition = reference and reference.transition
    name = f"{pieces[0].partition:07d}"
    writers = {table: PieceWriter(workspace, work.folder, f"{table}-{name}") for table in _OUTCOMES}
    for cell in cells_of(workspace, pieces):
        library = _voters(cell, reference, settings)
        found = curate_cell(cell, settings, library, transition, regroup=regroup)
        for table, rows in zip(_OUTCOMES, found, strict=True):
            writers[table].add(_partitioned(rows, workspace.buckets))
    for writer in writers.values():
        writer.flush()
    return DoneCells(writers["curation"].pieces, writers["clusters"].pieces)


def _voters(cell: Cell, reference: Reference | None, settings: CellSettings) -> Library | None:
    """The library that votes in a cell; None: its own rated rows, with those that visit it.

    Where too few of them are rated, the rows of the whole pool's library do.
    """
    if reference is None:
        return None
    rated = (cell.ratings_N >= 0).sum() + (cell.visitors.ratings_M >= 0).sum()
    if settings.library is None and rated >= settings.curate.min_rated:
        return None
    return Library(reference.vectors_LD, reference.ratings_L, reference.uids)


def _partitioned(rows: pa.Table, buckets: int) -> pa.Table:
    """The rows with the bucket of their key, which is their first column."""
    placed = [bucket_of(key, buckets) for key in rows[0].to_pylist()]
    return rows.append_column("partition", pa.array(placed, pa.int32()))


def _is_fit_due(workspace: Workspace, placement: Placement, settings: CellSettings) -> bool:
    """Whether the pool's own library is to be fitted; forgets it where too little is rated."""
    if settings.library is not None:
        return False
    rated = sum(cell.rated for cell in placement.cells.values())
    if rated < settings.curate.min_rated:
        forget_reference(workspace)
        return False
    refit_at = settings.curate.refit_at
    kept = current_reference(workspace, settings.scoring(), rated=rated, refit_at=refit_at)
    return kept is None


def _decides(work: CellWork, fit: str) -> list[Any]:
    settings = work.settings
    return [fit, settings.everything(), reference_revision(work.workspace, settings.scoring())]


def _changed(work: CellWork, placement: Placement, fit: str) -> frozenset[int]:
    """The cells that are not as they were when they were last done."""
    done = work.workspace.read_json(_DONE) or {}
    decides = content_key(_decides(work, fit))
    return frozenset(
        cell for cell in work.cells if done.get(str(cell)) != placement.cells[cell].key(decides)
    )


def _remember(work: CellWork, placement: Placement, fit: str) -> None:
    """All cells are as they should be, now that the outcomes are committed."""
    decides = content_key(_decides(work, fit))
    cells = sorted((cell, found) for cell, found in placement.cells.items() if found.rows)
    work.workspace.write_json(_DONE, {str(cell): found.key(decides) for cell, found in cells})


@contextmanager
def _staging(workspace: Workspace, folder: str) -> Iterator[None]:
    clear_staging(workspace)
    filesystem, root = workspace.filesystem()
    filesystem.create_dir(f"{root}/{folder}", recursive=True)
    try:
        yield
    finally:
        with suppress(OSError):  # the next run clears what is left
            filesystem.delete_dir(f"{root}/{folder}")


def _staged(context: RunContext, work: CellWork) -> list[Piece]:
    """Bring the rows of the cells that are to be done together."""
    buckets = work.buckets if work.cells else []
    found = context.each(_stage_bucket, work, [(bucket,) for bucket in buckets])
    return [piece for pieces in found for piece in pieces]


def _stage_bucket(work: CellWork, bucket: int) -> list[Piece]:
    return stage_bucket(
        work.workspace, work.tables, bucket, work.pool, work.settings, work.cells, work.folder
    )


def _fit_reference(
    context: RunContext, work: CellWork, pieces: Sequence[Piece], placement: Placement
) -> None:
    """Fit the pool's own library on all cells."""
    rated = sum(cell.rated for cell in placement.cells.values())
    share = min(1.0, LIBRARY_ROWS / rated)
    arguments = [(share, group) for group in _groups(pieces, placement)]
    counted = list(context.each(_count_cells, work, arguments))
    next(context.each(_save_library, work, [(counted, rated)]))


def _count_cells(work: CellWork, share: float, pieces: Sequence[Piece]) -> CountedCells:
    return count_cells(work.workspace, work.settings, pieces, work.folder, share)


def _save_library(work: CellWork, counted: Sequence[CountedCells], rated: int) -> None:
    save_library(work.workspace, work.settings, counted, rated)


def _do_cells(
    context: RunContext,
    work: CellWork,
    pieces: Sequence[Piece],
    placement: Placement,
    *,
    regroup: bool,
) -> Counter[str]:
    """Do the cells, and write their outcomes to the tables; the counts of all outcomes."""
    arguments = [(regroup, group) for group in _groups(pieces, placement)]
    done = list(context.each(do_cells, work, arguments))
    clusters = _by_bucket([piece for part in done for piece in part.clusters])
    curation = _by_bucket([piece for part in done for piece in part.curation])
    committer = context.committer("clusters", "curation")
    buckets = sorted({*work.tables["clusters"].buckets, *clusters})
    gathered = context.each(
        _gather_clusters,
        work,
        [(bucket, clusters[bucket]) for bucket in buckets],
    )
    totals = commit_stream(gathered, committer, stage="cluster", unit="clusters")
    gathered = context.each(
        _gather_curation,
        work,
        [(bucket, curation[bucket]) for bucket in work.buckets],
    )
    return totals + commit_stream(gathered, committer, stage="curate", unit="rows")


def _gather_clusters(work: CellWork, bucket: int, pieces: Sequence[Piece]) -> Manifest:
    return gather_clusters(work.workspace, work.tables["clusters"], bucket, work.others, pieces)


def _gather_curation(work: CellWork, bucket: int, pieces: Sequence[Piece]) -> Manifest:
    return gather_curation(
        work.workspace, work.tables, bucket, work.pool, work.settings, work.others, pieces
    )


def _groups(pieces: Sequence[Piece], placement: Placement) -> Iterator[list[Piece]]:
    """The pieces of each task: those of one cell, or of several small ones."""
    of_cell: dict[int, list[Piece]] = defaultdict(list)
    for piece in pieces:
        of_cell[piece.partition].append(piece)
    group: list[Piece] = []
    held = 0
    for cell in sorted(of_cell):
        found = placement.cells[cell]
        if group and held + found.rows + found.visitors > _TASK_ROWS:
            yield group
            group, held = [], 0
        group += of_cell[cell]
        held += found.rows + found.visitors
    if group:
        yield group


def _by_bucket(pieces: Sequence[Piece]) -> defaultdict[int, list[Piece]]:
    found: defaultdict[int, list[Piece]] = defaultdict(list)
    for piece in pieces:
        found[piece.partition].append(piece)
    return found
