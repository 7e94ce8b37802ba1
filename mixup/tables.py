"""Tables: which files a version of one has, and the rows in them.

Workers read plain Parquet files by path (``read_files``) and never touch the Delta log. The driver
takes a ``Snapshot`` of a table and tells workers which files to read. How rows get into a table is
in ``commits``, and what is missing in one in ``cover``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable, PostCommitHookProperties, Schema
from deltalake.exceptions import DeltaError, TableNotFoundError

from mixup.records import TABLES
from mixup.workspace import Workspace

# Delta's own clean-up drops log entries by age, and with them the versions that releases name.
HOOKS = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)


@dataclass(frozen=True)
class StoredFile:
    """A file of a table, as its log describes it."""

    path: str
    bucket: int | None
    rows: int
    bytes: int


@dataclass(frozen=True)
class Snapshot:
    """The files of one version of a table, by bucket (key None where a table has no buckets).

    Version -1 stands for a table that does not exist yet.
    """

    table: str
    version: int
    files: Mapping[int | None, tuple[str, ...]] = field(default_factory=dict)

    @property
    def paths(self) -> tuple[str, ...]:
        """All files, whatever their bucket."""
        return tuple(path for paths in self.files.values() for path in paths)

    @property
    def buckets(self) -> list[int]:
        """The buckets that hold files, ascending; empty for a table without buckets."""
        return sorted(bucket for bucket in self.files if bucket is not None)

    def in_bucket(self, bucket: int | None) -> tuple[str, ...]:
        """The files of one bucket."""
        return self.files.get(bucket, ())


def open_table(workspace: Workspace, name: str) -> DeltaTable | None:
    """The Delta table, or None where it does not exist yet."""
    try:
        return DeltaTable(workspace.table_uri(name))
    except TableNotFoundError:
        return None


def ensure_table(workspace: Workspace, name: str) -> DeltaTable:
    """The Delta table, created empty where it does not exist yet.

    Columns that an older version of mixup did not have are added to its schema; the rows that it
    wrote have null there (``scan_files``).
    """
    spec = TABLES[name]
    if (table := open_table(workspace, name)) is not None:
        wanted = Schema.from_arrow(spec.schema).fields
        known = {field.name for field in table.schema().fields}
        if missing := [field for field in wanted if field.name not in known]:
            table.alter.add_columns(missing, post_commithook_properties=HOOKS)
        return table
    uri = workspace.table_uri(name)
    if workspace.is_local:
        Path(uri).mkdir(parents=True, exist_ok=True)
    schema = Schema.from_arrow(spec.schema)
    return DeltaTable.create(uri, schema=schema, mode="ignore", partition_by=spec.partition_by)


def snapshot(workspace: Workspace, name: str) -> Snapshot:
    """The current files of a table."""
    table = open_table(workspace, name)
    if table is None:
        return Snapshot(name, -1)
    return Snapshot(name, table.version(), _files_by_bucket(table, name))


def version(workspace: Workspace, name: str) -> int:
    """The current version of a table; -1 where it does not exist yet."""
    table = open_table(workspace, name)
    return -1 if table is None else table.version()


def row_count(workspace: Workspace, name: str) -> int:
    """The rows of a table, from the statistics in its log."""
    table = open_table(workspace, name)
    if table is None:
        return 0
    actions = pa.table(table.get_add_actions(flatten=True))
    return int(pc.sum(actions["num_records"]).as_py() or 0) if actions.num_rows else 0


def stored_files(table: DeltaTable, name: str) -> list[StoredFile]:
    """The files of an open version of a table, with their rows and bytes."""
    actions = pa.table(table.get_add_actions(flatten=True))
    if not actions.num_rows:
        return []
    has_buckets = TABLES[name].bucket_by is not None
    return [
        StoredFile(
            path=row["path"],
            bucket=int(row["partition.bucket"]) if has_buckets else None,
            rows=row["num_records"],
            bytes=row["size_bytes"],
        )
        for row in actions.to_pylist()
    ]


def _files_by_bucket(table: DeltaTable, name: str) -> dict[int | None, tuple[str, ...]]:
    found: dict[int | None, list[str]] = {}
    for file in stored_files(table, name):
        found.setdefault(file.bucket, []).append(file.path)
    return {bucket: tuple(sorted(found[bucket])) for bucket in sorted(found, key=lambda b: b or 0)}


def changed_buckets(workspace: Workspace, now: Snapshot, since: int) -> list[int | None]:
    """The buckets whose files differ between a version and a snapshot.

    All buckets when the old version can no longer be read.
    """
    if since < 0 or now.version < 0:
        return list(now.files)
    try:
        old = DeltaTable(workspace.table_uri(now.table), version=since)
    except DeltaError:
        return list(now.files)
    before = _files_by_bucket(old, now.table)
    return [bucket for bucket, paths in now.files.items() if before.get(bucket) != paths]


def read_files(
    workspace: Workspace, name: str, paths: Sequence[str], columns: Sequence[str] | None = None
) -> pa.Table:
    """The rows of some files of a table, without its partition column. Runs in workers."""
    parts = list(scan_files(workspace, name, paths, columns))
    if parts:
        return pa.concat_tables(parts)
    schema = TABLES[name].file_schema
    return pa.schema([schema.field(c) for c in columns or schema.names]).empty_table()


def scan_files(
    workspace: Workspace,
    name: str,
    paths: Sequence[str],
    columns: Sequence[str] | None = None,
    *,
    within: Mapping[str, tuple[str, str]] | None = None,
) -> Iterator[pa.Table]:
    """The rows of some files, one row group at a time: memory bounded by a row group.

    Args:
        workspace: Where the table is.
        name: The table.
        paths: Its files.
        columns: The columns to read; all without it.
        within: The least and largest value that is looked for in a text column. Row groups whose
            statistics exclude it are left out; files are sorted by key, so that this is most.
    """
    filesystem, root = workspace.filesystem()
    wanted = list(columns) if columns else TABLES[name].file_schema.names
    for path in paths:
        with pq.ParquetFile(f"{root}/tables/{name}/{path}", filesystem=filesystem) as file:
            for index in range(file.num_row_groups):
                if not _is_outside(file.metadata.row_group(index), within or {}):
                    yield _shaped(name, file.read_row_group(index, columns=wanted), wanted)


def _shaped(name: str, rows: pa.Table, wanted: Sequence[str]) -> pa.Table:
    """The wanted columns; null where a file is older than a column."""
    for column in wanted:
        if column not in rows.column_names:
            absent = pa.nulls(rows.num_rows, TABLES[name].file_schema.field(column).type)
            rows = rows.append_column(column, absent)
    return rows.select(wanted)


def _is_outside(group: pq.RowGroupMetaData, within: Mapping[str, tuple[str, str]]) -> bool:
    """Whether a row group's statistics say that none of its values is within the bounds."""
    columns = [group.column(place) for place in range(group.num_columns)]
    for column in columns:
        found = column.statistics
        if column.path_in_schema in within and found is not None and found.has_min_max:
            low, high = within[column.path_in_schema]
            if found.max < low or found.min > high:
                return True
    return False
