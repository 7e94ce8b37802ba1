"""The work on a pool's cells in curation: they are scored and grouped, and a library is fitted.

Each function here runs in the driver, but for those that say otherwise; what comes back from a task
are the places of pieces, and counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import reduce

from mixup.stages.cell_rows import CurationWork, cells_of
from mixup.stages.cell_tasks import by_bucket, groups_of, outcomes_by_key
from mixup.stages.curate_cell import Scoring, curate_cell
from mixup.stages.manifests import commit_stream
from mixup.stages.outcomes import gather_clusters, gather_curation
from mixup.stages.pieces import Piece
from mixup.stages.placing import Placement
from mixup.stages.reference_fit import CountedCells, Shares, count_cells, save_library
from mixup.stages.run import RunContext

OUTCOMES = ("curation", "clusters")


def do_cells(work: CurationWork, regroup: bool, pieces: Sequence[Piece]) -> dict[str, list[Piece]]:
    """Score and group some cells, one after another; runs in a worker."""
    scoring = Scoring.of(work.workspace, work.settings)
    found = (
        curate_cell(cell, work.settings, scoring, regroup=regroup)
        for cell in cells_of(work.workspace, pieces)
    )
    return outcomes_by_key(work, pieces, OUTCOMES, found)


def fit_library(
    context: RunContext, work: CurationWork, pieces: Sequence[Piece], placement: Placement
) -> None:
    """Fit the pool's own library on all cells."""
    rated = sum(cell.rated for cell in placement.cells.values())
    shares = Shares.of(rows=placement.rows, rated=rated)
    arguments = [(shares, group) for group in groups_of(pieces, placement)]
    # Added up as they come: the driver holds the counts of one task, not of all.
    counted = reduce(CountedCells.plus, context.each(_count_cells, work, arguments))
    next(context.each(_save_library, work, [(counted, rated)]))


def _count_cells(work: CurationWork, shares: Shares, pieces: Sequence[Piece]) -> CountedCells:
    return count_cells(work.workspace, work.settings, pieces, work.folder, shares)


def _save_library(work: CurationWork, counted: CountedCells, rated: int) -> None:
    save_library(work.workspace, work.settings, counted, rated)


def finish_cells(
    context: RunContext,
    work: CurationWork,
    pieces: Sequence[Piece],
    placement: Placement,
    *,
    regroup: bool,
) -> Counter[str]:
    """Do the cells, and write their outcomes to the tables; the counts of all outcomes."""
    arguments = [(regroup, group) for group in groups_of(pieces, placement)]
    done = by_bucket(context.each(do_cells, work, arguments), OUTCOMES)
    committer = context.committer("clusters", "curation")
    buckets = sorted({*work.tables["clusters"].buckets, *done["clusters"]})
    arguments = [(bucket, done["clusters"][bucket]) for bucket in buckets]
    gathered = context.each(gather_clusters, work, arguments)
    totals = commit_stream(gathered, committer, stage="cluster", unit="clusters")
    arguments = [(bucket, done["curation"][bucket]) for bucket in work.buckets]
    gathered = context.each(gather_curation, work, arguments)
    return totals + commit_stream(gathered, committer, stage="curate", unit="rows")
