"""One cell: its rows get a quality, a long-tail score and a tier; the low ones are grouped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from mixup.quality.curation import Curation, curate
from mixup.quality.curation_settings import CurationSettings
from mixup.quality.library import Library
from mixup.quality.rating_test import RatingTest
from mixup.quality.regression import Regression
from mixup.quality.transition import Transition
from mixup.records import TABLES
from mixup.selection.acceptance import CONTAMINATED
from mixup.stages.cell import Cell, CellSettings
from mixup.stages.cluster import SINGLETON, cluster_cell, passed_over
from mixup.stages.rating_counts import row_ids
from mixup.stages.reference import current_fit, current_reference
from mixup.stages.scores import curation_settings, pool_scores, rating_test
from mixup.workspace import Workspace

UNRATED = "unrated"


@dataclass(frozen=True)
class Scoring:
    """With what all cells of a pool are scored.

    Attributes:
        numbers: The settings of the scores.
        library: Who votes everywhere; None: the rated rows of each cell and its visitors.
        fallback: Who votes where too few of them are rated; None: nobody. Neither is there where a
            regression tells quality.
        transition: T and p; None where too little is rated.
        test: How ratings are tested; None: they are not.
        regression: What tells quality instead of votes; None: votes do.
    """

    numbers: CurationSettings
    library: Library | None
    fallback: Library | None
    transition: Transition | None
    test: RatingTest | None
    regression: Regression | None

    @classmethod
    def of(cls, workspace: Workspace, settings: CellSettings) -> Scoring:
        """The scoring with the current reference library; runs in a worker.

        The library, which is large, is read only where votes tell quality.
        """
        fit = current_fit(workspace, settings.scoring())
        scores = pool_scores(fit, settings)
        regression = fit.regressed.regression if fit and fit.regressed else None
        pool = None if regression else _voters(workspace, settings)
        return cls(
            numbers=curation_settings(scores, settings),
            library=pool if settings.library else None,
            fallback=pool,
            transition=fit and fit.transition,
            test=rating_test(fit, scores, settings),
            regression=regression,
        )


def _voters(workspace: Workspace, settings: CellSettings) -> Library | None:
    found = current_reference(workspace, settings.scoring())
    return found and Library(found.vectors_LD, found.ratings_L, found.uids)


def curate_cell(
    cell: Cell, settings: CellSettings, scoring: Scoring, *, regroup: bool
) -> tuple[pa.Table, pa.Table]:
    """The rows of the tables ``curation`` and ``clusters`` for one cell.

    Args:
        cell: Its rows and visitors.
        settings: What decides.
        scoring: With what all cells are scored.
        regroup: Whether all clusters are made anew.
    """
    curation = _curate(cell, settings, scoring)
    clusters = cluster_cell(cell, curation, settings, regroup=regroup)
    return _curation_rows(cell, curation, clusters, settings), clusters


def _curate(cell: Cell, settings: CellSettings, scoring: Scoring) -> Curation:
    near, uids = cell.visitors, [*cell.uids, *cell.visitors.uids]
    has_visitors = len(near.uids) > 0
    curation = curate(
        np.concatenate([cell.vectors_ND, near.vectors_MD]) if has_visitors else cell.vectors_ND,
        np.concatenate([cell.ratings_N, near.ratings_M]),
        np.concatenate([cell.ages_N, near.ages_M]),
        [*cell.tiers, *([None] * len(near.uids))],
        scoring.library,
        scoring.transition,
        scoring.numbers,
        uids_N=uids,
        visitors=len(near.uids),
        fallback=scoring.fallback,
        test=scoring.test,
        ids_N=row_ids(uids),
        regression=scoring.regression,
    )
    if settings.only_rated:
        curation = _without_unrated(cell, curation)
    # Last: what holds an evaluation question is left out whatever else is known of it. It votes as
    # a rated neighbor all the same, and leads its near-duplicates, which so are left out with it.
    return replace(curation, tier_N=np.where(cell.contaminated_N, CONTAMINATED, curation.tier_N))


def _without_unrated(cell: Cell, curation: Curation) -> Curation:
    """The curation with rows that have no rating of their own as unrated."""
    unrated = (cell.ratings_N < 0) & (curation.tier_N != "duplicate")
    origin = curation.origin_N.copy()
    origin[unrated] = None
    return replace(
        curation,
        quality_N=np.where(unrated, np.nan, curation.quality_N),
        confidence_N=np.where(unrated, np.nan, curation.confidence_N),
        curated_rating_N=np.where(unrated, -1, curation.curated_rating_N),
        origin_N=origin,
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
            "rating_origin": curation.origin_N[row],
            "confidence": _number(curation.confidence_N[row]),
            "quality": _number(curation.quality_N[row]),
            "long_tail": _number(curation.long_tail_N[row]),
            "predicted": _number(curation.predicted_N[row]),
            **_duplicate(cell, curation, row),
            "licence": cell.licences[row],
            "suspicious": _tested(curation, row),
            "misrated": _number(curation.misrated_N[row]),
            "suggested_rating": _number(curation.suggested_rating_N[row], missing=-1),
            "suggested_confidence": _number(curation.suggested_confidence_N[row]),
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


def _duplicate(cell: Cell, curation: Curation, row: int) -> dict[str, Any]:
    """The row that represents this one, how similar it is, and whether it has the same source."""
    leader = int(curation.duplicate_of_N[row])
    if leader < 0:
        return {"duplicate_of": None, "duplicate_similarity": None, "same_source": None}
    near, home = cell.visitors, len(cell.uids)
    uids, sources = (cell.uids, cell.sources) if leader < home else (near.uids, near.sources)
    there = leader if leader < home else leader - home
    own, other = cell.sources[row], sources[there]
    return {
        "duplicate_of": uids[there],
        "duplicate_similarity": _number(curation.duplicate_similarity_N[row]),
        "same_source": None if own is None or other is None else own == other,
    }


def _tested(curation: Curation, row: int) -> bool | None:
    """Whether a rating is suspicious; null where it was not tested."""
    return None if np.isnan(curation.misrated_N[row]) else bool(curation.suspicious_N[row])


def _number(value: Any, missing: int | None = None) -> Any:
    number = value.item()
    return None if number == missing or number != number else number
