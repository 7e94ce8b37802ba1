"""Commits: how rows get into a table, and what its log says of the stages that wrote it.

Workers write plain Parquet files into a table's folder (``write_file``) and never touch the Delta
log. The driver commits the files they wrote (``Committer``) every few seconds while the run streams
on.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from mixup.errors import TableError
from mixup.records import TABLES, TableSpec, bucket_of
from mixup.tables import HOOKS, ensure_table, open_table
from mixup.workspace import Workspace

FENCE = "mixup-lock"
"""The application id under which every commit carries the fencing token."""
HISTORY = 100
"""How many of the newest commits are searched for a stage's completion."""

ROW_GROUP_ROWS = 16_384
_ROW_GROUP_BYTES = 32_000_000


@dataclass(frozen=True)
class WrittenFile:
    """A Parquet file that a worker wrote into a table's folder and the driver has yet to commit."""

    table: str
    path: str
    bucket: int | None
    rows: int
    bytes: int
    stats: str


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
    group = min(group_rows(spec), 1 + _ROW_GROUP_BYTES * rows.num_rows // max(rows.nbytes, 1))
    with workspace.writing(target):
        pq.write_table(
            rows, target, filesystem=filesystem, compression="zstd", row_group_size=group
        )
    size = filesystem.get_file_info(target).size
    return WrittenFile(name, path, bucket, rows.num_rows, size, statistics(rows, spec))


def group_rows(spec: TableSpec) -> int:
    """The most rows of a row group of a table."""
    return ROW_GROUP_ROWS if spec.group_rows is None else min(ROW_GROUP_ROWS, spec.group_rows)


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
                    post_commithook_properties=HOOKS,
                )
        except CommitFailedError as error:
            raise TableError(
                f"table {name}: another writer committed meanwhile: {error}"
            ) from error


def _add_action(file: WrittenFile, now: int, *, changes_data: bool) -> AddAction:
    placed = {} if file.bucket is None else {"bucket": str(file.bucket)}
    return AddAction(file.path, file.bytes, placed, now, changes_data, file.stats)
