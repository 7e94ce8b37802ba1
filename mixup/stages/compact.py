"""Compaction: the small files of a bucket become one, at the end of the stage that wrote them.

A stage compacts its own tables before it records its completion. Which files are merged depends on
the files of their bucket alone, so a bucket that a stage did not write to stays as it is, and later
stages, which look again at the buckets whose files differ, look at none that they would not have
looked at anyway.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mixup.commits import Committer, WrittenFile, group_rows, new_path, statistics
from mixup.errors import TableError
from mixup.records import TABLES
from mixup.stages.cover import TASK_CPUS
from mixup.stages.manifests import Manifest, commit_stream, run_tasks
from mixup.stages.run import RunContext
from mixup.tables import StoredFile, ensure_table, read_files, scan_files, stored_files
from mixup.workspace import Workspace

logger = logging.getLogger(__name__)

TARGET_BYTES = 128_000_000
"""The size up to which files are merged."""
ENOUGH_FILES = 8
"""As many small files in a bucket are merged; fewer cost a reader little and a merge as much."""
_MOST_FILES = 256  # open at the same time, well below the usual limit of 1,024
_IN_FLIGHT = 4


def merges(files: Iterable[StoredFile]) -> list[tuple[StoredFile, ...]]:
    """The groups of two and more files of one bucket that are worth a merge, smallest files first.

    A file of half the target size is left alone, so that no row is rewritten every night.
    """
    small: dict[int | None, list[StoredFile]] = {}
    for file in sorted(files, key=lambda file: (file.bytes, file.path)):
        if file.bytes < TARGET_BYTES // 2:
            small.setdefault(file.bucket, []).append(file)
    enough = [found for found in small.values() if len(found) >= ENOUGH_FILES]
    return [group for found in enough for group in _packed(found) if len(group) > 1]


def _packed(files: Sequence[StoredFile]) -> Iterator[tuple[StoredFile, ...]]:
    group: list[StoredFile] = []
    for file in files:
        held = sum(other.bytes for other in group)
        if group and (held + file.bytes > TARGET_BYTES or len(group) == _MOST_FILES):
            yield tuple(group)
            group = []
        group.append(file)
    yield tuple(group)


def compact(context: RunContext, *tables: str) -> None:
    """Merge the small files of some tables; without any, Ray is left alone.

    Called by a stage before it records its completion, which holds the versions of its inputs:
    a table must not get another version after the stage that reads it next has begun.
    """
    for name in tables:
        files = before = stored_files(ensure_table(context.workspace, name), name)
        while groups := merges(files):
            _merge(context, name, groups)
            files = stored_files(ensure_table(context.workspace, name), name)
        if len(files) < len(before):
            logger.info("%s: compacted from %d to %d files", name, len(before), len(files))


def _merge(context: RunContext, name: str, groups: Sequence[Sequence[StoredFile]]) -> None:
    import ray

    task = ray.remote(num_cpus=TASK_CPUS)(merged)
    committer = Committer(
        context.workspace,
        token=context.token,
        run=context.run,
        tables=[name],
        interval_s=context.commit_interval_s,
        changes_data=False,
    )
    arguments = [(context.workspace, name, group) for group in groups]
    commit_stream(
        run_tasks(task, arguments, in_flight=_IN_FLIGHT), committer, stage="compact", unit="files"
    )


def merged(workspace: Workspace, name: str, files: Sequence[StoredFile]) -> Manifest:
    """Write the rows of some files of one bucket as one file; runs in a worker.

    Raises:
        TableError: If the files hold another number of rows than the log says.
    """
    paths = [file.path for file in files]
    written = _merge_sorted(workspace, name, paths, files[0].bucket)
    if written.rows != (expected := sum(file.rows for file in files)):
        raise TableError(
            f"table {name}: {len(files)} files hold {written.rows} rows, but its log says "
            f"{expected}; a file was changed from outside, so they were not merged"
        )
    return Manifest([written], {name: paths}, {"files": len(paths)})


def _merge_sorted(
    workspace: Workspace, name: str, paths: Sequence[str], bucket: int | None
) -> WrittenFile:
    """Merge files that are each sorted by key, holding the keys and one row group of each file."""
    spec = TABLES[name]
    by_key = [(column, "ascending") for column in spec.key]
    keys = [read_files(workspace, name, [path], spec.key) for path in paths]
    file_of = np.repeat(np.arange(len(paths)), [part.num_rows for part in keys])
    together = pa.concat_tables(keys)
    order = pc.sort_indices(together, sort_keys=by_key).to_numpy()
    readers = [_Reader(scan_files(workspace, name, [path])) for path in paths]
    path = new_path(workspace, name, bucket)
    filesystem, root = workspace.filesystem()
    target, rows, most = f"{root}/tables/{name}/{path}", 0, group_rows(spec)
    with pq.ParquetWriter(
        target, spec.file_schema, filesystem=filesystem, compression="zstd"
    ) as writer:
        for start in range(0, len(order), most):
            counts = np.bincount(file_of[order[start : start + most]])
            pieces = [
                piece
                for file, count in enumerate(counts.tolist())
                for piece in readers[file].take(count)
            ]
            group = pa.concat_tables(pieces).cast(spec.file_schema).sort_by(by_key)
            writer.write_table(group, row_group_size=most)
            rows += group.num_rows
    size = filesystem.get_file_info(target).size
    return WrittenFile(name, path, bucket, rows, size, statistics(together, spec))


class _Reader:
    """Takes rows from a stream of row groups, in order, and holds one of them."""

    def __init__(self, groups: Iterator[pa.Table]) -> None:
        self._groups, self._held = groups, None

    def take(self, rows: int) -> Iterator[pa.Table]:
        """The next rows, in one or several pieces."""
        while rows:
            if self._held is None or not self._held.num_rows:
                self._held = next(self._groups)
            piece = self._held.slice(0, rows)
            self._held = self._held.slice(piece.num_rows)
            rows -= piece.num_rows
            yield piece
