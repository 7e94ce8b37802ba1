"""The record, its content key, and the Arrow schema of every table.

A key is a blake3-128 hash, as 32 hexadecimal characters, of what a row is made from; the leading
characters of a key place its row in a bucket.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
from blake3 import blake3

CANONICALIZATION = "turns-v1"
ROLES = ("system", "user", "assistant")
KEY_BYTES = 16
_quoted = json.encoder.encode_basestring
_COMPACT = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


class Turn(NamedTuple):
    """One turn of a conversation; role is one of ``ROLES``."""

    role: str
    content: str


def content_key(*parts: object) -> str:
    """The blake3-128 key, 32 hexadecimal characters, of JSON-serializable parts.

    Parts are serialized as one JSON array with sorted keys, so ("ab", "c") and ("a", "bc") differ.
    """
    data = _COMPACT.encode(parts).encode("utf-8", errors="surrogatepass")
    return blake3(data).hexdigest(length=KEY_BYTES)


def canonical_turns(turns: Iterable[Turn]) -> tuple[Turn, ...]:
    """Turns with NFC text, unix newlines, no trailing spaces on lines and no outer white space.

    Case and inner spacing are kept: they can carry meaning (code). Changing this function means a
    new ``CANONICALIZATION``.
    """
    return tuple(Turn(turn.role, _canonical_text(turn.content)) for turn in turns)


def _canonical_text(text: str) -> str:
    lines = unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(line.rstrip() for line in lines).strip()


def uid_of(turns: Sequence[Turn]) -> str:
    """The content key of canonical turns: equal for exact duplicates, whatever their source."""
    # As content_key(CANONICALIZATION, [[role, content], ...]) has it, in a third of the time: this
    # is done for every row that is read.
    pairs = ",".join(f"[{_quoted(role)},{_quoted(content)}]" for role, content in turns)
    text = f"[{_quoted(CANONICALIZATION)},[{pairs}]]"
    return blake3(text.encode("utf-8", errors="surrogatepass")).hexdigest(length=KEY_BYTES)


def bucket_of(key: str, buckets: int) -> int:
    """The bucket, 0 to buckets - 1, of a key: its leading 32 bits scaled."""
    return (int(key[:8], 16) * buckets) >> 32


def estimated_tokens(text: str) -> int:
    """A tokenizer-free estimate of the tokens in a text: UTF-8 bytes / 3.5, rounded up.

    Errs on the high side for English (about 4 bytes a token), so that a budget kept here is
    seldom broken by the real tokenizer, which has the last word when the prompt is built.
    """
    return -(-len(text.encode("utf-8", errors="replace")) * 2 // 7)


@dataclass(frozen=True)
class TableSpec:
    """A table's schema, its key columns, and whether its rows are placed in buckets.

    A bucketed table has an int32 partition column ``bucket``; ``bucket_by`` names the column whose
    key decides it. ``group_rows`` is the most rows of a row group, where a table is read in places.
    """

    name: str
    schema: pa.Schema
    key: tuple[str, ...]
    bucket_by: str | None = None
    group_rows: int | None = None

    @property
    def partition_by(self) -> list[str]:
        """The Delta partition columns."""
        return ["bucket"] if self.bucket_by else []

    @property
    def file_schema(self) -> pa.Schema:
        """The schema of the Parquet files: all but the partition column."""
        return pa.schema([field for field in self.schema if field.name != "bucket"])


TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
REWARDS = pa.list_(
    pa.struct([("component", pa.string()), ("value", pa.float32()), ("reason", pa.string())])
)
_TIME = pa.timestamp("us", tz="UTC")
_OUTCOME = [("reason", pa.string()), ("attempts", pa.int32())]


def _spec(
    name: str,
    key: Sequence[str],
    columns: Sequence[tuple],
    bucket_by: str | None = None,
    group_rows: int | None = None,
) -> TableSpec:
    placed = [("bucket", pa.int32())] if bucket_by else []
    return TableSpec(name, pa.schema([*columns, *placed]), tuple(key), bucket_by, group_rows)


_SPECS = (
    _spec(
        "files",
        ["fingerprint"],
        [
            ("fingerprint", pa.string()),
            ("path", pa.string()),
            ("size", pa.int64()),
            ("modified", pa.string()),
            ("ingested_at", _TIME),
            ("rows", pa.int64()),
            ("quarantined", pa.int64()),
        ],
    ),
    _spec(
        "occurrences",
        ["file", "offset"],
        [
            ("file", pa.string()),
            ("offset", pa.int64()),
            ("uid", pa.string()),
            ("source", pa.string()),
            ("licence", pa.string()),
            ("extra", pa.string()),
        ],
        bucket_by="uid",
    ),
    _spec(
        "records",
        ["uid"],
        [
            ("uid", pa.string()),
            ("task", pa.string()),
            ("language", pa.string()),
            ("turns", TURNS),
            ("tokens", pa.int32()),
        ],
        bucket_by="uid",
    ),
    _spec(
        "quarantine",
        ["file", "offset"],
        [
            ("file", pa.string()),
            ("path", pa.string()),
            ("offset", pa.int64()),
            ("reason", pa.string()),
            ("detail", pa.string()),
            ("raw", pa.binary()),
            ("seen_at", _TIME),
        ],
    ),
    _spec(
        "embeddings",
        ["uid", "encoder"],
        [
            ("uid", pa.string()),
            ("encoder", pa.string()),
            ("vector", pa.list_(pa.float32())),
            ("truncated", pa.bool_()),
            *_OUTCOME,
        ],
        bucket_by="uid",
    ),
    _spec(
        "ratings",
        ["uid", "rater"],
        [
            ("uid", pa.string()),
            ("rater", pa.string()),
            ("rarity", pa.float32()),
            ("complexity", pa.float32()),
            ("informativeness", pa.float32()),
            ("overall", pa.float32()),
            ("rating", pa.int8()),
            ("source", pa.string()),
            *_OUTCOME,
        ],
        bucket_by="uid",
    ),
    _spec(
        "contamination",
        ["uid", "questions"],
        [
            ("uid", pa.string()),
            ("questions", pa.string()),
            ("kind", pa.string()),
            ("benchmark", pa.string()),
            ("question", pa.string()),
            ("place", pa.string()),
            ("matched", pa.string()),
        ],
        bucket_by="uid",
    ),
    _spec(
        "places",
        ["uid"],
        [
            ("uid", pa.string()),
            ("fit", pa.string()),
            ("cell", pa.int32()),
            ("visits", pa.list_(pa.int32())),
        ],
        bucket_by="uid",
    ),
    _spec(
        "curation",
        ["uid"],
        [
            ("uid", pa.string()),
            ("cell", pa.int32()),
            ("task", pa.string()),
            ("curated_rating", pa.int8()),
            ("rating_origin", pa.string()),
            ("confidence", pa.float32()),
            ("suspicious", pa.bool_()),
            ("misrated", pa.float32()),
            ("suggested_rating", pa.int8()),
            ("suggested_confidence", pa.float32()),
            ("quality", pa.float32()),
            ("long_tail", pa.float32()),
            ("predicted", pa.float32()),
            ("duplicate_of", pa.string()),
            ("duplicate_similarity", pa.float32()),
            ("same_source", pa.bool_()),
            ("licence", pa.string()),
            ("tier", pa.string()),
            ("cluster", pa.string()),
            ("reason", pa.string()),
        ],
        bucket_by="uid",
    ),
    _spec(
        "clusters",
        ["cluster"],
        [
            ("cluster", pa.string()),
            ("cell", pa.int32()),
            ("task", pa.string()),
            ("members", pa.list_(pa.string())),
            ("inputs", pa.list_(pa.string())),
            ("cohesion", pa.float32()),
            ("long_tail", pa.float32()),
            ("tokens", pa.int32()),
            ("licence", pa.string()),
        ],
        bucket_by="cluster",
    ),
    _spec(
        "samples",
        ["sample"],
        [
            ("sample", pa.string()),
            ("cluster", pa.string()),
            ("index", pa.int32()),
            ("distiller", pa.string()),
            ("constrained", pa.bool_()),
            ("text", pa.string()),
            ("thought", pa.string()),
            ("turns", TURNS),
            ("logprob", pa.float32()),
            ("tokens", pa.int32()),
            ("finish", pa.string()),
            *_OUTCOME,
        ],
        bucket_by="cluster",
    ),
    _spec(
        "rewards",
        ["sample", "component"],
        [
            ("sample", pa.string()),
            ("cluster", pa.string()),
            ("component", pa.string()),
            ("revision", pa.string()),
            ("value", pa.float32()),
            *_OUTCOME,
        ],
        bucket_by="cluster",
    ),
    _spec(
        "segments",
        ["segment"],
        [
            ("segment", pa.string()),
            ("article", pa.string()),
            ("file", pa.string()),
            ("offset", pa.int64()),
            ("number", pa.int32()),
            ("title", pa.string()),
            ("text", pa.string()),
            ("context", pa.string()),
            ("tokens", pa.int32()),
            ("source", pa.string()),
            ("licence", pa.string()),
            ("sketch", pa.binary()),
            ("duplicate_of", pa.string()),
        ],
        bucket_by="segment",
    ),
    _spec(
        "candidates",
        ["candidate"],
        [
            ("candidate", pa.string()),
            ("segment", pa.string()),
            ("task", pa.string()),
            ("teacher", pa.string()),
            ("rule", pa.string()),
            ("uid", pa.string()),
            ("turns", TURNS),
            ("tokens", pa.int32()),
            *_OUTCOME,
        ],
        bucket_by="segment",
    ),
    _spec(
        "targets",
        ["uid"],
        [
            ("uid", pa.string()),
            ("cell", pa.int32()),
            ("task", pa.string()),
            ("split", pa.string()),
            ("rating", pa.int8()),
            ("rating_source", pa.string()),
            ("pair", pa.string()),
            ("duplicate_of", pa.string()),
            ("reason", pa.string()),
        ],
        bucket_by="uid",
    ),
    _spec(
        "mixture",
        ["pair"],
        [
            ("pair", pa.string()),
            ("cell", pa.int32()),
            ("split", pa.string()),
            ("task", pa.string()),
            ("members", pa.list_(pa.string())),
            ("articles", pa.list_(pa.string())),
            ("rule", pa.string()),
            ("rating", pa.int8()),
            ("rating_source", pa.string()),
            ("licence", pa.string()),
            ("instruction", pa.string()),
            ("input", pa.string()),
            ("output", pa.string()),
            ("cot", pa.string()),
            ("plan", pa.string()),
            ("keeps_facts", pa.bool_()),
            ("degradations", pa.list_(pa.list_(pa.string()))),
            ("variant_ratings", pa.list_(pa.int8())),
            ("tokens", pa.int32()),
            ("provenance", pa.string()),
        ],
        bucket_by="pair",
    ),
    _spec(
        "leaks",
        ["pair"],
        [
            ("pair", pa.string()),
            ("kind", pa.string()),
            ("near", pa.string()),
            ("near_split", pa.string()),
            ("similarity", pa.float32()),
        ],
        bucket_by="pair",
    ),
    _spec(
        "tokens",
        ["example", "encoding"],
        [
            ("example", pa.string()),
            ("encoding", pa.string()),
            ("input_ids", pa.list_(pa.int32())),
            ("learned", pa.list_(pa.int32())),
            ("length", pa.int32()),
            ("place", pa.string()),
            ("reason", pa.string()),
        ],
        bucket_by="example",
        group_rows=128,  # training reads single rows, in a shuffled order
    ),
    _spec(
        "rollouts",
        ["run", "step", "prompt", "index", "attempt"],
        [
            ("run", pa.string()),
            ("step", pa.int32()),
            ("attempt", pa.int32()),
            ("prompt", pa.string()),
            ("index", pa.int32()),
            ("version", pa.int32()),
            ("task", pa.string()),
            ("question", pa.string()),
            ("text", pa.string()),
            ("tokens", pa.int32()),
            ("finish", pa.string()),
            ("seed", pa.int64()),
            ("logprob", pa.float32()),
            ("rewards", REWARDS),
            ("reward", pa.float32()),
            ("advantage", pa.float32()),
            ("reason", pa.string()),
        ],
    ),
)

TABLES: Mapping[str, TableSpec] = {spec.name: spec for spec in _SPECS}

TOKEN_INDEX = pa.schema(
    [
        ("example", pa.string()),
        ("file", pa.string()),
        ("group", pa.int32()),
        ("row", pa.int32()),
        ("length", pa.int32()),
        ("learned", pa.int32()),
    ]
)
"""Where each row of a token set lies in the table ``tokens``: the file, its row group, the row."""

TOKEN_SETS = "token_sets"
"""The folder of a workspace that holds its token sets, each with an index."""

PROMPT_ROWS = pa.schema(
    [
        ("pair", pa.string()),
        ("task", pa.string()),
        ("system", pa.string()),
        ("user", pa.string()),
        ("items", pa.list_(pa.string())),
        ("target", pa.string()),
        ("tokens", pa.int32()),
    ]
)
"""The rows of a prompt set: what is asked, its items, the gold answer, the prompt's tokens."""

PROMPT_SETS = "prompt_sets"
"""The folder of a workspace that holds its prompt sets, each of Parquet files."""
