"""What the typed configs of all jobs share: how a config is made, and the sections several have.

There is one frozen model per pipeline, from YAML and the command line: ``refresh_config``,
``mixture_config``. Defaults are the paper's where it has one. The docstring under a field is its
documentation: it is shown by ``--help`` and stands in the JSON Schema.
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


AS_NUMBER, AS_SECTION, AS_WORD = "as_number", "as_section", "as_word"
"""The forms of a value that may have several."""


def word_or_number(value: object) -> str:
    """The form of a value, so that only what is wrong with that form is said."""
    return AS_WORD if isinstance(value, str) else AS_NUMBER


Reliability = Annotated[
    Annotated[Literal["auto"], Tag(AS_WORD)] | Annotated[float, Field(gt=0, lt=1), Tag(AS_NUMBER)],
    Discriminator(word_or_number),
]
"""How often a rating is right: stated, or found."""

QualityPredictor = Literal["regression", "neighbors"]
"""What tells quality: a regression on embeddings, or the votes of rated neighbors."""


class Section(BaseModel):
    """A part of a config: frozen, unknown keys refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    def fingerprint(self) -> str:
        """A key of the section's values."""
        return content_key(self.model_dump(mode="json"))


def default_type(kind: str) -> BeforeValidator:
    """A validator of a choice between kinds: a section without a type is the default kind."""

    def filled(value: object) -> object:
        return {"type": kind, **value} if isinstance(value, dict) and "type" not in value else value

    return BeforeValidator(filled)


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
    encode_tokens: Count | None = None
    """Tokens of one forward pass, padding included; null: 65,536 on a GPU, 2,048 on a CPU."""
    actors: Count = 1
    """Encoder actors of the embed stage. On a CPU, several of one thread each do more than one of
    several threads."""
    actor_cpus: Amount = 1.0
    """CPUs of each encoder actor."""
    actor_gpus: Amount = 0.0
    """GPUs of each encoder actor; with a GPU it runs in half precision."""
    similarity: Similarity | None = None
    """Thresholds for this encoder; null takes those known for BGE-M3 and the bundled encoder."""


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


class RayConfig(Section):
    """The cluster."""

    address: str | None = None
    """`auto` for a running cluster; null takes a cluster that is there (a submitted job), else
    starts one on this machine."""
    cpus: Count | None = None
    """CPUs of a cluster started here; null takes what the machine has."""
    object_store_gb: Annotated[float, Field(gt=0)] = 1.0
    """Object store of a cluster started here."""
