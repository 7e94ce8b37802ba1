"""The typed config of every job: one frozen model per pipeline, from YAML and the command line.

Defaults are the paper's where it has one. The docstring under a field is its documentation: it is
shown by ``--help`` and stands in the JSON Schema.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from mixup.records import content_key

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Cosine = Annotated[float, Field(ge=-1.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
RatingClass = Annotated[int, Field(ge=0, le=5)]
Amount = Annotated[float, Field(ge=0.0)]
RewardMode = Literal["soft", "paper", "released_code"]


class Section(BaseModel):
    """A part of a config: frozen, unknown keys refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    def fingerprint(self) -> str:
        """A key of the section's values."""
        return content_key(self.model_dump(mode="json"))


class IngestConfig(Section):
    """Where instruction data comes from."""

    paths: Annotated[list[str], Field(min_length=1)]
    """Files, folders, globs or URLs; `bundled:sample` is the sample pool of the package."""
    licence: str | None = None
    """The licence of rows that do not state their own; null counts as `unknown`."""
    max_row_bytes: Count = 8_000_000
    """A longer row goes to the quarantine."""
    chunk_bytes: Count = 64_000_000
    """A plain JSONL file is split into byte ranges of about this size, read in parallel."""
    bucket_bytes: Count = 256_000_000
    """A new workspace gets one bucket per this many bytes of input, at most 256."""


class Similarity(Section):
    """Cosine thresholds, which mean something only for one encoder."""

    near_duplicate: Cosine
    """Rows at least this similar are near-duplicates."""
    cluster_floor: Cosine
    """All members of a cluster are at least this similar to one another."""
    alignment_low: Cosine
    """A distilled answer this similar to its inputs gets alignment 0."""
    alignment_high: Cosine
    """A distilled answer this similar to its inputs gets alignment 1."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.alignment_low >= self.alignment_high:
            raise ValueError("alignment_low must be below alignment_high")
        if self.cluster_floor > self.near_duplicate:
            raise ValueError("cluster_floor must not be above near_duplicate")
        return self


class EmbedConfig(Section):
    """The sentence encoder."""

    model: str = "BAAI/bge-m3"
    """A sentence-transformers folder or hub id, or `bundled:minilm`."""
    batch_rows: Count = 512
    """Rows handed to an actor at once; sorted by length there and encoded in small batches."""
    encode_rows: Count | None = None
    """Rows of one forward pass; null: 256 on a GPU, 8 on a CPU."""
    actors: Count = 1
    """Encoder actors of the embed stage. On a CPU, several of one thread each do more than one of
    several threads."""
    actor_cpus: Amount = 1.0
    """CPUs of each encoder actor."""
    actor_gpus: Amount = 0.0
    """GPUs of each encoder actor; with a GPU it runs in half precision."""
    similarity: Similarity | None = None
    """Thresholds for this encoder; null takes those known for BGE-M3 and the bundled encoder."""


class _RatedField(Section):
    field: str = "rating"
    """The column of the input rows that holds the rating."""
    scale: tuple[float, float] | None = (1.0, 10.0)
    """The lowest and highest rating of a numeric column; mapped linearly onto 1-10."""
    classes: dict[str, RatingClass] | None = None
    """For a column of labels: the rating class 0-5 of each one (true and false are lower case)."""

    @model_validator(mode="after")
    def _one_mapping(self) -> Self:
        if self.classes is None and self.scale is None:
            raise ValueError("one of scale (numbers) and classes (labels) is needed")
        if self.scale is not None and self.scale[0] >= self.scale[1]:
            raise ValueError(f"scale {self.scale} must be [lowest, highest]")
        return self


class ColumnRater(_RatedField):
    """Ratings come with the data; a row without one stays unrated and is left out."""

    type: Literal["column"] = "column"


class ReferenceRater(_RatedField):
    """Unrated rows get a KNN-Bayes posterior from the rated ones, never counted as observed."""

    type: Literal["reference"] = "reference"
    library: list[str] = []
    """Rated files in any input format to compare with; empty takes the rated part of the pool."""


class EngineConfig(Section):
    """A model that a pool of vLLM engine actors runs, and what each of them asks for."""

    model: str = "Qwen/Qwen2.5-1.5B-Instruct"
    """The model: a folder, a hub id, or `bundled:smollm2`."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Sampling temperature; 0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling."""
    max_tokens: Count = 128
    """Longest output in tokens."""
    context_tokens: Count = 4096
    """The engine's context window: prompt and output together."""
    engines: Count = 1
    """vLLM engine actors."""
    engine_cpus: Amount = 1.0
    """CPUs of each engine actor."""
    engine_gpus: Amount = 1.0
    """GPUs of each engine actor; 0 runs vLLM on the CPU in float32."""
    engine_memory_gb: Annotated[float, Field(gt=0)] = 2.0
    """Without a GPU: memory for model and KV cache; with one, the share is `gpu_memory_share`."""
    gpu_memory_share: Share = 0.85
    """Share of a GPU's memory that the engine takes."""


