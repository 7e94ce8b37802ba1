"""Curate and cluster: everything that needs neighbors, cell by cell.

Every row is placed in a cell (``fitted_cells``). The rows of the cells in which something has
changed are brought together (``cell_rows``), each of these cells is scored and grouped by itself
(``curate_cell``), and the outcomes go back to their buckets (``outcomes``). The memory of a task is
bounded by a cell or by a bucket, and the driver holds a few numbers a cell. A small pool is one
cell, and then the results are exact.
"""

from __future__ import annotations

from collections import Counter

from mixup.commits import Committer
from mixup.errors import ConfigError
from mixup.ledger import StageCounts
from mixup.records import content_key
from mixup.selection.acceptance import CONTAMINATED
from mixup.stages.cell import CellSettings
from mixup.stages.cell_rows import stage_bucket
from mixup.stages.cell_tasks import CellsDone, Placed, checked_totals, place_work, staged_rows
from mixup.stages.cell_work import OUTCOMES, finish_cells, fit_library
from mixup.stages.cluster import PASSED, SINGLETON
from mixup.stages.compact import compact
from mixup.stages.curate_cell import UNRATED
from mixup.stages.outcomes import RATINGS_TESTED
from mixup.stages.pieces import staging
from mixup.stages.placing import Placement
from mixup.stages.reference import (
    current_fit,
    forget_reference,
    is_reference_current,
    reference_revision,
)
from mixup.stages.run import (
    OUTSTANDING,
    RunContext,
    StageState,
    Stopwatch,
    stage_state,
)
from mixup.stages.scores import pool_scores
from mixup.workspace import Workspace

_INPUTS = ("occurrences", "records", "embeddings", "ratings")
TIERS = ("high", "low", "duplicate", UNRATED, CONTAMINATED)
_DONE = "fitted/cells-done.json"


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
    last = grouping.last
    regroup = last is None or last.fingerprint != grouping.fingerprint or _REGROUP in last.counts
    committer = context.committer("places", "clusters", "curation", "contamination")
    _begin(committer, context.run, state, grouping, regroup=regroup)
    totals = curate_cells(context, settings, regroup=regroup)
    curated = StageCounts(
        stage="curate",
        unit="records",
        rows_in=totals["rows"],
        parts={tier: totals[tier] for tier in TIERS},
        extra={name: totals[name] for name in ("cells", "cells_done", *RATINGS_TESTED)},
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
    committer.complete("clusters", grouping.completion(context.run, record))
    committer.complete("curation", state.completion(context.run, dict(curated.parts)))
    return curated.log(), clustered.log()


def _begin(
    committer: Committer, run: str, state: StageState, grouping: StageState, *, regroup: bool
) -> None:
    """Record that the stages are under way: buckets are committed one after another.

    If the run ends in between, they are current under no settings, and what was to be grouped anew
    still is.
    """
    under_way = {OUTSTANDING: 1}
    again = {**under_way, _REGROUP: 1} if regroup else under_way
    committer.complete("clusters", grouping.completion(run, again))
    committer.complete("curation", state.completion(run, under_way))


_REGROUP = "regroup"


def curate_cells(context: RunContext, settings: CellSettings, *, regroup: bool) -> Counter[str]:
    """Place the pool, do the cells in which something has changed, and count all outcomes.

    Raises:
        ConfigError: If the cells cannot be scored as configured.
        LedgerError: If a row of the pool has no outcome, or two.
    """
    workspace = context.workspace
    placed = place_work(context, settings, settings, outcomes=OUTCOMES, folder="cells")
    work, placement = placed.work, placed.placement
    _check_cells(settings, len(work.alive))
    done = CellsDone(workspace, _DONE)
    is_due = _is_fit_due(workspace, placement, settings)
    if not is_due:
        work = work.only(done.changed(_keys(placed)))
    with staging(workspace, work.folder):
        pieces = staged_rows(context, work, stage_bucket)
        if is_due:
            fit_library(context, work, pieces, placement)
        pool_scores(current_fit(workspace, settings.scoring()), settings)  # what it raises
        done.forget_but(work.others)
        totals = finish_cells(context, work, pieces, placement, regroup=regroup)
    totals = checked_totals(context, placed, work, totals)
    done.remember(_keys(placed))
    return totals


def _keys(placed: Placed[CellSettings]) -> dict[int, str]:
    """What decides each cell today; a library that is fitted changes it."""
    settings = placed.work.settings
    library = reference_revision(placed.work.workspace, settings.scoring())
    return placed.keys(content_key([placed.fit, settings.everything(), library]))


def _check_cells(settings: CellSettings, cells: int) -> None:
    if settings.curate.suspicion == "reference" and cells > 1:
        raise ConfigError(
            f"curate.suspicion=reference draws from all rated rows at once, and the pool is {cells}"
            " cells; use curate.suspicion=bootstrap, or a curate.cell_rows that holds the pool"
        )


def _is_fit_due(workspace: Workspace, placement: Placement, settings: CellSettings) -> bool:
    """Whether the pool's own library is to be fitted; forgets it where too little is rated."""
    if settings.library is not None:
        return False
    rated = sum(cell.rated for cell in placement.cells.values())
    if rated < settings.curate.min_rated:
        forget_reference(workspace)
        return False
    refit_at = settings.curate.refit_at
    decides = settings.scoring()
    return not is_reference_current(workspace, decides, rated=rated, refit_at=refit_at)
