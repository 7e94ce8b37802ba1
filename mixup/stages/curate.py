"""Curate and cluster: everything that needs neighbors, cell by cell.

A cell is read whole, in one task: its rows get a quality, a long-tail score and a tier, and its
low-quality rows are grouped. A small pool is one cell, and then the results are exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from mixup.ledger import StageCounts
from mixup.quality.curation import Curation, Library, curate
from mixup.records import TABLES
from mixup.selection.acceptance import CONTAMINATED
from mixup.stages.cell import Cell, CellSettings, read_cell
from mixup.stages.cluster import (
    ONE_CELL,
    PASSED,
    SINGLETON,
    changed_clusters,
    cluster_cell,
    passed_over,
)
from mixup.stages.compact import compact
from mixup.stages.reference import (
    Reference,
    current_reference,
    fit_reference,
    forget_reference,
    save_reference,
)
from mixup.stages.run import (
    Manifest,
    RunContext,
    StageState,
    Stopwatch,
    commit_stream,
    run_tasks,
    stage_state,
)
from mixup.tables import Snapshot, read_files, snapshot, write_by_bucket
from mixup.workspace import Workspace

_INPUTS = ("occurrences", "records", "embeddings", "ratings")
_WITH_QUESTIONS = (*_INPUTS, "contamination")
NO_EMBEDDING = "no_embedding"
UNRATED = "unrated"
TIERS = ("high", "low", "duplicate", UNRATED, CONTAMINATED)


def curate_state(context: RunContext, settings: CellSettings) -> StageState:
    """Whether the cells have been scored and grouped for the pool as it is."""
    return stage_state(
        context.workspace,
        "curate",
        "curation",
        inputs=_WITH_QUESTIONS if settings.questions else _INPUTS,
        decides=[settings.everything(), context.pool_key],
    )


def curate_and_cluster(
    context: RunContext, settings: CellSettings
) -> tuple[StageCounts, StageCounts]:
    """Score and group the pool; the counts of the two stages.

    Raises:
        LedgerError: If a record is in no tier, or a low-quality one neither member nor left alone.
    """
    import ray

    watch = Stopwatch()
    workspace = context.workspace
    state = curate_state(context, settings)
    grouping = stage_state(workspace, "cluster", "clusters", inputs=(), decides=settings.grouping())
    regroup = grouping.last is None or grouping.last.fingerprint != grouping.fingerprint
    tables = {
        name: snapshot(workspace, name)
        for name in (*_WITH_QUESTIONS, "curation", "clusters", "files")
    }
    task = ray.remote(num_cpus=1)(_curate_cell)
    committer = context.committer("clusters", "curation")
    totals = commit_stream(
        run_tasks(task, [(workspace, tables, context.pool, settings, regroup)], in_flight=1),
        committer,
        stage="curate",
        unit="rows",
    )
    curated = StageCounts(
        stage="curate",
        unit="records",
        rows_in=totals["rows"],
        parts={tier: totals[tier] for tier in TIERS},
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
    compact(context, "clusters", "curation")
    committer.complete("clusters", grouping.completion(context.run, record))
    committer.complete("curation", state.completion(context.run, dict(curated.parts)))
    return curated.log(), clustered.log()


def _curate_cell(
    workspace: Workspace,
    tables: Mapping[str, Snapshot],
    pool: Sequence[str],
    settings: CellSettings,
    regroup: bool,
) -> Manifest:
    """Score and group one cell; runs in a worker."""
    cell = read_cell(workspace, tables, pool, settings)
    before = read_files(workspace, "curation", tables["curation"].paths, ["uid", "tier"])
    tiers = dict(zip(before["uid"].to_pylist(), before["tier"].to_pylist(), strict=True))
    curation = _curate(workspace, cell, [tiers.get(uid) for uid in cell.uids], settings)
    held = read_files(workspace, "clusters", tables["clusters"].paths)
    kept, clusters = cluster_cell(cell, curation, settings, None if regroup else held)
    reasons = _reasons(cell, curation, clusters, settings)
    curated = _curation_rows(cell, curation, clusters, reasons)
    cluster_files, cluster_removed = changed_clusters(workspace, tables["clusters"], held, clusters)
    counts = {
        "rows": curated.num_rows,
        **_count(curated["tier"].to_pylist()),
        **_count([reason for reason in reasons.values() if reason in (SINGLETON, *PASSED)]),
        "members": sum(len(members) for members in clusters["members"].to_pylist()),
        "clusters": clusters.num_rows,
        "kept": kept,
        "new": clusters.num_rows - kept,
        "dissolved": held.num_rows - kept,
    }
    files = [*cluster_files, *write_by_bucket(workspace, "curation", curated)]
    removed = {"clusters": cluster_removed, "curation": tables["curation"].paths}
    return Manifest(files, removed, counts)


def _curate(
    workspace: Workspace, cell: Cell, before: list[str | None], settings: CellSettings
) -> Curation:
    reference = _reference(workspace, cell, settings)
    outside = reference is not None and settings.library is not None
    curation = curate(
        cell.vectors_ND,
        cell.ratings_N,
        np.arange(len(cell.uids)),
        before,
        library_of(reference) if reference is not None and outside else None,
        None if reference is None else reference.transition,
        settings.curation(),
        uids_N=cell.uids,
    )
    if settings.only_rated:
        curation = _without_unrated(cell, curation)
    # Last: what holds an evaluation question is left out whatever else is known of it. It votes as
    # a rated neighbor all the same, and leads its near-duplicates, which so are left out with it.
    contaminated = np.array([uid in cell.contaminated for uid in cell.uids], bool)
    return replace(curation, tier_N=np.where(contaminated, CONTAMINATED, curation.tier_N))


def _without_unrated(cell: Cell, curation: Curation) -> Curation:
    """The curation with rows that have no rating of their own as unrated."""
    unrated = (cell.ratings_N < 0) & (curation.tier_N != "duplicate")
    return replace(
        curation,
        quality_N=np.where(unrated, np.nan, curation.quality_N),
        confidence_N=np.where(unrated, np.nan, curation.confidence_N),
        curated_rating_N=np.where(unrated, -1, curation.curated_rating_N),
        tier_N=np.where(unrated, "unrated", curation.tier_N),
    )


def library_of(reference: Reference) -> Library:
    """A reference library as the posterior reads it."""
    return Library(reference.vectors_LD, reference.ratings_L, reference.uids)


def _reference(workspace: Workspace, cell: Cell, settings: CellSettings) -> Reference | None:
    """The kept or newly fitted library; None where too few rows are rated."""
    rated = np.flatnonzero(cell.ratings_N >= 0)
    decides = settings.scoring()
    if settings.library is not None:
        return current_reference(workspace, decides)
    if len(rated) < settings.curate.min_rated:
        forget_reference(workspace)
        return None
    found = current_reference(
        workspace, decides, rated=len(rated), refit_at=settings.curate.refit_at
    )
    if found is None:
        found = fit_reference(
            [cell.uids[row] for row in rated],
            cell.vectors_ND[rated],
            cell.ratings_N[rated],
            neighbors=settings.curate.transition_neighbors,
            smoothing=settings.curate.smoothing,
            decides=decides,
        )
        save_reference(workspace, found, decides)
    return found


def _reasons(
    cell: Cell, curation: Curation, clusters: pa.Table, settings: CellSettings
) -> dict[str, str]:
    """Why a row is neither high-quality nor a member of a cluster, by uid."""
    members = {uid for uids in clusters["members"].to_pylist() for uid in uids}
    reasons = dict.fromkeys(cell.blind, NO_EMBEDDING)
    for row, uid in enumerate(cell.uids):
        tier = curation.tier_N[row]
        if tier == "low" and uid not in members:
            reasons[uid] = passed_over(cell, row, settings) or SINGLETON
        elif tier == CONTAMINATED:
            reasons[uid] = CONTAMINATED
        elif tier == "unrated":
            reasons[uid] = curation.reason_N[row] or UNRATED
    return reasons


def _curation_rows(
    cell: Cell, curation: Curation, clusters: pa.Table, reasons: Mapping[str, str]
) -> pa.Table:
    cluster_of = {
        uid: row["cluster"]
        for row in clusters.select(["cluster", "members"]).to_pylist()
        for uid in row["members"]
    }
    rows = [
        {
            "uid": uid,
            "cell": ONE_CELL,
            "task": cell.tasks[row],
            "curated_rating": _number(curation.curated_rating_N[row], missing=-1),
            "confidence": _number(curation.confidence_N[row]),
            "quality": _number(curation.quality_N[row]),
            "long_tail": _number(curation.long_tail_N[row]),
            "duplicate_of": _representative(cell, curation, row),
            "licence": cell.licences[row],
            "tier": curation.tier_N[row],
            "cluster": cluster_of.get(uid),
            "reason": reasons.get(uid),
        }
        for row, uid in enumerate(cell.uids)
    ]
    rows += [
        {"uid": uid, "cell": ONE_CELL, "tier": "unrated", "reason": NO_EMBEDDING}
        for uid in cell.blind
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["curation"].file_schema)


def _representative(cell: Cell, curation: Curation, row: int) -> str | None:
    leader = int(curation.duplicate_of_N[row])
    return cell.uids[leader] if leader >= 0 else None


def _number(value: Any, missing: int | None = None) -> Any:
    number = value.item()
    return None if number == missing or number != number else number


def _count(names: Sequence[str]) -> dict[str, int]:
    return {name: names.count(name) for name in set(names)}
