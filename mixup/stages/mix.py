"""Mix: everything of MIXTURE that needs neighbors, cell by cell → targets, mixture.

The cells are those of curation (``fitted_cells``): every row is placed in one, the rows of the
cells in which something has changed are brought together, each of these cells is worked off by
itself (``mix_cell``), and the outcomes go back to their buckets. The memory of a task is bounded by
a cell or by a bucket, and the driver holds a few numbers a cell.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import pyarrow as pa

from mixup.errors import LedgerError
from mixup.ledger import StageCounts
from mixup.lock import ensure_held
from mixup.mixture.pairs import rules_revision
from mixup.records import bucket_of, content_key
from mixup.stages.cell_rows import groups_of
from mixup.stages.cell_work import staging
from mixup.stages.compact import compact
from mixup.stages.fitted_cells import place_pool
from mixup.stages.ingest import STAGING
from mixup.stages.mix_cell import mix_cell
from mixup.stages.mix_outcomes import PAIRED, MixWork, gather
from mixup.stages.mix_rows import MixSettings, stage_mix_rows
from mixup.stages.pieces import Piece, PieceWriter
from mixup.stages.placing import Placement
from mixup.stages.pool_rows import POOLED
from mixup.stages.run import (
    OUTSTANDING,
    RunContext,
    StageState,
    Stopwatch,
    commit_stream,
    stage_state,
)
from mixup.tables import snapshot

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
    workspace = context.workspace
    context.committer("places", "contamination", *OUTCOMES)  # makes the tables
    tables = {name: snapshot(workspace, name) for name in (*POOLED, "places", "files", *OUTCOMES)}
    fitted, placement, places = place_pool(context, settings.cells, tables)
    folder = f"{STAGING}/{context.run}-mix"
    every = frozenset(cell for cell, found in placement.cells.items() if found.rows)
    tables = {**tables, "places": places}
    work = MixWork(workspace, tables, context.pool, settings, folder, alive=every, cells=every)
    decides = content_key(fitted.fit, mix_key(settings))
    done = workspace.read_json(_DONE) or {}
    now = {str(cell): placement.cells[cell].key(decides) for cell in sorted(every)}
    work = replace(work, cells=frozenset(c for c in every if done.get(str(c)) != now[str(c)]))
    with staging(workspace, folder):
        pieces = _staged(context, work)
        # The cells that are done now are as no run left them, until all of them are committed.
        workspace.write_json(_DONE, {c: done[c] for c in now if int(c) in work.others})
        totals = _finish(context, work, pieces, placement)
    if totals["rows"] != placement.rows:
        raise LedgerError(f"{placement.rows} rows were placed and {totals['rows']} have an outcome")
    ensure_held(workspace, context.token)
    workspace.write_json(_DONE, now)
    return totals + Counter(cells=len(every), cells_done=len(work.cells))


def _staged(context: RunContext, work: MixWork) -> list[Piece]:
    buckets = work.tables["occurrences"].buckets if work.cells else []
    found = context.each(_stage_bucket, work, [(bucket,) for bucket in buckets])
    return [piece for pieces in found for piece in pieces]


def _stage_bucket(work: MixWork, bucket: int) -> list[Piece]:
    return stage_mix_rows(
        work.workspace, work.tables, bucket, work.pool, work.settings, work.cells, work.folder
    )


def _finish(
    context: RunContext, work: MixWork, pieces: Sequence[Piece], placement: Placement
) -> Counter[str]:
    """Do the cells, and write their outcomes to the tables; the counts of all outcomes."""
    found: dict[str, defaultdict[int, list[Piece]]] = {name: defaultdict(list) for name in OUTCOMES}
    for done in context.each(_do_cells, work, [(group,) for group in groups_of(pieces, placement)]):
        for name, written in done.items():
            for piece in written:
                found[name][piece.partition].append(piece)
    committer = context.committer(*OUTCOMES)
    totals: Counter[str] = Counter()
    places = {
        "mixture": {*work.tables["mixture"].buckets, *found["mixture"]},
        "targets": {*work.tables["occurrences"].buckets, *work.tables["targets"].buckets},
    }
    for name, unit in (("mixture", "pairs"), ("targets", "rows")):
        arguments = [(name, bucket, found[name][bucket]) for bucket in sorted(places[name])]
        gathered = context.each(gather, work, arguments)
        totals += commit_stream(gathered, committer, stage="mix", unit=unit)
    return totals


def _do_cells(work: MixWork, pieces: Sequence[Piece]) -> dict[str, list[Piece]]:
    """Make the pairs of some cells, one after another; runs in a worker."""
    workspace = work.workspace
    name = f"{pieces[0].partition:07d}"
    writers = {table: PieceWriter(workspace, work.folder, f"{table}-{name}") for table in OUTCOMES}
    for cell, own in groupby(pieces, key=lambda piece: piece.partition):
        rows = pa.concat_tables([piece.read(workspace) for piece in own])
        if all(rows["visitor"].to_pylist()):
            continue
        for table, found in zip(OUTCOMES, mix_cell(cell, rows, work.settings), strict=True):
            placed = [bucket_of(key, workspace.buckets) for key in found[0].to_pylist()]
            writers[table].add(found.append_column("partition", pa.array(placed, pa.int32())))
    for writer in writers.values():
        writer.flush()
    return {table: writer.pieces for table, writer in writers.items()}
