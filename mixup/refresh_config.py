"""The typed config of `mixup refresh`; how it is read and shown is as in `mixup.config`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from mixup.config import (
    AS_NUMBER,
    AS_SECTION,
    AS_WORD,
    Amount,
    Count,
    DecontaminateConfig,
    EmbedConfig,
    IngestConfig,
    QualityPredictor,
    RayConfig,
    Reliability,
    Section,
    Share,
    nearest_key,
    word_or_number,
)
from mixup.rater_config import EngineConfig, Rater, ReferenceRater

RewardMode = Literal["soft", "paper", "released_code"]


def _section_or_number(value: object) -> str:
    """The form of a value, so that only what is wrong with that form is said."""
    return AS_SECTION if isinstance(value, dict | PrecisionTarget) else AS_NUMBER


class PrecisionTarget(Section):
    """A cut that is found, not stated."""

    precision: Annotated[float, Field(gt=0, lt=1)]
    """The expected share of truly high-quality rows among those that are kept."""


class CurateConfig(Section):
    """Quality posterior, long-tail score and near-duplicates."""

    threshold: Annotated[int, Field(ge=1, le=5)] = 4
    """High quality means a rating class of at least this (the paper's tau)."""
    keep_at: Annotated[
        Annotated[Share, Tag(AS_NUMBER)] | Annotated[PrecisionTarget, Tag(AS_SECTION)],
        Discriminator(_section_or_number),
    ] = 0.5
    """A row is high-quality when P(rating >= threshold) is at least this. `{precision: 0.9}` finds
    the lowest such number whose rows are expected to be truly high-quality for that share."""
    margin: Share = 0.05
    """How far beyond keep_at a row must come to change sides on a later night."""
    predictor: QualityPredictor = "regression"
    """What tells a row's quality before its own rating is heard: `regression`, a logistic
    regression on the embedding, fitted on the rated rows; `neighbors`, the votes of its rated
    neighbors (KNN-Bayes), as `reward.predictor` is by default. With one rating class, votes."""
    neighbors: Count = 16
    """Rated neighbors that vote on a row."""
    transition: Literal["cooccurrence", "consensus"] = "cooccurrence"
    """The T with which votes are read: `cooccurrence`, how ratings of neighbors go together;
    `consensus`, the rater's errors alone, which takes neighbors to be truly alike."""
    transition_neighbors: Count = 3
    """Neighbors counted per rated row for the transition matrix T."""
    long_tail_neighbors: Count = 15
    """Neighbors in the long-tail score."""
    cell_rows: Annotated[int, Field(ge=2)] = 4000
    """Most rows of a cell, inside which neighbors are looked for; a smaller pool is one cell."""
    cell_copies: Annotated[float, Field(ge=1, le=3)] = 2.95
    """Cells in which a row is visible on average, its own among them: more of a row's neighbors are
    seen, and more rows are compared. A row near many cells is in five at most."""
    effective_votes: Annotated[
        Annotated[Literal["auto"], Tag(AS_WORD)] | Annotated[float, Field(gt=0), Tag(AS_NUMBER)],
        Discriminator(word_or_number),
    ] = "auto"
    """How many independent votes the neighbors are worth: the tempering of the posterior. `auto`
    takes the number with which neighbors predict the observed ratings best."""
    suspicion: Literal["bootstrap", "reference", "off"] = "bootstrap"
    """The test of observed ratings by their neighbors', where the errors of the rater are known
    (see reliability). `reference` draws and searches anew in each epoch as DS2's code does, in a
    pool that is one cell."""
    cure_at: Share = 0.5
    """Confidence from which a suspicious rating is replaced by what its neighbors suggest."""
    reliability: Reliability = "auto"
    """Probability that an observed rating is the true class. `auto`: as the ratings of neighbors or
    else the regression tell it (the votes of `predictor: neighbors` do not); 0.85 where neither
    can, and then no rating is tested. A number, such as the share of ratings that a careful reader
    confirms, is taken as it is. A library that was built apart was fitted with its own."""
    smoothing: Annotated[float, Field(gt=0)] = 0.01
    """Added to every count of T."""
    min_rated: Annotated[int, Field(ge=2)] = 20
    """With fewer rated rows there is no posterior for unrated ones."""
    refit_at: Annotated[float, Field(gt=0)] = 0.2
    """T and p are kept until the number of rated rows has changed by this share."""

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if isinstance(self.keep_at, PrecisionTarget):
            return self
        if not self.margin <= min(self.keep_at, 1 - self.keep_at):
            raise ValueError(f"keep_at {self.keep_at} -/+ margin {self.margin} leaves 0 to 1")
        return self


class ClusterConfig(Section):
    """How low-quality rows are grouped."""

    min_size: Annotated[int, Field(ge=2)] = 2
    """Smaller groups stay singletons."""
    max_size: Annotated[int, Field(ge=2, le=25)] = 5
    """Largest cluster (the paper's released setting; 20 at most was used for MIXTURE)."""
    max_tokens: Count = 1600
    """Largest sum of a cluster's estimated tokens."""
    neighbors: Count = 16
    """Neighbors of a row that are looked at."""

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.min_size > self.max_size:
            raise ValueError("min_size must not be above max_size")
        return self


class DistillConfig(EngineConfig):
    """The distiller and how it samples."""

    samples: Count = 4
    """Samples for each cluster, each with its own seed."""
    temperature: Annotated[float, Field(ge=0)] = 0.7
    """Sampling temperature; 0 is greedy, and then one sample is enough."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Nucleus sampling."""
    max_tokens: Count = 1024
    """Longest output in tokens."""
    structured: Literal["none", "all", "all_but_first"] = "none"
    """Constrain outputs to the task's format. `all_but_first` leaves the first sample of each
    cluster free, so that the report can state format compliance without constrained decoding."""
    keep: Literal["accepted", "current"] = "accepted"
    """`accepted`: a new distiller works only on clusters without an accepted distillation;
    `current`: on all."""
    max_clusters: Count | None = None
    """At most this many clusters are distilled, the most cohesive of each task first; null: all."""
    batch_clusters: Count = 64
    """Clusters handed to an engine at once; commits follow each batch."""


class ScoringConfig(Section):
    """The rubric that scores samples, and the actors that do."""

    mode: RewardMode = "soft"
    """How quality and alignment become numbers (spec, section 9)."""
    weights: dict[str, float] = {"quality": 0.5, "alignment": 0.4, "format": 0.1, "coverage": 0.0}
    """Weight of each component, renormalised to 1."""
    task_weights: dict[str, dict[str, float]] = {}
    """Other weights for single tasks."""
    actors: Count = 1
    """Actors of each reward component."""
    encoders: Count = 1
    """Encoder actors that the components share."""
    actor_cpus: Amount = 0.05
    """CPUs of each component actor."""
    encoder_cpus: Amount = 0.25
    """CPUs of each shared encoder actor."""
    encoder_gpus: Amount = 0.0
    """GPUs of each shared encoder actor."""

    @model_validator(mode="after")
    def _known_components(self) -> Self:
        known = {"quality", "alignment", "format", "coverage"}
        for weights in [self.weights, *self.task_weights.values()]:
            if unknown := set(weights) - known:
                name = sorted(unknown)[0]
                near = nearest_key(name, sorted(known), f"; known: {sorted(known)}")
                raise ValueError(f"unknown reward component {name!r}{near}")
            if min(weights.values(), default=0.0) < 0 or sum(weights.values()) <= 0:
                raise ValueError("reward weights must be >= 0 and not all 0")
        return self


class RewardConfig(ScoringConfig):
    """The rubric that scores samples, and what a sample needs to be accepted."""

    predictor: QualityPredictor = "neighbors"
    """What tells a sample's quality: `neighbors`, the votes of the rated rows nearest to it
    (KNN-Bayes, as in GRPO's reward); `regression`, the regression of `curate.predictor`, for pools
    in which neighbors do not tell ratings: there every sample gets the same quality by votes."""
    min_quality: Share = 0.5
    """Least quality of an accepted sample."""
    min_alignment: Share = 0.3
    """Least alignment of an accepted sample."""
    min_coverage: Share = 0.3
    """Least coverage of the inputs of an accepted sample."""
    min_combined: Share = 0.5
    """Least combined reward of an accepted sample."""
    max_copied: Share = 0.9
    """A sample with a larger share of its words taken from one single input is a copy."""
    max_repetition: Share = 0.3
    """A sample with a larger share of repeated 4-grams is degenerate."""
    max_lost: Share = 0.7
    """A sample that lacks a larger share of its inputs' content words has lost what they say."""


class SelectConfig(Section):
    """What goes into the release."""

    size: Count = 10_000
    """Rows of the release."""
    distilled_share: Share = 0.5
    """Share of distilled rows; the rest are the best originals."""
    shortfall: Literal["shrink", "fill", "fail"] = "shrink"
    """When one part has too few rows: a smaller release, more of the other part, or an error."""
    licences: list[str] | None = None
    """Only rows whose licences are all listed; null allows every licence."""


class RefreshConfig(Section):
    """`mixup refresh`: a pool of instruction data becomes a released dataset."""

    workspace: str
    """A folder or object-store URL; relative to where the command is typed."""
    workspace_shared: bool = False
    """A local workspace lies on a file system that all nodes share."""
    seed: int = 0
    """Decides sampling and the order of the release."""
    commit_interval_s: Annotated[float, Field(gt=0)] = 5.0
    """Least seconds between two commits; a crash loses at most what came after the last one."""
    stall_timeout_s: Annotated[float, Field(gt=0)] = 1800.0
    """A stage in which no row finishes for this many seconds fails, with its actors' last log
    lines. Give it the time that an engine needs to start and to work off one batch."""
    max_dropped_share: Share = 0.2
    """The run fails when a larger share of a stage's rows is dropped as defective."""
    ingest: IngestConfig
    embed: EmbedConfig = EmbedConfig()
    rate: Rater = ReferenceRater()
    """How rows get ratings; one of three kinds."""
    decontaminate: DecontaminateConfig = DecontaminateConfig()
    curate: CurateConfig = CurateConfig()
    cluster: ClusterConfig = ClusterConfig()
    distill: DistillConfig = DistillConfig()
    reward: RewardConfig = RewardConfig()
    select: SelectConfig = SelectConfig()
    ray: RayConfig = RayConfig()

    @model_validator(mode="after")
    def _window(self) -> Self:
        if self.distill.max_tokens >= self.distill.context_tokens:
            raise ValueError("distill.max_tokens must be below distill.context_tokens")
        return self

    @model_validator(mode="after")
    def _regressed(self) -> Self:
        if self.reward.predictor == "regression" and self.curate.predictor != "regression":
            raise ValueError(
                "reward.predictor=regression needs curate.predictor=regression, which fits it"
            )
        return self

    @model_validator(mode="after")
    def _counted(self) -> Self:
        """A precision is told by the pool's own ratings, of which a library is none."""
        is_sought = isinstance(self.curate.keep_at, PrecisionTarget)
        if is_sought and isinstance(self.rate, ReferenceRater) and self.rate.library:
            raise ValueError("curate.keep_at.precision needs a pool without rate.library")
        return self
