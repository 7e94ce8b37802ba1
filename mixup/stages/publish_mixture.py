"""Publish a mixture: the tables ``mixture`` and ``targets`` → a folder that training jobs read.

The folder is written under a temporary name and made the current one by one pointer. Rows are
written bucket by bucket in the order of their keys, which are hashes: a shuffled order that nothing
but the content decides.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from blake3 import blake3

from mixup.mixture.schemas import MixtureRecord, messages_of, rl_row, sft_row, stored_record
from mixup.mixture.splits import SPLITS
from mixup.records import TURNS, content_key
from mixup.stages.leaks import kept_pairs
from mixup.tables import Snapshot
from mixup.workspace import Workspace

FOLDER = "mixtures"
POINTER = f"{FOLDER}/current.json"
_BATCH_ROWS = 1024
_READ_BYTES = 1 << 20

_TEXT = pa.string()
SCHEMAS: Mapping[str, pa.Schema] = {
    "sft": pa.schema(
        [(name, _TEXT) for name in ("id", "instruction", "input", "output", "cot", "source")]
    ),
    "rl": pa.schema([(name, _TEXT) for name in ("id", "input", "output", "task_type")]),
    "messages": pa.schema([("id", _TEXT), ("task", _TEXT), ("messages", TURNS)]),
}
"""The three forms of a record: the paper's two schemas, and chat messages."""

_FORMS: Mapping[str, Callable[[MixtureRecord], dict[str, Any]]] = {
    "sft": sft_row,
    "rl": rl_row,
    "messages": lambda record: {
        "id": record.id,
        "task": record.task,
        "messages": messages_of(record),
    },
}
_FILES: Mapping[str, tuple[str, ...]] = {
    "sft": ("sft/train", "messages/sft"),
    "rl": ("rl/train", "messages/rl"),
    "validation": ("rl/validation", "messages/validation"),
    "test": ("sft/test", "rl/test", "messages/test"),
}
"""The files of each split, named by form; a cold start reads ``sft/train``, RL ``rl/train``."""

PROVENANCE = (
    *("pair", "split", "task", "members", "articles", "rule", "rating", "rating_source"),
    *("licence", "plan", "keeps_facts", "degradations", "variant_ratings", "provenance"),
)
"""The columns of ``provenance.parquet``; ``pair`` is the records' id."""


@dataclass(frozen=True)
class Export:
    """What the tasks share.

    Attributes:
        workspace: The workspace.
        mixture: The table of pairs.
        leaks: The table of the pairs that are left out.
        folder: Where the files go, as the workspace's file system spells it.
    """

    workspace: Workspace
    mixture: Snapshot
    leaks: Snapshot
    folder: str


def current_mixture(workspace: Workspace) -> tuple[str, str] | None:
    """The name of the current mixture and the key of what it was made from."""
    pointer = workspace.read_json(POINTER)
    return None if pointer is None else (pointer["mixture"], pointer["state"])


def point_to_mixture(workspace: Workspace, name: str, state: object) -> None:
    """Make a mixture the current one.

    Args:
        workspace: The workspace.
        name: The mixture's name.
        state: What it was made from, to tell when it is out of date.
    """
    workspace.write_json(POINTER, {"mixture": name, "state": content_key(state)})


def parts_of_export() -> list[str]:
    """The parts that one task each writes: the splits, and the provenance."""
    return [*SPLITS, "provenance"]


def export_part(export: Export, part: str) -> dict[str, tuple[int, str]]:
    """Write one part; rows and hash of each file. Runs in a worker."""
    if part == "provenance":
        return _write_provenance(export)
    with ExitStack() as stack:
        names = _FILES[part]
        writers = [stack.enter_context(_Files(export, name)) for name in names]
        for row in _rows(export, part):
            record = stored_record(row)
            for writer in writers:
                writer.add(record)
    return {name: found for writer in writers for name, found in writer.files().items()}


def _rows(export: Export, split: str) -> Iterator[dict[str, Any]]:
    columns = ["pair", "split", "task", "instruction", "input", "output", "cot"]
    for part in _scan(export, columns):
        yield from part.filter(pc.equal(part["split"], split)).to_pylist()


def _scan(export: Export, columns: list[str]) -> Iterator[pa.Table]:
    """The table by bucket, which holds one file sorted by key, or a few; without the leaks."""
    for bucket in export.mixture.buckets:
        yield from kept_pairs(export.workspace, export.mixture, export.leaks, bucket, columns)


class _Files:
    """One form of one split on its way into a JSONL and a Parquet file."""

    def __init__(self, export: Export, name: str) -> None:
        form = name.split("/")[0]
        self._form, self._schema = _FORMS[form], SCHEMAS[form]
        self._filesystem = export.workspace.filesystem()[0]
        self._folder, self._name = export.folder, name
        self._held: list[dict[str, Any]] = []
        self._rows = 0

    def __enter__(self) -> _Files:
        path = f"{self._folder}/{self._name}"
        self._filesystem.create_dir(path.rsplit("/", 1)[0], recursive=True)
        self._lines = self._filesystem.open_output_stream(f"{path}.jsonl")
        self._parquet = pq.ParquetWriter(
            f"{path}.parquet", self._schema, filesystem=self._filesystem, compression="zstd"
        )
        return self

    def add(self, record: MixtureRecord) -> None:
        """Write a pair."""
        row = self._form(record)
        self._lines.write(f"{json.dumps(row, ensure_ascii=False)}\n".encode())
        self._held.append(row)
        self._rows += 1
        if len(self._held) == _BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            self._parquet.write_table(pa.Table.from_pylist(self._held, schema=self._schema))
            self._held = []

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._lines.close()
        self._parquet.close()

    def files(self) -> dict[str, tuple[int, str]]:
        """The rows and the hash of each file."""
        names = [f"{self._name}.{kind}" for kind in ("jsonl", "parquet")]
        return {
            name: (self._rows, _hash(self._filesystem, f"{self._folder}/{name}")) for name in names
        }


def _hash(filesystem: Any, path: str) -> str:
    found = blake3()
    with filesystem.open_input_stream(path) as stream:
        while data := stream.read(_READ_BYTES):
            found.update(data)
    return found.hexdigest(length=16)


def _write_provenance(export: Export) -> dict[str, tuple[int, str]]:
    filesystem, _ = export.workspace.filesystem()
    path, rows = f"{export.folder}/provenance.parquet", 0
    empty = next(_scan(export, list(PROVENANCE)), None)
    if empty is None:
        return {}
    with pq.ParquetWriter(path, empty.schema, filesystem=filesystem, compression="zstd") as writer:
        for part in _scan(export, list(PROVENANCE)):
            writer.write_table(part)
            rows += part.num_rows
    return {"provenance.parquet": (rows, _hash(filesystem, path))}
