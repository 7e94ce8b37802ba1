"""A cell: the part of the pool in which neighbors are looked for, and what decides its outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixup.config import ClusterConfig, ColumnRater, CurateConfig, RefreshConfig, Similarity
from mixup.quality.curation import CurationSettings
from mixup.records import Turn
from mixup.selection.licences import union
from mixup.stages.decontaminate import contamination_of
from mixup.stages.embed import vectors_from_arrow
from mixup.stages.pool import pool_by_age
from mixup.tables import Snapshot, read_files
from mixup.workspace import Workspace


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
    questions: str | None = None

    @classmethod
    def of(
        cls,
        config: RefreshConfig,
        similarity: Similarity,
        *,
        encoder: str,
        rater: str,
        library: str | None,
        questions: str | None = None,
    ) -> CellSettings:
        """The settings of a refresh.

        Args:
            config: The job's config.
            similarity: The encoder's thresholds.
            encoder: The encoder's revision.
            rater: The rater's revision.
            library: A key of the rated files to compare with.
            questions: The revision of the index of evaluation questions.
        """
        licences = config.select.licences
        return cls(
            curate=config.curate,
            cluster=config.cluster,
            similarity=similarity,
            encoder=encoder,
            rater=rater,
            only_rated=isinstance(config.rate, ColumnRater),
            licences=None if licences is None else tuple(licences),
            library=library,
            questions=questions,
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
        if self.questions:
            rest.append(self.questions)
        return [self.grouping(), self.scoring(), *rest]


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
        contaminated: Uids that hold an evaluation question.
    """

    uids: list[str]
    vectors_ND: np.ndarray
    ratings_N: np.ndarray
    tasks: list[str]
    turns: list[list[Turn]]
    tokens_N: np.ndarray
    licences: list[str]
    blind: list[str]
    contaminated: frozenset[str] = frozenset()


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
        contaminated=_contaminated(workspace, tables, settings),
    )


def _contaminated(
    workspace: Workspace, tables: Mapping[str, Snapshot], settings: CellSettings
) -> frozenset[str]:
    if settings.questions is None:
        return frozenset()
    hits = contamination_of(
        workspace, tables["contamination"], None, settings.questions, only_hits=True
    )
    return frozenset(hits["uid"].to_pylist())


def _licences_by_age(
    workspace: Workspace, tables: Mapping[str, Snapshot], pool: Sequence[str]
) -> dict[str, str]:
    """The licence of each uid of the pool, in the order in which they first came."""
    rows = pool_by_age(workspace, tables, None, pool)
    found: dict[str, set[str]] = {}
    for uid, licence in zip(rows["uid"].to_pylist(), rows["licence"].to_pylist(), strict=True):
        found.setdefault(uid, set()).add(licence)
    return {uid: union(licences) for uid, licences in found.items()}
