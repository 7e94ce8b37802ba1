"""Cluster: the low-quality rows of a cell → clusters that stay, and new ones of what is free."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from mixup.clusters.grouping import cluster_key, cohesion, group
from mixup.clusters.linearize import item_text
from mixup.quality.curation import Curation
from mixup.records import TABLES
from mixup.selection.licences import allowed, union
from mixup.stages.cell import Cell, CellSettings
from mixup.text.tasks import CHAT

SINGLETON = "singleton"
PASSED = ("chat", "too_long", "licence")
"""Why a low-quality row is not offered to clustering at all."""


def cluster_cell(
    cell: Cell, curation: Curation, settings: CellSettings, *, regroup: bool
) -> pa.Table:
    """The cell's clusters: those that stay as they are, then new ones.

    A cluster stays while all its members are at home in the cell, and low-quality rows that may be
    clustered. Its key tells whether all are there.
    """
    free = np.array(
        [passed_over(cell, row, settings) is None for row in range(len(cell.uids))], bool
    )
    free &= curation.tier_N == "low"
    kept: list[list[int]] = [] if regroup else _kept(cell, free)
    for members in kept:
        free[members] = False
    found = [*kept, *_new_groups(cell, settings, np.flatnonzero(free))]
    rows = [_cluster_row(cell, curation, members) for members in found]
    return pa.Table.from_pylist(rows, schema=TABLES["clusters"].file_schema)


def _kept(cell: Cell, free: np.ndarray) -> list[list[int]]:
    """The members of the clusters that stay."""
    members: dict[str, list[int]] = {}
    for row, key in enumerate(cell.clusters):
        if key is not None and free[row]:
            members.setdefault(key, []).append(row)
    return [rows for key, rows in members.items() if key == cluster_key(_uids(cell, rows))]


def _uids(cell: Cell, rows: Iterable[int]) -> list[str]:
    return [cell.uids[row] for row in rows]


def _new_groups(cell: Cell, settings: CellSettings, rows: np.ndarray) -> list[list[int]]:
    config = settings.cluster
    if not len(rows):
        return []
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
    return [rows[places].tolist() for places in groups.members]


def _cluster_row(cell: Cell, curation: Curation, members: list[int]) -> dict[str, Any]:
    task, uids = cell.tasks[members[0]], _uids(cell, members)
    return {
        "cluster": cluster_key(uids),
        "cell": cell.number,
        "task": task,
        "members": uids,
        "inputs": [item_text(cell.turns[row], task) for row in members],
        "cohesion": cohesion(cell.vectors_ND[members]),
        "long_tail": float(np.nanmean(curation.long_tail_N[members])),
        "tokens": int(cell.tokens_N[members].sum()),
        "licence": union(cell.licences[row] for row in members),
    }


def passed_over(cell: Cell, row: int, settings: CellSettings) -> str | None:
    """Why a row may not be clustered at all, or None."""
    if cell.tasks[row] == CHAT:
        return "chat"
    if cell.tokens_N[row] >= settings.cluster.max_tokens:
        return "too_long"
    licences = None if settings.licences is None else list(settings.licences)
    return None if allowed(cell.licences[row], licences) else "licence"
