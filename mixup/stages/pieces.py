"""The shuffle of ingest: rows on their way from the tasks that read files to those that write.

A reading task writes its rows, some megabytes at a time, into one file each, ordered by partition:
a *piece* is what one such file holds of one partition. A writing task reads the pieces of its
partitions one after another. So neither of them, nor an actor in between, ever holds a partition,
and the driver holds places only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mixup.workspace import Workspace

STAGING = "staging"
"""The folder of a workspace that holds rows between reading and writing; empty between runs."""

_FILE_BYTES = 48_000_000
_OPTIONS = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)


@dataclass(frozen=True, slots=True)
class Piece:
    """The rows of one partition in one file.

    Attributes:
        path: Of the file, in the workspace; in their order the files hold the rows as they were
            read.
        partition: Which partition.
        start: The first byte.
        length: How many bytes.
    """

    path: str
    partition: int
    start: int
    length: int

    def read(self, workspace: Workspace, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows, in the order in which they were read."""
        filesystem, root = workspace.filesystem()
        with filesystem.open_input_file(f"{root}/{self.path}") as file:
            content = pa.py_buffer(file.read_at(self.length, self.start))
        if columns is None:
            return pa.ipc.open_stream(content).read_all()
        names = pa.ipc.open_stream(content).schema.names
        options = pa.ipc.IpcReadOptions(included_fields=[names.index(name) for name in columns])
        return pa.ipc.open_stream(content, options=options).read_all().select(columns)


def by_partition(pieces: Iterable[Piece]) -> defaultdict[int, list[Piece]]:
    """The pieces of each partition; none for one without."""
    found: defaultdict[int, list[Piece]] = defaultdict(list)
    for piece in pieces:
        found[piece.partition].append(piece)
    return found


def clear_staging(workspace: Workspace) -> None:
    """Remove what a run, this one or one that died, left on the way."""
    if workspace.exists(STAGING):
        filesystem, root = workspace.filesystem()
        filesystem.delete_dir(f"{root}/{STAGING}")


@contextmanager
def staging(workspace: Workspace, folder: str) -> Iterator[None]:
    """A folder for pieces, that is there within the block."""
    clear_staging(workspace)
    filesystem, root = workspace.filesystem()
    filesystem.create_dir(f"{root}/{folder}", recursive=True)
    try:
        yield
    finally:
        with suppress(OSError):  # the next run clears what is left
            clear_staging(workspace)


class PieceWriter:
    """Takes rows with a ``partition`` column and writes them as pieces.

    Attributes:
        pieces: Those that are written.
    """

    def __init__(self, workspace: Workspace, folder: str, name: str) -> None:
        self.pieces: list[Piece] = []
        self._workspace, self._prefix = workspace, f"{folder}/{name}"
        self._held: list[pa.Table] = []
        self._bytes, self._files = 0, 0

    def add(self, rows: pa.Table) -> None:
        """Take rows; writes a file when enough are held."""
        if not rows.num_rows:
            return
        self._held.append(rows)
        self._bytes += rows.nbytes
        if self._bytes >= _FILE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        if not self._held:
            return
        rows = pa.concat_tables(self._held).combine_chunks()
        self._held, self._bytes = [], 0
        partitions = rows["partition"].to_numpy()
        order = np.argsort(partitions, kind="stable")
        present, starts = np.unique(partitions[order], return_index=True)
        rows = rows.take(pa.array(order))
        ends = [*starts[1:].tolist(), len(order)]
        path = f"{self._prefix}-{self._files:05d}"
        self._files += 1
        filesystem, root = self._workspace.filesystem()
        with (
            self._workspace.writing(),
            filesystem.open_output_stream(f"{root}/{path}") as sink,
        ):
            for partition, first, end in zip(present.tolist(), starts.tolist(), ends, strict=True):
                place = sink.tell()
                part = rows.slice(first, end - first).combine_chunks()
                with pa.ipc.new_stream(sink, rows.schema, options=_OPTIONS) as writer:
                    writer.write_table(part)
                self.pieces.append(Piece(path, partition, place, sink.tell() - place))
