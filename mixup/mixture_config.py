"""The typed config of `mixup build-mixture`; how it is read and shown is as in `mixup.config`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mixup.config import (
    Cosine,
    Count,
    DecontaminateConfig,
    EmbedConfig,
    IngestConfig,
    RatingClass,
    RayConfig,
    Section,
    Share,
    default_type,
)
from mixup.rater_config import ColumnRater, EndpointJudge, EngineConfig, JudgeRater

Task = Literal["qa", "mcq", "tfq", "cs", "para"]


class TextConfig(Section):
    """Raw text that items are made from."""

    paths: list[str] = []
    """Files, folders, globs or URLs: JSONL, JSON, Parquet, Arrow, plain text (`.txt`, one article a
    file) and extracts of Wikipedia (`<doc ...>` blocks, or JSON lines named `wiki_NN`);
    `bundled:text` is the sample of the package."""
    field: str = "text"
    """The column that holds an article's text."""
    title: str = "title"
    """The column that holds its title. Rows of one title are one article, which no two splits
    share."""
    licence: str | None = None
    """The licence of articles that do not state their own; null counts as `unknown`."""
    max_article_bytes: Count = 64_000_000
    """A longer article goes to the quarantine."""
    chunk_bytes: Count = 4_000_000
    """Files are read in parts of about this size, as far as their format can be parted."""
    max_tokens: Annotated[int, Field(ge=16)] = 256
    """Longest segment, in estimated tokens. A sentence that is longer alone is left out."""
    min_tokens: Annotated[int, Field(ge=1)] = 20
    """An article of fewer estimated tokens is too short for an item."""
    near_duplicate: Annotated[float, Field(gt=0, le=1)] = 0.8
    """A segment of which at least about this share of the 5-word sequences is shared with an older
    one (Jaccard similarity) is left out."""
    min_english: Share = 0.12
    """An article of which a smaller share of the words are English function words is left out; 0
    takes every language, for teachers that know it (`rules` knows English)."""

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        if self.min_tokens > self.max_tokens:
            raise ValueError("min_tokens must not be above max_tokens")
        return self


class RulesTeacher(Section):
    """No model: items are cut from the text by rule and count as class 5 by construction."""

    type: Literal["rules"] = "rules"


class EngineTeacher(EngineConfig):
    """A language model in a pool of vLLM engines of this cluster writes the items."""

    type: Literal["vllm"] = "vllm"
    temperature: Annotated[float, Field(ge=0)] = 0.7
    """Sampling temperature; 0 is greedy."""
    max_tokens: Count = 512
    """Longest output in tokens."""
    structured: Literal["regex", "none"] = "regex"
    """Constrain answers to the JSON form of the task, or leave them free."""
    batch_rows: Count = 64
    """Requests handed to an engine at once; commits follow each batch."""

    @model_validator(mode="after")
    def _window(self) -> Self:
        if self.max_tokens >= self.context_tokens:
            raise ValueError("max_tokens must be below context_tokens")
        return self


class EndpointTeacher(EndpointJudge):
    """A language model behind an OpenAI-compatible `/v1/chat/completions` writes the items."""

    max_tokens: Count = 512
    """Longest answer in tokens; a model that reasons first needs more."""


Teacher = Annotated[
    RulesTeacher | EngineTeacher | EndpointTeacher,
    Field(discriminator="type"),
    default_type("rules"),
]
MixtureRater = Annotated[
    ColumnRater | JudgeRater, Field(discriminator="type"), default_type("column")
]


class VariantsConfig(Section):
    """The low-quality variants of a target."""

    least: Annotated[int, Field(ge=2, le=20)] = 2
    """Fewest variants of a target."""
    most: Annotated[int, Field(ge=2, le=20)] = 20
    """Most variants of a target (the paper's)."""
    mean: Annotated[float, Field(ge=2, le=20)] = 4.0
    """About how many a target has on average."""
    max_tokens: Count = 1600
    """Most estimated tokens of all variants of a target together."""
    lossy_share: Share = 0.05
    """Share of the targets whose variants may lose facts for good."""
    noise_share: Share = 0.3
    """Share of the variants with surface noise, such as typing errors."""
    neighbor_share: Share = 0.5
    """Share of the targets with truly low-rated neighbors that take some of them as variants."""
    neighbors: Annotated[int, Field(ge=0, le=20)] = 4
    """Most low-rated neighbors that are looked at; 0: none."""
    neighbor_floor: Cosine | None = None
    """Least similarity of such a neighbor; null takes the encoder's `cluster_floor`."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.least <= self.mean <= self.most:
            raise ValueError("expected least <= mean <= most")
        return self


class FuseConfig(Section):
    """Cross-topic fusion: similar targets become one, and so do their variants."""

    share: Share = 0.2
    """About the share of the targets that enter a fused pair."""
    floor: Cosine | None = None
    """Least similarity of two fused targets; null takes the encoder's `cluster_floor`."""
    most: Annotated[int, Field(ge=2, le=20)] = 3
    """Most targets of a fused pair."""


