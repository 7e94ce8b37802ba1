"""Curate and cluster: everything that needs neighbors, cell by cell.

A cell is read whole, in one task: its rows get a quality, a long-tail score and a tier, and its
low-quality rows are grouped. A small pool is one cell, and then the results are exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixup.clusters.grouping import cluster_key, group
from mixup.clusters.linearize import item_text
from mixup.config import ClusterConfig, ColumnRater, CurateConfig, RefreshConfig, Similarity
from mixup.ledger import StageCounts
from mixup.quality.curation import Curation, CurationSettings, Library, curate
from mixup.records import TABLES, Turn
from mixup.selection.licences import allowed, union
from mixup.stages.embed import vectors_from_arrow
from mixup.stages.rate import rater_revision
from mixup.stages.reference import Reference, current_reference, fit_reference, save_reference
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
from mixup.text.tasks import CHAT
from mixup.workspace import Workspace

_INPUTS = ("occurrences", "records", "embeddings", "ratings")
_ONE_CELL = 0

SINGLETON = "singleton"
PASSED = ("chat", "too_long", "licence")
"""Why a low-quality row is not offered to clustering at all."""
NO_EMBEDDING = "no_embedding"
UNRATED = "unrated"


@dataclass(frozen=True)
class CellSettings:
    """All that decides the outcome of a cell besides its rows."""

    curate: CurateConfig
    cluster: ClusterConfig
    similarity: Similarity
    encoder: str
    rater: str
    only_rated: bool
    licences: tuple[str, ...] | None
    library: str | None = None

    @classmethod
    def of(
        cls, config: RefreshConfig, similarity: Similarity, encoder: str, library: str | None
    ) -> CellSettings:
        """The settings of a refresh; ``library`` is a key of the rated files to compare with."""
        licences = config.select.licences
        return cls(
            curate=config.curate,
            cluster=config.cluster,
            similarity=similarity,
            encoder=encoder,
            rater=rater_revision(config.rate),
            only_rated=isinstance(config.rate, ColumnRater),
            licences=None if licences is None else tuple(licences),
            library=library,
        )

    def curation(self) -> CurationSettings:
        """The settings of the scores."""
        config = self.curate
        return CurationSettings(
            threshold=config.threshold,
            neighbors=config.neighbors,
            transition_neighbors=config.transition_neighbors,
            long_tail_neighbors=config.long_tail_neighbors,
            effective_votes=config.effective_votes,
            reliability=config.reliability,
            smoothing=config.smoothing,
            min_rated=config.min_rated,
            keep_at=config.keep_at,
            margin=config.margin,
            duplicate_similarity=self.similarity.near_duplicate,
        )

    def grouping(self) -> list[Any]:
        """JSON data that decides which rows may form a cluster: with others, all are regrouped."""
        return [
            self.cluster.model_dump(mode="json"),
            self.similarity.cluster_floor,
            self.encoder,
            self.licences,
        ]

    def scoring(self) -> list[Any]:
        """JSON data that decides the reference library."""
        fit = [self.curate.transition_neighbors, self.curate.smoothing]
        return [self.encoder, self.rater, self.library, self.similarity.near_duplicate, *fit]

    def everything(self) -> list[Any]:
        """JSON data of all settings."""
        rest = [self.curate.model_dump(mode="json"), self.similarity.model_dump(), self.only_rated]
        return [self.grouping(), self.scoring(), *rest]


def curate_state(context: RunContext, settings: CellSettings) -> StageState:
    """Whether the cells have been scored and grouped for the pool as it is."""
    return stage_state(
        context.workspace,
        "curate",
        "curation",
        inputs=_INPUTS,
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
        name: snapshot(workspace, name) for name in (*_INPUTS, "curation", "clusters", "files")
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
        parts={tier: totals[tier] for tier in ("high", "low", "duplicate", "unrated")},
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
    committer.complete("clusters", grouping.completion(context.run, record))
    committer.complete("curation", state.completion(context.run, dict(curated.parts)))
    return curated.log(), clustered.log()


@dataclass(frozen=True)
class Cell:
    """The rows of one cell, oldest first, that have a vector; and the uids of those that have none.

    Attributes:
        uids: N uids.
        vectors_ND: Unit vectors.
        ratings_N: Observed ratings 0-5; -1 for unrated.
        tasks: N task types.
        turns: N conversations.
        tokens_N: Estimated tokens.
        licences: N licences, each the union over the row's occurrences.
        blind: Uids of the pool without a vector.
    """

    uids: list[str]
    vectors_ND: np.ndarray
    ratings_N: np.ndarray
    tasks: list[str]
    turns: list[list[Turn]]
    tokens_N: np.ndarray
    licences: list[str]
    blind: list[str]


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
    kept, clusters = _cluster(cell, curation, settings, None if regroup else held)
    reasons = _reasons(cell, curation, clusters, settings)
    curated = _curation_rows(cell, curation, clusters, reasons)
    cluster_files, cluster_removed = _changed_clusters(
        workspace, tables["clusters"], held, clusters
    )
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


def read_cell(
    workspace: Workspace,
    tables: Mapping[str, Snapshot],
    pool: Sequence[str],
    settings: CellSettings,
) -> Cell:
    """The pool's rows, oldest first."""
    licences = _licences_by_age(workspace, tables, pool)
    wanted = pa.array(list(licences), pa.string())

    def of_pool(name: str, columns: list[str]) -> pa.Table:
        rows = read_files(workspace, name, tables[name].paths, columns)
        return rows.filter(pc.is_in(rows["uid"], value_set=wanted))

    embeddings = of_pool("embeddings", ["uid", "encoder", "vector", "reason"])
    usable = pc.and_(
        pc.equal(embeddings["encoder"], settings.encoder), pc.is_null(embeddings["reason"])
    )
    embeddings = embeddings.filter(usable)
    row_of = {uid: row for row, uid in enumerate(embeddings["uid"].to_pylist())}
    uids = [uid for uid in licences if uid in row_of]
    vectors_ND = vectors_from_arrow(embeddings["vector"])[[row_of[uid] for uid in uids]]
    ratings = of_pool("ratings", ["uid", "rater", "rating"])
    ratings = ratings.filter(pc.equal(ratings["rater"], settings.rater))
    rated = dict(zip(ratings["uid"].to_pylist(), ratings["rating"].to_pylist(), strict=True))
    records = of_pool("records", ["uid", "task", "turns", "tokens"])
    record = dict(zip(records["uid"].to_pylist(), records.to_pylist(), strict=True))
    observed = [-1 if rated.get(uid) is None else rated[uid] for uid in uids]
    return Cell(
        uids=uids,
        vectors_ND=vectors_ND,
        ratings_N=np.array(observed, dtype=np.int64),
        tasks=[record[uid]["task"] for uid in uids],
        turns=[[Turn(**turn) for turn in record[uid]["turns"]] for uid in uids],
        tokens_N=np.array([record[uid]["tokens"] for uid in uids], dtype=np.int64),
        licences=[licences[uid] for uid in uids],
        blind=[uid for uid in licences if uid not in row_of],
    )


