"""One cell: its rows get a quality, a long-tail score and a tier; the low ones are grouped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from mixup.quality.curation import Curation, Library, curate
from mixup.quality.transition import Transition
from mixup.records import TABLES
from mixup.selection.acceptance import CONTAMINATED
from mixup.stages.cell import Cell, CellSettings
from mixup.stages.cluster import SINGLETON, cluster_cell, passed_over

UNRATED = "unrated"


def curate_cell(
    cell: Cell,
    settings: CellSettings,
    library: Library | None,
    transition: Transition | None,
    *,
    regroup: bool,
) -> tuple[pa.Table, pa.Table]:
    """The rows of the tables ``curation`` and ``clusters`` for one cell.

    Args:
        cell: Its rows and visitors.
        settings: What decides.
        library: Who votes; None: the rated rows of the cell and its visitors.
        transition: T and p of the pool; None where too little is rated.
        regroup: Whether all clusters are made anew.
    """
    curation = _curate(cell, settings, library, transition)
    clusters = cluster_cell(cell, curation, settings, regroup=regroup)
    return _curation_rows(cell, curation, clusters, settings), clusters


def _curate(
    cell: Cell,
    settings: CellSettings,
    library: Library | None,
    transition: Transition | None,
) -> Curation:
    near = cell.visitors
    has_visitors = len(near.uids) > 0
    curation = curate(
        np.concatenate([cell.vectors_ND, near.vectors_MD]) if has_visitors else cell.vectors_ND,
        np.concatenate([cell.ratings_N, near.ratings_M]),
        np.concatenate([cell.ages_N, near.ages_M]),
        [*cell.tiers, *([None] * len(near.uids))],
        library,
        transition,
        settings.curation(),
        uids_N=[*cell.uids, *near.uids],
        visitors=len(near.uids),
    )
    if settings.only_rated:
        curation = _without_unrated(cell, curation)
    # Last: what holds an evaluation question is left out whatever else is known of it. It votes as
    # a rated neighbor all the same, and leads its near-duplicates, which so are left out with it.
    return replace(curation, tier_N=np.where(cell.contaminated_N, CONTAMINATED, curation.tier_N))


def _without_unrated(cell: Cell, curation: Curation) -> Curation:
    """The curation with rows that have no rating of their own as unrated."""
    unrated = (cell.ratings_N < 0) & (curation.tier_N != "duplicate")
    return replace(
        curation,
        quality_N=np.where(unrated, np.nan, curation.quality_N),
        confidence_N=np.where(unrated, np.nan, curation.confidence_N),
        curated_rating_N=np.where(unrated, -1, curation.curated_rating_N),
        tier_N=np.where(unrated, UNRATED, curation.tier_N),
    )


def _curation_rows(
    cell: Cell, curation: Curation, clusters: pa.Table, settings: CellSettings
) -> pa.Table:
    cluster_of = {
        uid: row["cluster"]
        for row in clusters.select(["cluster", "members"]).to_pylist()
        for uid in row["members"]
    }
    reasons = _reasons(cell, curation, cluster_of, settings)
    rows = [
        {
            "uid": uid,
            "cell": cell.number,
            "task": cell.tasks[row],
            "curated_rating": _number(curation.curated_rating_N[row], missing=-1),
            "confidence": _number(curation.confidence_N[row]),
            "quality": _number(curation.quality_N[row]),
            "long_tail": _number(curation.long_tail_N[row]),
            "duplicate_of": _representative(cell, curation, row),
            "licence": cell.licences[row],
            "tier": curation.tier_N[row],
            "cluster": cluster_of.get(uid),
            "reason": reasons.get(row),
        }
        for row, uid in enumerate(cell.uids)
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["curation"].file_schema)


def _reasons(
    cell: Cell, curation: Curation, cluster_of: Mapping[str, str], settings: CellSettings
) -> dict[int, str]:
    """Why a row is neither high-quality nor a member of a cluster, by row."""
    reasons: dict[int, str] = {}
    for row, uid in enumerate(cell.uids):
        tier = curation.tier_N[row]
        if tier == "low" and uid not in cluster_of:
            reasons[row] = passed_over(cell, row, settings) or SINGLETON
        elif tier == CONTAMINATED:
            reasons[row] = CONTAMINATED
        elif tier == UNRATED:
            reasons[row] = curation.reason_N[row] or UNRATED
    return reasons


def _representative(cell: Cell, curation: Curation, row: int) -> str | None:
    leader = int(curation.duplicate_of_N[row])
    if leader < 0:
        return None
    home = len(cell.uids)
    return cell.uids[leader] if leader < home else cell.visitors.uids[leader - home]


def _number(value: Any, missing: int | None = None) -> Any:
    number = value.item()
    return None if number == missing or number != number else number
