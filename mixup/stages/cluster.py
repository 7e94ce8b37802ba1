"""Cluster: the low-quality rows of a cell → clusters that stay, and new ones of what is free."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from mixup.clusters.grouping import cluster_key, group
from mixup.clusters.linearize import item_text
from mixup.quality.curation import Curation
from mixup.records import TABLES
from mixup.selection.licences import allowed, union
from mixup.stages.cell import Cell, CellSettings
from mixup.tables import Snapshot, WrittenFile, write_by_bucket
from mixup.text.tasks import CHAT
from mixup.workspace import Workspace

ONE_CELL = 0
SINGLETON = "singleton"
PASSED = ("chat", "too_long", "licence")
"""Why a low-quality row is not offered to clustering at all."""


def cluster_cell(
    cell: Cell, curation: Curation, settings: CellSettings, held: pa.Table | None
) -> tuple[int, pa.Table]:
    """How many clusters stay as they are, and all clusters: those that stay, then new ones.

    A cluster stays while all its members are low-quality rows that may be clustered.
    """
    row_of = {uid: row for row, uid in enumerate(cell.uids)}
    free = np.array(
        [passed_over(cell, row, settings) is None for row in range(len(cell.uids))], bool
    )
    free &= curation.tier_N == "low"
    stays: list[bool] = []
    for members in held["members"].to_pylist() if held is not None else []:
        places = [row_of.get(uid, -1) for uid in members]
        whole = all(place >= 0 and free[place] for place in places)
        stays.append(whole)
        if whole:
            free[places] = False
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
                "cell": ONE_CELL,
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


def passed_over(cell: Cell, row: int, settings: CellSettings) -> str | None:
    """Why a row may not be clustered at all, or None."""
    if cell.tasks[row] == CHAT:
        return "chat"
    if cell.tokens_N[row] >= settings.cluster.max_tokens:
        return "too_long"
    licences = None if settings.licences is None else list(settings.licences)
    return None if allowed(cell.licences[row], licences) else "licence"


def changed_clusters(
    workspace: Workspace, before: Snapshot, held: pa.Table, clusters: pa.Table
) -> tuple[list[WrittenFile], Sequence[str]]:
    """The files to write and to remove; none when the clusters are the same as before."""
    columns = ["cluster", "licence"]  # the others follow from the members
    old, new = (table.select(columns).sort_by("cluster").to_pylist() for table in (held, clusters))
    if old == new:
        return [], ()
    return write_by_bucket(workspace, "clusters", clusters), before.paths
