"""Cover and commit: what is missing in a table, and how its rows get there.

Workers read and write plain Parquet files by path (``read_files``, ``write_file``) and never touch
the Delta log. The driver takes a ``Snapshot`` of a table, tells workers which files to read, and
commits the files they wrote (``Committer``) every few seconds while the run streams on.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Schema,
    Transaction,
)
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from mixup.errors import TableError
from mixup.records import TABLES, TableSpec, bucket_of
from mixup.workspace import Workspace

logger = logging.getLogger(__name__)

FENCE = "mixup-lock"
"""The application id under which every commit carries the fencing token."""

MAX_ATTEMPTS = 3
RETRYABLE = (
    *("engine_error", "timeout", "actor_died"),
    # An endpoint's (models.endpoint.UNANSWERED), and a judge's answers (text.judging.UNPARSABLE).
    *("connection_error", "rate_limited", "http_error", "bad_response", "request_refused"),
    *("no_answer", "prose", "not_json", "cut_json", "not_object", "wrong_keys"),
    *("not_integer", "out_of_range"),
)
"""Reasons after which a key is tried again, up to ``MAX_ATTEMPTS`` times in all."""

ROW_GROUP_ROWS = 16_384
_ROW_GROUP_BYTES = 32_000_000
HISTORY = 100
"""How many of the newest commits are searched for a stage's completion."""

# Delta's own clean-up drops log entries by age, and with them the versions that releases name.
_HOOKS = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)


@dataclass(frozen=True)
class WrittenFile:
    """A Parquet file that a worker wrote into a table's folder and the driver has yet to commit."""

    table: str
    path: str
    bucket: int | None
    rows: int
    bytes: int
    stats: str


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
            table.alter.add_columns(missing, post_commithook_properties=_HOOKS)
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


