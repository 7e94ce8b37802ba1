"""The typed config of `mixup build-reference`; how it is read and shown is as in `mixup.config`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mixup.config import (
    Count,
    EmbedConfig,
    IngestConfig,
    QualityPredictor,
    RayConfig,
    Reliability,
    Section,
    Share,
)
from mixup.mixture_config import MixtureRater
from mixup.rater_config import ColumnRater


class FitConfig(Section):
    """What is fitted on the ratings."""

    min_rated: Annotated[int, Field(ge=2)] = 20
    """A library of fewer rated rows is refused."""
    min_task_rated: Annotated[int, Field(ge=2)] = 100
    """A task type of fewer rated rows has no T and p of its own: its samples are judged by the rows
    of all task types."""
    max_rows: Count = 40_000
    """Most rows of a task type, drawn by their content's hash; a reward actor holds all of them."""
    predictor: QualityPredictor = "regression"
    """Whether a regression is fitted too, for score curation (`curate.predictor`) and for the
    samples of a refresh that asks for it (`reward.predictor`). GRPO's reward reads votes."""
    reliability: Reliability = "auto"
    """Probability that a rating is the true class, as `curate.reliability` of a refresh."""
    transition: Literal["cooccurrence", "consensus"] = "cooccurrence"
    """The T with which votes are read, as `curate.transition` of a refresh."""
    transition_neighbors: Count = 3
    """Neighbors counted per rated row for T."""
    neighbors: Count = 16
    """Neighbors with which the worth of votes is fitted."""
    smoothing: Annotated[float, Field(gt=0)] = 0.01
    """Added to every count of T."""


class ReferenceConfig(Section):
    """`mixup build-reference`: rated rows become the library that the quality reward reads."""

    workspace: str
    """A folder or object-store URL; relative to where the command is typed."""
    workspace_shared: bool = False
    """A local workspace lies on a file system that all nodes share."""
    commit_interval_s: Annotated[float, Field(gt=0)] = 5.0
    """Least seconds between two commits; a crash loses at most what came after the last one."""
    stall_timeout_s: Annotated[float, Field(gt=0)] = 1800.0
    """A stage in which no row finishes for this many seconds fails, with its actors' last log
    lines."""
    max_dropped_share: Share = 0.2
    """The run fails when a larger share of the rows that are read is dropped as defective."""
    ingest: IngestConfig | None = None
    """Rated rows in any input format."""
    mixture: str | None = None
    """A workspace of `mixup build-mixture`, which is only read. Its rows and candidates that a
    column or a judge rated are taken, high and low ones, but for those in its test and validation
    splits: nobody is to be rewarded for what he is tested on. A class by construction is no
    observation and is left out."""
    rate: MixtureRater = ColumnRater()
    """How the rows of `ingest.paths` get ratings; one of two kinds."""
    licences: list[str] | None = None
    """Only rows whose licences are all listed are used; null allows every licence."""
    embed: EmbedConfig = EmbedConfig()
    fit: FitConfig = FitConfig()
    ray: RayConfig = RayConfig()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.mixture is None and self.ingest is None:
            raise ValueError("one of ingest.paths and mixture is needed")
        return self