class SplitsConfig(Section):
    """Shares of the articles (and pool rows) in each split."""

    test: Share = 0.19
    """Of all; the paper's, as far as it can be told."""
    sft: Share = 0.3
    """Cold start, of what is not test (the paper's); the rest is for RL."""
    validation: Share = 0.1
    """Of the RL part (the paper's)."""
    near_duplicate: Annotated[float, Field(gt=0, le=1)] = 0.8
    """A pair is left out if its target, or one of its articles, shares at least about this share of
    its 5-word sequences (Jaccard similarity) with one in a split that goes before its own: test,
    validation, sft, rl."""


class CellsConfig(Section):
    """The parts of all rows inside which neighbors are looked for."""

    rows: Annotated[int, Field(ge=2)] = 4000
    """Most rows of a cell; with fewer rows in all there is one."""
    copies: Annotated[float, Field(ge=1, le=3)] = 2.95
    """Cells in which a row is visible on average, its own among them."""


class MixtureConfig(Section):
    """`mixup build-mixture`: raw text and a rated pool become the distiller's training set."""

    workspace: str
    """A folder or object-store URL; relative to where the command is typed."""
    workspace_shared: bool = False
    """A local workspace lies on a file system that all nodes share."""
    seed: int = 0
    """Decides every draw: items, degradations, fusion, splits."""
    commit_interval_s: Annotated[float, Field(gt=0)] = 5.0
    """Least seconds between two commits; a crash loses at most what came after the last one."""
    stall_timeout_s: Annotated[float, Field(gt=0)] = 1800.0
    """A stage in which no row finishes for this many seconds fails, with its actors' last log
    lines."""
    max_dropped_share: Share = 0.2
    """The run fails when a larger share of the pool's rows, of the articles or of a model's answers
    is dropped as defective."""
    tasks: Annotated[list[Task], Field(min_length=1)] = ["qa", "mcq", "tfq", "cs", "para"]
    """The task types that are made from text and taken from the pool."""
    licences: list[str] | None = None
    """Only rows and articles whose licences are all listed are used; null allows every licence."""
    thought_share: Share = 1.0
    """Share of the pairs with a chain of thought, written by rule. The prompt asks for one and the
    format reward wants it: a distiller that learned from pairs without one leaves it out, and its
    samples are refused."""
    text: TextConfig = TextConfig()
    ingest: IngestConfig | None = None
    """A pool of instruction data. Rows of a high class are targets, those of a low class variants
    of their neighbors; rows without a class are not used."""
    classes: dict[str, RatingClass] = {}
    """The class 0-5 of unrated rows by the name of their file, such as `{"gpteacher*": 5}`: a
    rating by construction, which one of the row itself precedes. The first pattern that fits
    decides."""
    rate: MixtureRater = ColumnRater()
    """How rows get ratings; one of two kinds. What a model writes needs a judge."""
    teacher: Teacher = RulesTeacher()
    """Who makes items from text; one of three kinds."""
    embed: EmbedConfig = EmbedConfig()
    decontaminate: DecontaminateConfig = DecontaminateConfig()
    cells: CellsConfig = CellsConfig()
    variants: VariantsConfig = VariantsConfig()
    fuse: FuseConfig = FuseConfig()
    splits: SplitsConfig = SplitsConfig()
    ray: RayConfig = RayConfig()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.text.paths and self.ingest is None:
            raise ValueError("one of text.paths and ingest.paths is needed")
        by_model = self.text.paths and not isinstance(self.teacher, RulesTeacher)
        if by_model and not isinstance(self.rate, JudgeRater):
            raise ValueError(
                "a model's items are rated by a judge: rate.type must be judge beside this teacher"
            )
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError("tasks names one twice")
        return self