def write_file(workspace: Workspace, name: str, rows: pa.Table, bucket: int | None) -> WrittenFile:
    """Write rows, sorted by key, as one Parquet file of a table's folder. Runs in workers.

    Raises:
        TableError: If a bucketed table is given no bucket, or the rows lack a column.
    """
    spec = TABLES[name]
    if (bucket is None) != (spec.bucket_by is None):
        raise TableError(f"table {name} and bucket {bucket} do not fit")
    if missing := set(spec.file_schema.names) - set(rows.column_names):
        raise TableError(f"rows for table {name} lack the columns {sorted(missing)}")
    rows = rows.select(spec.file_schema.names).cast(spec.file_schema)
    rows = rows.sort_by([(column, "ascending") for column in spec.key])
    path = new_path(workspace, name, bucket)
    filesystem, root = workspace.filesystem()
    target = f"{root}/tables/{name}/{path}"
    group = min(ROW_GROUP_ROWS, 1 + _ROW_GROUP_BYTES * rows.num_rows // max(rows.nbytes, 1))
    with workspace.writing(target):
        pq.write_table(
            rows, target, filesystem=filesystem, compression="zstd", row_group_size=group
        )
    size = filesystem.get_file_info(target).size
    return WrittenFile(name, path, bucket, rows.num_rows, size, statistics(rows, spec))


def new_path(workspace: Workspace, name: str, bucket: int | None) -> str:
    """A path for a new file in a table's folder, whose own folder is made."""
    folder = "" if bucket is None else f"bucket={bucket}/"
    if folder:
        filesystem, root = workspace.filesystem()
        filesystem.create_dir(f"{root}/tables/{name}/{folder}", recursive=True)
    return f"{folder}{uuid.uuid4().hex}.parquet"


def write_by_bucket(workspace: Workspace, name: str, rows: pa.Table) -> list[WrittenFile]:
    """Write rows of any buckets: one file for each bucket that is present."""
    if not rows.num_rows:
        return []
    placed_by = TABLES[name].bucket_by
    if placed_by is None:
        return [write_file(workspace, name, rows, None)]
    keys = rows[placed_by].to_pylist()
    buckets = pa.array([bucket_of(key, workspace.buckets) for key in keys], pa.int32())
    present = sorted(pc.unique(buckets).to_pylist())
    if len(present) == 1:
        return [write_file(workspace, name, rows, present[0])]
    return [
        write_file(workspace, name, rows.filter(pc.equal(buckets, bucket)), bucket)
        for bucket in present
    ]


def statistics(rows: pa.Table, spec: TableSpec) -> str:
    """Delta statistics: the row count, and the range of the first key column where it is text.

    Args:
        rows: The rows of a file, with at least the first key column.
        spec: The table.
    """
    document: dict[str, Any] = {"numRecords": rows.num_rows}
    column = spec.key[0]
    if rows.num_rows and pa.types.is_string(spec.schema.field(column).type):
        bounds = pc.min_max(rows[column]).as_py()
        document["minValues"] = {column: bounds["min"]}
        document["maxValues"] = {column: bounds["max"]}
        document["nullCount"] = {column: rows[column].null_count}
    return json.dumps(document)


def uncovered(candidates: pa.Table, outcomes: pa.Table, key: str) -> pa.Table:
    """The candidates whose key has no final outcome, with the ``attempts`` made so far.

    Args:
        candidates: Rows with a unique ``key`` column.
        outcomes: Rows with ``key`` and, if the table keeps them, ``reason`` and ``attempts``.
        key: The name of the key column.
    """
    if "reason" not in outcomes.column_names:
        fresh = pc.invert(pc.is_in(candidates[key], value_set=_flat(outcomes[key])))
        return candidates.filter(fresh)
    again = is_retryable(outcomes)
    final = outcomes.filter(pc.invert(again))
    missing = candidates.filter(pc.invert(pc.is_in(candidates[key], value_set=_flat(final[key]))))
    retried = outcomes.filter(again)
    made: dict[str, int] = {}
    for found, count in zip(retried[key].to_pylist(), retried["attempts"].to_pylist(), strict=True):
        made[found] = max(made.get(found, 0), count or 0)
    attempts = [made.get(found, 0) for found in missing[key].to_pylist()]
    return missing.append_column("attempts", pa.array(attempts, pa.int32()))


def is_retryable(outcomes: pa.Table) -> pa.ChunkedArray:
    """Which outcomes, by ``reason`` and ``attempts``, are to be tried again; no entry is null."""
    again = pc.is_in(outcomes["reason"], value_set=pa.array(RETRYABLE))
    return pc.and_(again, pc.less(pc.fill_null(outcomes["attempts"], 0), MAX_ATTEMPTS))


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


@dataclass(frozen=True)
class Completion:
    """That a stage has covered all keys there were at some versions of its inputs.

    Attributes:
        stage: The stage's name.
        fingerprint: A key of all that decides its outcomes besides the inputs: settings, revisions.
        inputs: The version of each table that it read.
        counts: The stage's totals, as its ledger checked them.
        run: The run that completed it.
    """

    stage: str
    fingerprint: str
    inputs: Mapping[str, int]
    counts: Mapping[str, int]
    run: str


def last_completion(workspace: Workspace, name: str, stage: str) -> Completion | None:
    """The newest completion that a stage recorded in the log of its table."""
    table = open_table(workspace, name)
    if table is None:
        return None
    for commit in table.history(HISTORY):
        document = json.loads(commit.get("mixup", "{}"))
        if (found := document.get("complete")) and found["stage"] == stage:
            return Completion(**found)
    return None


class Committer:
    """Commits what workers wrote, at most every ``interval_s`` seconds.

    The tables are committed in the order in which they are named here, so name those that others
    point into first. Commits that only store the same rows otherwise are marked as no change of
    data (``changes_data=False``), so that other Delta readers need not look at them.
    """

    def __init__(
        self,
        workspace: Workspace,
        *,
        token: int,
        run: str,
        tables: Sequence[str],
        interval_s: float = 5.0,
        changes_data: bool = True,
    ) -> None:
        self._workspace, self._token, self._run = workspace, token, run
        self._changes_data = changes_data
        self._written: dict[str, list[WrittenFile]] = {name: [] for name in tables}
        self._removed: dict[str, list[str]] = {name: [] for name in tables}
        self._interval_s, self._last = interval_s, time.monotonic()
        for name in tables:
            ensure_table(workspace, name)

    def add(
        self, files: Iterable[WrittenFile], removed: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """Take files, and the files by table that they replace, into the next commit.

        Commits when the interval has passed; what is added by one call is never parted.
        """
        for file in files:
            self._written[file.table].append(file)
        for name, paths in (removed or {}).items():
            self._removed[name].extend(paths)
        if time.monotonic() - self._last >= self._interval_s:
            self.commit()

    def commit(self) -> None:
        """Commit all that is pending, one commit a table."""
        for name, files in self._written.items():
            if files or self._removed[name]:
                self._write(name, files, removed=self._removed[name], note={})
                files.clear()
                self._removed[name].clear()
        self._last = time.monotonic()

    def complete(self, name: str, completion: Completion) -> None:
        """Commit all that is pending, then the stage's completion to the log of its table."""
        self.commit()
        self._write(name, (), removed=(), note={"complete": asdict(completion)})

    def fence(self) -> None:
        """Write the token to the log of each table: a holder of an earlier one is refused there."""
        for name in self._written:
            self._write(name, (), removed=(), note={"fence": True})

    def _write(
        self,
        name: str,
        files: Sequence[WrittenFile],
        *,
        removed: Sequence[str],
        note: Mapping[str, Any],
    ) -> None:
        table = DeltaTable(self._workspace.table_uri(name))
        seen = table.transaction_version(FENCE)
        if seen is not None and seen > self._token:
            raise TableError(
                f"table {name}: fencing token {seen} has passed this run's {self._token}; another "
                "run has taken the workspace over, so this one ends without committing"
            )
        counts = {"files": len(files), "rows": sum(file.rows for file in files)}
        document = {"run": self._run, "token": self._token, **counts, **note}
        changed, now = self._changes_data, int(time.time() * 1000)
        actions = [_add_action(file, now, changes_data=changed) for file in files]
        actions += [RemoveAction(path, changed, now) for path in removed]
        properties = CommitProperties(
            custom_metadata={"mixup": json.dumps(document)},
            app_transactions=[Transaction(FENCE, self._token)],
        )
        try:
            with self._workspace.writing():
                table.create_write_transaction(
                    actions,
                    mode="append",
                    schema=table.schema(),
                    partition_by=TABLES[name].partition_by,
                    commit_properties=properties,
                    post_commithook_properties=_HOOKS,
                )
        except CommitFailedError as error:
            raise TableError(
                f"table {name}: another writer committed meanwhile: {error}"
            ) from error


def _add_action(file: WrittenFile, now: int, *, changes_data: bool) -> AddAction:
    placed = {} if file.bucket is None else {"bucket": str(file.bucket)}
    return AddAction(file.path, file.bytes, placed, now, changes_data, file.stats)