def _licences_by_age(
    workspace: Workspace, tables: Mapping[str, Snapshot], pool: Sequence[str]
) -> dict[str, str]:
    """The licence of each uid of the pool, in the order in which they first came."""
    columns = ["fingerprint", "ingested_at", "path"]
    files = read_files(workspace, "files", tables["files"].paths, columns)
    files = files.sort_by([("ingested_at", "ascending"), ("path", "ascending")])
    rank = {file: place for place, file in enumerate(files["fingerprint"].to_pylist())}
    columns = ["file", "offset", "uid", "licence"]
    rows = read_files(workspace, "occurrences", tables["occurrences"].paths, columns)
    rows = rows.filter(pc.is_in(rows["file"], value_set=pa.array(pool, pa.string())))
    ranks = pa.array([rank[file] for file in rows["file"].to_pylist()], pa.int64())
    rows = rows.append_column("rank", ranks)
    rows = rows.sort_by([("rank", "ascending"), ("offset", "ascending")])
    found: dict[str, set[str]] = {}
    for uid, licence in zip(rows["uid"].to_pylist(), rows["licence"].to_pylist(), strict=True):
        found.setdefault(uid, set()).add(licence)
    return {uid: union(licences) for uid, licences in found.items()}


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
    if not settings.only_rated:
        return curation
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


def _cluster(
    cell: Cell, curation: Curation, settings: CellSettings, held: pa.Table | None
) -> tuple[int, pa.Table]:
    """How many clusters stay as they are, and all clusters: those that stay, then new ones.

    A cluster stays while all its members are low-quality rows that may be clustered.
    """
    row_of = {uid: row for row, uid in enumerate(cell.uids)}
    free = np.array([_passed(cell, row, settings) is None for row in range(len(cell.uids))], bool)
    free &= curation.tier_N == "low"
    stays: list[bool] = []
    for members in held["members"].to_pylist() if held is not None else []:
        rows = [row_of.get(uid, -1) for uid in members]
        whole = all(row >= 0 and free[row] for row in rows)
        stays.append(whole)
        if whole:
            free[rows] = False
    empty = TABLES["clusters"].file_schema.empty_table()
    kept = empty if held is None else held.filter(pa.array(stays, pa.bool_()))
    kept = _with_present_licences(kept, cell)
    new = _new_clusters(cell, curation, settings, np.flatnonzero(free))
    return kept.num_rows, pa.concat_tables([kept, new])