class EngineJudge(EngineConfig):
    """A judge model in a pool of vLLM engines of this cluster."""

    type: Literal["vllm"] = "vllm"
    structured: Literal["regex", "none"] = "regex"
    """Constrain answers to the rating's JSON form, or leave them free."""
    batch_rows: Count = 64
    """Rows handed to an engine at once; commits follow each batch."""

    @model_validator(mode="after")
    def _window(self) -> Self:
        if self.max_tokens >= self.context_tokens:
            raise ValueError("max_tokens must be below context_tokens")
        return self


class EndpointJudge(Section):
    """A judge model behind an OpenAI-compatible `/v1/chat/completions`."""

    type: Literal["endpoint"] = "endpoint"
    base_url: str
    """The address up to and with `/v1`, such as `http://127.0.0.1:8000/v1`."""
    model: str
    """The model's name at the endpoint. It is all that is known of the model: one that changes
    behind its name is not noticed, so give a dated name where there is one."""
    api_key_env: str = "OPENAI_API_KEY"
    """The name of the environment variable that holds the key. The default may be unset, as for a
    local server; one that is named here must be set."""
    temperature: Annotated[float, Field(ge=0)] | None = None
    """Sampling temperature; null sends none, so that the endpoint's own applies."""
    max_tokens: Count = 128
    """Longest answer in tokens; a model that reasons first needs more."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The request's field for it; OpenAI's reasoning models take the second only."""
    structured: Literal["auto", "json_schema", "json_object", "none"] = "auto"
    """Structured output. `auto` asks for `json_schema`, and for none where that is refused."""
    concurrency: Count = 16
    """Requests in flight."""
    timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """Longest wait for one answer."""
    retries: Annotated[int, Field(ge=0)] = 4
    """Further requests for a row after a timeout, a lost connection, or status 408, 429 or 5xx."""
    backoff_s: Annotated[float, Field(gt=0)] = 1.0
    """The n-th retry waits a random time of up to this, doubled n - 1 times."""
    backoff_cap_s: Annotated[float, Field(gt=0)] = 60.0
    """Longest wait before a retry. A server that asks for a longer one (`Retry-After`) is asked
    no more in this run."""
    give_up_after: Count = 32
    """The model is asked no more in this run when so many rows in succession get no usable
    answer."""
    max_requests: Count | None = None
    """Most requests of a run, retries included; rows beyond wait for the next run."""
    max_cost: Annotated[float, Field(gt=0)] | None = None
    """Most cost of a run, in the currency of the prices; rows beyond wait for the next run."""
    input_price: Amount = 0.0
    """Price of a million input tokens."""
    output_price: Amount = 0.0
    """Price of a million output tokens."""

    @model_validator(mode="after")
    def _priced(self) -> Self:
        if self.max_cost is not None and self.input_price + self.output_price == 0:
            raise ValueError("max_cost needs input_price and output_price")
        return self


class JudgeRater(Section):
    """A language model rates rows by a rubric; the others get a posterior as with `reference`."""

    type: Literal["judge"] = "judge"
    engine: Annotated[EndpointJudge | EngineJudge, Field(discriminator="type")]
    """The judge; one of two kinds."""
    max_rated: Count | None = None
    """At most this many rows of the pool are judged, drawn by their content's hash; null: all."""
    max_item_tokens: Count = 2048
    """A longer row is judged by its beginning (estimated tokens)."""
    spread_scores: bool = False
    """Ask the judge to use the whole scale (DS2's wording of the rubric)."""


def _default_rater(value: object) -> object:
    """A `rate` section without a type is the default kind."""
    if isinstance(value, dict) and "type" not in value:
        return {"type": "reference", **value}
    return value


Rater = Annotated[
    ColumnRater | ReferenceRater | JudgeRater,
    Field(discriminator="type"),
    BeforeValidator(_default_rater),
]


