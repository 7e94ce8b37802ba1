"""The conversations that a model is to learn: found, and read from wherever they lie.

A source is a split of the table ``mixture``, or files: of a release, of a published mixture, of the
paper's MIXTURE in either of its schemas, or of any format that ingest reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from mixup.errors import ConfigError, RecordError
from mixup.mixture.schemas import (
    MixtureRecord,
    is_record,
    messages_of,
    read_record,
    stored_record,
    task_in_name,
)
from mixup.mixture.splits import SPLITS
from mixup.records import TURNS, Turn, content_key, uid_of
from mixup.stages.leaks import kept_pairs
from mixup.stages.rows import read_rows
from mixup.stages.sources import ROWS, Chunk, SourceFile, chunks_of, find_files
from mixup.stages.streams import RawRow
from mixup.tables import Snapshot, snapshot
from mixup.text.formats import decode_line, parse_row
from mixup.workspace import Workspace, filesystem_of, open_workspace, resolve_location

Form = Literal["auto", "mixture", "instruction"]
"""How a row is read: as a MIXTURE record, that teaches to distill; as an instruction and its
answer; or as what its fields say, where a row with ``cot`` or ``task_type`` is a MIXTURE record."""

_PAIR = ["pair", "split", "task", "instruction", "input", "output", "cot"]


@dataclass(frozen=True)
class MixtureSplit:
    """Pairs of the table ``mixture`` of a workspace, as it is now.

    Attributes:
        workspace: The workspace.
        table: The table's files.
        leaks: Those of the table of the pairs that are left out.
        split: One of ``SPLITS``.
    """

    workspace: Workspace
    table: Snapshot
    leaks: Snapshot
    split: str

    @property
    def key(self) -> str:
        """What decides its examples."""
        paths = sorted(self.table.paths), sorted(self.leaks.paths)
        return content_key("mixture", *paths, self.split)


@dataclass(frozen=True)
class ExampleFiles:
    """Files of rows.

    Attributes:
        files: The files.
        form: How their rows are read.
        chunk_bytes: A part of a file that one task reads has about this size.
        max_row_bytes: A longer row is left out.
    """

    files: tuple[SourceFile, ...]
    form: Form = "auto"
    chunk_bytes: int = 64_000_000
    max_row_bytes: int = 8_000_000

    @property
    def key(self) -> str:
        """What decides its examples."""
        files = sorted(file.fingerprint for file in self.files)
        return content_key("files", files, self.form, self.max_row_bytes)


Source = MixtureSplit | ExampleFiles


@dataclass(frozen=True)
class Example:
    """A conversation, or why a row is none.

    Attributes:
        key: The key of the turns; of a row that is none, of its place.
        turns: An optional system turn, then user and assistant in turn.
        place: Where it was read: a file and offset, or a pair.
        reason: Why it is none, or None.
    """

    key: str
    turns: tuple[Turn, ...]
    place: str
    reason: str | None = None


def mixture_split(location: str, split: str) -> MixtureSplit:
    """A split of the table ``mixture`` of a workspace.

    Raises:
        ConfigError: If there is no such workspace, table or split.
    """
    _check_split(split)
    workspace = open_workspace(location)
    table = snapshot(workspace, "mixture")
    if not table.paths:
        raise ConfigError(
            f"{workspace.uri} has no table `mixture`: run `mixup build-mixture` first"
        )
    return MixtureSplit(workspace, table, snapshot(workspace, "leaks"), split)


AS_MESSAGES: Mapping[str, str] = {split: f"messages/{split}" for split in SPLITS}
"""Where a published mixture has each split as chat messages."""

AS_PAIRS: Mapping[str, str] = {
    **{"sft": "sft/train", "rl": "rl/train", "validation": "rl/validation", "test": "rl/test"},
}
"""Where a published mixture has each split in the paper's schemas."""


def example_files(
    paths: Sequence[str],
    *,
    split: str = "sft",
    form: Form = "auto",
    key: str = "data.paths",
    parts: Mapping[str, str] = AS_MESSAGES,
) -> ExampleFiles:
    """The files that some paths name.

    A workspace stands for its current release. Of a release's folder that is its data, of a
    published mixture's its split as messages: beside these they hold the same rows in other forms,
    and lineage.

    Args:
        paths: Files, folders, globs or URLs; a folder may be a release's, a mixture's or a
            workspace.
        split: Which split of a mixture's folder.
        form: How rows are read.
        key: The config's key that holds the paths, for messages.
        parts: Which file of a mixture's folder has a split.

    Raises:
        ConfigError: If a path names nothing, or a workspace without a release.
    """
    _check_split(split)
    named = [_within(path, parts[split], key) for path in paths]
    return ExampleFiles(tuple(find_files(named, replace(ROWS, key=key))), form)