def _with_present_licences(clusters: pa.Table, cell: Cell) -> pa.Table:
    """Clusters with the union of the licences that their members have now.

    A member that came again from another source has that source's licence too.
    """
    licence_of = dict(zip(cell.uids, cell.licences, strict=True))
    licences = [union(licence_of[uid] for uid in uids) for uids in clusters["members"].to_pylist()]
    column = pa.array(licences, pa.string())
    return clusters.set_column(clusters.schema.get_field_index("licence"), "licence", column)


def _new_clusters(
    cell: Cell, curation: Curation, settings: CellSettings, rows: np.ndarray
) -> pa.Table:
    config = settings.cluster
    schema = TABLES["clusters"].file_schema
    if not len(rows):
        return schema.empty_table()
    groups = group(
        cell.vectors_ND[rows],
        tokens_N=cell.tokens_N[rows],
        labels_N=np.array([cell.tasks[row] for row in rows]),
        order_N=np.arange(len(rows)),
        floor=settings.similarity.cluster_floor,
        min_size=config.min_size,
        max_size=config.max_size,
        max_tokens=config.max_tokens,
        neighbors=config.neighbors,
    )
    found = []
    for places, cohesion in zip(groups.members, groups.cohesion.tolist(), strict=True):
        members = rows[places].tolist()
        task = cell.tasks[members[0]]
        found.append(
            {
                "cluster": cluster_key([cell.uids[row] for row in members]),
                "cell": _ONE_CELL,
                "task": task,
                "members": [cell.uids[row] for row in members],
                "inputs": [item_text(cell.turns[row], task) for row in members],
                "cohesion": cohesion,
                "long_tail": float(np.nanmean(curation.long_tail_N[members])),
                "tokens": int(cell.tokens_N[members].sum()),
                "licence": union(cell.licences[row] for row in members),
            }
        )
    return pa.Table.from_pylist(found, schema=schema)


def _passed(cell: Cell, row: int, settings: CellSettings) -> str | None:
    """Why a row may not be clustered at all, or None."""
    if cell.tasks[row] == CHAT:
        return "chat"
    if cell.tokens_N[row] >= settings.cluster.max_tokens:
        return "too_long"
    licences = None if settings.licences is None else list(settings.licences)
    return None if allowed(cell.licences[row], licences) else "licence"


def _reasons(
    cell: Cell, curation: Curation, clusters: pa.Table, settings: CellSettings
) -> dict[str, str]:
    """Why a row is neither high-quality nor a member of a cluster, by uid."""
    members = {uid for uids in clusters["members"].to_pylist() for uid in uids}
    reasons = dict.fromkeys(cell.blind, NO_EMBEDDING)
    for row, uid in enumerate(cell.uids):
        tier = curation.tier_N[row]
        if tier == "low" and uid not in members:
            reasons[uid] = _passed(cell, row, settings) or SINGLETON
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
            "cell": _ONE_CELL,
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
        {"uid": uid, "cell": _ONE_CELL, "tier": "unrated", "reason": NO_EMBEDDING}
        for uid in cell.blind
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["curation"].file_schema)


def _representative(cell: Cell, curation: Curation, row: int) -> str | None:
    leader = int(curation.duplicate_of_N[row])
    return cell.uids[leader] if leader >= 0 else None


def _number(value: Any, missing: int | None = None) -> Any:
    number = value.item()
    return None if number == missing or number != number else number


def _changed_clusters(
    workspace: Workspace, before: Snapshot, held: pa.Table, clusters: pa.Table
) -> tuple[list, Sequence[str]]:
    """The files to write and to remove; none when the clusters are the same as before."""
    columns = ["cluster", "licence"]  # the others follow from the members
    old, new = (table.select(columns).sort_by("cluster").to_pylist() for table in (held, clusters))
    if old == new:
        return [], ()
    return write_by_bucket(workspace, "clusters", clusters), before.paths


def _count(names: Sequence[str]) -> dict[str, int]:
    return {name: names.count(name) for name in set(names)}