class DecontaminateConfig(Section):
    """Evaluation questions that may not get into a release."""

    paths: list[str] = []
    """Evaluation files, as `ingest.paths`; rows and samples that hold one of their questions are
    left out. Empty checks nothing."""
    columns: list[str] | None = None
    """Columns that make up the question, as far as a file has them; null takes the first of
    question, query, prompt, instruction (with input), ... Of a file with several splits the rows of
    `train` are no evaluation questions."""
    ngram: Annotated[int, Field(ge=5)] = 13
    """A text that shares this many words in a row with a question holds it."""
    min_words: Annotated[int, Field(ge=4)] = 8
    """A question of fewer words is found only as all of a turn, not within a text. In scripts
    without spaces a letter counts as half a word."""
    max_questions: Count = 10
    """Words in a row that occur in more questions of one file are that benchmark's wording and are
    not looked for."""
    min_share: Share = 0.05
    """The shared words must be at least this share of the question's: at 0.05 any 13 words of a
    question of up to 260 words, more of a longer one, which is mostly pasted code or text."""


AS_NUMBER, AS_SECTION, AS_WORD = "as_number", "as_section", "as_word"
"""The forms of a value that may have several."""


def _section_or_number(value: object) -> str:
    """The form of a value, so that only what is wrong with that form is said."""
    return AS_SECTION if isinstance(value, dict | PrecisionTarget) else AS_NUMBER


def _word_or_number(value: object) -> str:
    return AS_WORD if isinstance(value, str) else AS_NUMBER


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
    predictor: Literal["regression", "neighbors"] = "regression"
    """What tells a row's quality before its own rating is heard: `regression`, a logistic
    regression on the embedding, fitted on the rated rows; `neighbors`, the votes of its rated
    neighbors (KNN-Bayes), as in the quality reward. With one rating class, votes."""
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
    cell_border: Share = 0.3
    """A row is visible in a neighboring cell whose centroid is less similar by at most this."""
    cell_copies: Annotated[int, Field(ge=1, le=3)] = 3
    """Most cells in which a row is visible, its own among them."""
    effective_votes: Annotated[
        Annotated[Literal["auto"], Tag(AS_WORD)] | Annotated[float, Field(gt=0), Tag(AS_NUMBER)],
        Discriminator(_word_or_number),
    ] = "auto"
    """How many independent votes the neighbors are worth: the tempering of the posterior. `auto`
    takes the number with which neighbors predict the observed ratings best."""
    suspicion: Literal["bootstrap", "reference", "off"] = "bootstrap"
    """The test of observed ratings by their neighbors', where a pool is large enough to tell the
    errors of its rater. `reference` draws and searches anew in each epoch as DS2's code does, in a
    pool that is one cell."""
    cure_at: Share = 0.5
    """Confidence from which a suspicious rating is replaced by what its neighbors suggest."""
    reliability: Annotated[float, Field(gt=0, lt=1)] = 0.85
    """Probability that an observed rating is the true class."""
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


class RewardConfig(Section):
    """The rubric that scores samples, and what a sample needs to be accepted."""

    mode: RewardMode = "soft"
    """How quality and alignment become numbers (spec, section 9)."""
    weights: dict[str, float] = {"quality": 0.5, "alignment": 0.4, "format": 0.1, "coverage": 0.0}
    """Weight of each component, renormalised to 1."""
    task_weights: dict[str, dict[str, float]] = {}
    """Other weights for single tasks."""
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


class RayConfig(Section):
    """The cluster."""

    address: str | None = None
    """`auto` for a running cluster; null takes a cluster that is there (a submitted job), else
    starts one on this machine."""
    cpus: Count | None = None
    """CPUs of a cluster started here; null takes what the machine has."""
    object_store_gb: Annotated[float, Field(gt=0)] = 1.0
    """Object store of a cluster started here."""


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
    def _counted(self) -> Self:
        """A precision is told by the pool's own ratings, of which a library is none."""
        is_sought = isinstance(self.curate.keep_at, PrecisionTarget)
        if is_sought and isinstance(self.rate, ReferenceRater) and self.rate.library:
            raise ValueError("curate.keep_at.precision needs a pool without rate.library")
        return self


def nearest_key(
    key: str, names: Sequence[str], otherwise: str = "; `--help` lists the known keys"
) -> str:
    """The known key most like a misspelt one, compared whole and by its last part."""
    key = key.lower()
    whole = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
    last = key.rsplit(".", 1)[-1]
    by_last = {name.rsplit(".", 1)[-1]: name for name in names}
    part = difflib.get_close_matches(last, list(by_last), n=1, cutoff=0.6)
    found = whole[0] if whole else by_last[part[0]] if part else None
    return f"; did you mean {found!r}?" if found else otherwise
