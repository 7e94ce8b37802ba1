"""A cell: the part of the pool in which neighbors are looked for, and what decides its outcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixup.config import Similarity
from mixup.quality.transition import UNRATED
from mixup.rater_config import ColumnRater
from mixup.records import Turn
from mixup.refresh_config import ClusterConfig, CurateConfig, RefreshConfig
from mixup.stages.embed import vectors_from_arrow


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

    def grouping(self) -> list[Any]:
        """JSON data that decides which rows may form a cluster: with others, all are regrouped."""
        return [
            self.cluster.model_dump(mode="json"),
            self.similarity.cluster_floor,
            self.encoder,
            self.licences,
        ]

    def scoring(self) -> list[Any]:
        """JSON data that decides the reference library and what is fitted with it."""
        config = self.curate
        fit = [config.predictor, config.transition, config.transition_neighbors, config.smoothing]
        cast = [config.reliability, config.neighbors, config.min_rated, self.only_rated]
        near_duplicate = self.similarity.near_duplicate
        return [self.encoder, self.rater, self.library, near_duplicate, *fit, *cast]

    def everything(self) -> list[Any]:
        """JSON data of all settings."""
        rest = [self.curate.model_dump(mode="json"), self.similarity.model_dump(), self.only_rated]
        if self.questions:
            rest.append(self.questions)
        return [self.grouping(), self.scoring(), *rest]


@dataclass(frozen=True)
class Cell:
    """The rows at home in one cell, oldest first, and those that visit it.

    Attributes:
        number: Its id.
        uids: N uids.
        vectors_ND: Unit vectors.
        ratings_N: Observed ratings 0-5; -1 for unrated.
        ages_N: Ranks of the rows among all of the cell, visitors too, 0 for the oldest.
        tasks: N task types.
        turns: N conversations.
        sources: N sources, each that of the row's oldest occurrence; None where it names none.
        tokens_N: Estimated tokens.
        licences: N licences, each the union over the row's occurrences.
        contaminated_N: Whether a row holds an evaluation question.
        tiers: The tiers of an earlier run, or None.
        clusters: The keys of the clusters of an earlier run, or None.
        visitors: The visitors.
    """

    number: int
    uids: list[str]
    vectors_ND: np.ndarray
    ratings_N: np.ndarray
    ages_N: np.ndarray
    tasks: list[str]
    turns: list[list[Turn]]
    sources: list[str | None]
    tokens_N: np.ndarray
    licences: list[str]
    contaminated_N: np.ndarray
    tiers: list[str | None]
    clusters: list[str | None]
    visitors: Visitors


@dataclass(frozen=True)
class Visitors:
    """The rows of other cells that are neighbors here: M of them, described as those of a cell."""

    uids: list[str]
    vectors_MD: np.ndarray
    ratings_M: np.ndarray
    ages_M: np.ndarray
    sources: list[str | None]


def cell_of(number: int, rows: pa.Table) -> Cell:
    """A cell from its staged rows (``stages.cell_rows``), in any order."""
    by_age = [("rank", "ascending"), ("offset", "ascending"), ("uid", "ascending")]
    rows = rows.sort_by(by_age).append_column("age", pa.array(np.arange(rows.num_rows)))
    own, near = rows.filter(pc.invert(rows["visitor"])), rows.filter(rows["visitor"])
    return Cell(
        number=number,
        uids=own["uid"].to_pylist(),
        vectors_ND=vectors_from_arrow(own["vector"]),
        ratings_N=_ratings(own),
        ages_N=own["age"].to_numpy(),
        tasks=own["task"].to_pylist(),
        turns=[[Turn(**turn) for turn in turns] for turns in own["turns"].to_pylist()],
        sources=own["source"].to_pylist(),
        tokens_N=own["tokens"].to_numpy().astype(np.int64),
        licences=own["licence"].to_pylist(),
        contaminated_N=own["contaminated"].to_numpy().astype(bool),
        tiers=own["tier"].to_pylist(),
        clusters=own["cluster"].to_pylist(),
        visitors=Visitors(
            near["uid"].to_pylist(),
            vectors_from_arrow(near["vector"]),
            _ratings(near),
            near["age"].to_numpy(),
            near["source"].to_pylist(),
        ),
    )


def _ratings(rows: pa.Table) -> np.ndarray:
    return pc.fill_null(rows["rating"], UNRATED).to_numpy().astype(np.int64)