def _within(path: str, part: str, key: str) -> str:
    """The part of a release's or a mixture's folder that is meant by it; else the path."""
    if path.startswith(("http://", "https://", "bundled:")) or any(sign in path for sign in "*?["):
        return path
    folder = resolve_location(path)
    filesystem, root = filesystem_of(folder)
    names = ("workspace.json", "lineage.parquet", "provenance.parquet")
    found = filesystem.get_file_info([f"{root}/{name}" for name in names])
    is_workspace, is_release, is_mixture = (bool(info.is_file) for info in found)
    if is_workspace:
        return f"{folder}/releases/{_release_in(Workspace(folder), key)}/data"
    if is_release:
        return f"{folder}/data"
    return f"{folder}/{part}.parquet" if is_mixture else path


def _release_in(workspace: Workspace, key: str) -> str:
    from mixup.stages.publish import current_release  # draws reports, which readers have no use for

    release = current_release(workspace)
    if release is None:
        raise ConfigError(
            f"{key}: {workspace.uri} is a workspace without a release; run `mixup refresh` in it, "
            f"or leave {key} empty and take it as the workspace, to learn its MIXTURE"
        )
    return release[0]


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ConfigError(f"split {split!r}: expected one of {', '.join(SPLITS)}")


@dataclass(frozen=True)
class Share:
    """What one task reads: chunks of files, or a bucket of the table.

    Attributes:
        source: The source.
        part: The chunk or the bucket.
        size: About how many bytes of text it holds.
    """

    source: Source
    part: Chunk | int | None
    size: int


def shares_of(sources: Sequence[Source]) -> list[Share]:
    """The shares of some sources, in a stable order."""
    found: list[Share] = []
    for source in sources:
        if isinstance(source, MixtureSplit):
            found += [
                Share(source, bucket, _bucket_bytes(source, bucket)) for bucket in _of(source)
            ]
            continue
        for file in sorted(source.files, key=lambda file: file.path):
            chunks = chunks_of(file, source.chunk_bytes)
            found += [Share(source, chunk, chunk.size) for chunk in chunks]
    return found


def _of(source: MixtureSplit) -> list[int]:
    return source.table.buckets


def _bucket_bytes(source: MixtureSplit, bucket: int) -> int:
    filesystem, root = source.workspace.filesystem()
    paths = [f"{root}/tables/mixture/{path}" for path in source.table.in_bucket(bucket)]
    return 4 * sum(info.size or 0 for info in filesystem.get_file_info(paths))  # compressed


def read_examples(share: Share) -> Iterator[Example]:
    """The examples of a share, bad rows among them; runs in a worker."""
    source = share.source
    if isinstance(source, MixtureSplit):
        yield from _pairs(source, share.part)
    elif isinstance(share.part, Chunk):
        for row in read_rows(share.part, max_row_bytes=source.max_row_bytes):
            yield _example(row, share.part.file, source.form)


def _pairs(source: MixtureSplit, bucket: Any) -> Iterator[Example]:
    for record in stored_pairs(source, bucket):
        turns = _turns(record)
        yield Example(uid_of(turns), turns, f"mixture#{record.id}")


def stored_pairs(source: MixtureSplit, bucket: Any) -> Iterator[MixtureRecord]:
    """The pairs of a split in one bucket of the table; runs in a worker."""
    for rows in kept_pairs(source.workspace, source.table, source.leaks, bucket, _PAIR):
        for row in rows.filter(pc.equal(rows["split"], source.split)).to_pylist():
            yield stored_record(row)


def _example(row: RawRow, file: SourceFile, form: Form) -> Example:
    place = f"{file.shown}#{row.offset}"
    try:
        if row.reason:
            raise RecordError(row.reason, row.detail)
        turns = turns_of(
            row.value if row.value is not None else decode_line(row.raw), form, file.name
        )
    except RecordError as error:
        return Example(content_key(file.fingerprint, row.offset), (), place, error.reason)
    return Example(uid_of(turns), turns, place)


def turns_of(row: object, form: Form, name: str) -> tuple[Turn, ...]:
    """The conversation of a row.

    Args:
        row: The row, whatever it is.
        form: How it is read.
        name: The file's name, which may say the task of a MIXTURE record.

    Raises:
        RecordError: If it is none.
    """
    if form == "mixture" or (form == "auto" and is_record(row)):
        return _turns(read_record(row, task=task_in_name(name)))
    return parse_row(row).turns


def _turns(record: MixtureRecord) -> tuple[Turn, ...]:
    return tuple(Turn(message["role"], message["content"]) for message in messages_of(record))


EXAMPLES = pa.schema(
    [
        ("partition", pa.int32()),
        ("example", pa.string()),
        ("turns", TURNS),
        ("place", pa.string()),
        ("reason", pa.string()),
    ]
)
"""Examples on their way from the tasks that read them to those that tokenize."""
