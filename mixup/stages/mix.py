"""Mix: everything of MIXTURE that needs neighbors, cell by cell → targets, mixture.

The cells are those of curation (``fitted_cells``): every row is placed in one, the rows of the
cells in which something has changed are brought together, each of these cells is worked off by
itself (``mix_cell``), and the outcomes go back to their buckets. The memory of a task is bounded by
a cell or by a bucket, and the driver holds a few numbers a cell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mixup.ledger import StageCounts
from mixup.mixture.pairs import rules_revision
from mixup.records import content_key
from mixup.stages.cell_tasks import (
    CellsDone,
    by_bucket,
    checked_totals,
    groups_of,
    outcomes_by_key,
    place_work,
    rows_by_cell,
    staged_rows,
)
from mixup.stages.compact import compact
from mixup.stages.manifests import commit_stream
from mixup.stages.mix_cell import mix_cell
from mixup.stages.mix_outcomes import PAIRED, gather
from mixup.stages.mix_rows import MixSettings, MixWork, stage_mix_rows
from mixup.stages.pieces import Piece, staging
from mixup.stages.placing import Placement
from mixup.stages.run import OUTSTANDING, RunContext, StageState, Stopwatch, stage_state

OUTCOMES = ("mixture", "targets")
_INPUTS = ("occurrences", "records", "embeddings", "ratings")
_DONE = "fitted/mixture-cells-done.json"


def mix_key(settings: MixSettings) -> str:
    """The key of all that decides pairs besides the rows and the cells."""
    return content_key(
        "mix-v1",
        settings.cells.everything(),
        sorted(settings.tasks),
        settings.seed,
        [repr(part) for part in (settings.variants, settings.fusion, settings.shares)],
        [settings.thought_share, settings.neighbors, settings.neighbor_floor],
        settings.near_duplicate,
        settings.licences,
        sorted(settings.classes.items()),
        sorted(settings.items),
        settings.rated_by,
        [rules_revision(), settings.teacher],
    )


def mix_state(context: RunContext, settings: MixSettings) -> StageState:
    """Whether the pairs are those of the rows as they are."""
    questions = settings.cells.questions
    return stage_state(
        context.workspace,
        "mix",
        "targets",
        inputs=(*_INPUTS, "contamination") if questions else _INPUTS,
        decides=[mix_key(settings), context.pool_key],
    )


def mix(context: RunContext, settings: MixSettings) -> StageCounts:
    """Make the pairs of the cells in which something has changed.

    Raises:
        LedgerError: If a row of the pool has no outcome, or two.
    """
    watch = Stopwatch()
    state = mix_state(context, settings)
    committer = context.committer("places", "contamination", *OUTCOMES)
    # Buckets are committed one after another: a run that ends in between counts as current nowhere.
    committer.complete("targets", state.completion(context.run, {OUTSTANDING: 1}))
    totals = mix_cells(context, settings)
    reasons = sorted(name.removeprefix("reason:") for name in totals if name.startswith("reason:"))
    counts = StageCounts(
        stage="mix",
        unit="records",
        rows_in=totals["rows"],
        parts={PAIRED: totals[PAIRED], **{name: totals[f"reason:{name}"] for name in reasons}},
        extra={name: totals[name] for name in ("pairs", "fused", "cells", "cells_done")},
        seconds=watch.seconds,
    ).check()
    compact(context, "places", *OUTCOMES)
    committer.complete("targets", state.completion(context.run, dict(counts.parts)))
    return counts.log()


def mix_cells(context: RunContext, settings: MixSettings) -> Counter[str]:
    """Place the rows, do the cells in which something has changed, and count all outcomes.

    Raises:
        LedgerError: If a row has no outcome, or two.
    """
    placed = place_work(context, settings, settings.cells, outcomes=OUTCOMES, folder="mix")
    keys = placed.keys(content_key(placed.fit, mix_key(settings)))
    done = CellsDone(context.workspace, _DONE)
    work = placed.work.only(done.changed(keys))
    with staging(context.workspace, work.folder):
        pieces = staged_rows(context, work, stage_mix_rows)
        done.forget_but(work.others)
        totals = _finish(context, work, pieces, placed.placement)
    totals = checked_totals(context, placed, work, totals)
    done.remember(keys)
    return totals


def _finish(
    context: RunContext, work: MixWork, pieces: Sequence[Piece], placement: Placement
) -> Counter[str]:
    """Do the cells, and write their outcomes to the tables; the counts of all outcomes."""
    groups = [(group,) for group in groups_of(pieces, placement)]
    done = by_bucket(context.each(_do_cells, work, groups), OUTCOMES)
    committer = context.committer(*OUTCOMES)
    totals: Counter[str] = Counter()
    places = {
        "mixture": {*work.tables["mixture"].buckets, *done["mixture"]},
        "targets": {*work.buckets, *work.tables["targets"].buckets},
    }
    for name, unit in (("mixture", "pairs"), ("targets", "rows")):
        arguments = [(name, bucket, done[name][bucket]) for bucket in sorted(places[name])]
        gathered = context.each(gather, work, arguments)
        totals += commit_stream(gathered, committer, stage="mix", unit=unit)
    return totals


def _do_cells(work: MixWork, pieces: Sequence[Piece]) -> dict[str, list[Piece]]:
    """Make the pairs of some cells, one after another; runs in a worker."""
    found = (
        mix_cell(cell, rows, work.settings)
        for cell, rows in rows_by_cell(work.workspace, pieces)
        if not all(rows["visitor"].to_pylist())
    )
    return outcomes_by_key(work, pieces, OUTCOMES, found)
