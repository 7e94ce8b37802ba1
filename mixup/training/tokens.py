"""The rows of a token set: read from the table ``tokens`` one by one, in any order.

A token set is what a training job learns from: a folder with an index of the table's rows, sorted
by their keys. So the ids of rows do not depend on how the table is divided into files.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mixup.errors import TableError
from mixup.records import TOKEN_INDEX, TOKEN_SETS
from mixup.workspace import Workspace

_KEPT_BYTES = 256_000_000
_OPEN_FILES = 64


class TokenRow(NamedTuple):
    """The tokens of one example.

    Attributes:
        input_ids: The ids, int32 (T,).
        loss_mask: Which of them are learned, bool (T,); never the first.
    """

    input_ids: np.ndarray
    loss_mask: np.ndarray


class TokenRows:
    """The rows of a token set, a map-style data set.

    It holds the index (16 bytes a row), and the row groups that were read last. Pickled it is the
    place of the set alone, so that loaders and ranks can be handed one.

    Args:
        workspace: Where the set and the table are.
        name: The set's name.
        kept_bytes: The most bytes of row groups that are kept; one is kept always.

    Attributes:
        lengths_N: The tokens of each row, int32.
        learned_N: The tokens of each row that are in the loss, int32: the sum over a global batch
            is what its summed loss is divided by.

    Raises:
        TableError: If there is no such set.
    """

    def __init__(self, workspace: Workspace, name: str, *, kept_bytes: int = _KEPT_BYTES) -> None:
        self._place = (workspace, name, kept_bytes)
        self._filesystem, root = workspace.filesystem()
        self._root = f"{root}/tables/tokens"
        index = read_index(workspace, name)
        files = index["file"].combine_chunks().dictionary_encode()
        self._files: list[str] = files.dictionary.to_pylist()
        self._file_N = files.indices.to_numpy(zero_copy_only=False).astype(np.int32)
        self._group_N, self._row_N = (_numbers(index, column) for column in ("group", "row"))
        self.lengths_N, self.learned_N = (
            _numbers(index, column) for column in ("length", "learned")
        )
        self._open: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self._groups: OrderedDict[tuple[int, int], _Group] = OrderedDict()
        self._held = 0

    def __len__(self) -> int:
        """The rows of the set."""
        return len(self.lengths_N)

    def __getitem__(self, row: int) -> TokenRow:
        """The row of an id, from 0.

        Raises:
            IndexError: If there is no such row.
            TableError: If the table's file does not hold the row that the index says.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        file, group = int(self._file_N[row]), int(self._group_N[row])
        found = self._group(file, group).row(int(self._row_N[row]))
        if len(found.input_ids) != self.lengths_N[row]:
            raise TableError(
                f"{self._files[file]}: row {row} has {len(found.input_ids)} tokens, but the index "
                f"says {self.lengths_N[row]}; the table was changed: run the job again"
            )
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        """The place of the set; what was read is read again."""
        workspace, name, kept_bytes = self._place
        return _reopened, (workspace, name, kept_bytes)

    def _group(self, file: int, group: int) -> _Group:
        key = (file, group)
        if key in self._groups:
            self._groups.move_to_end(key)
            return self._groups[key]
        found = self._groups[key] = _Group(self._file(file), group)
        self._held += found.bytes
        while self._held > self._place[2] and len(self._groups) > 1:
            self._held -= self._groups.popitem(last=False)[1].bytes
        return found

    def _file(self, file: int) -> pq.ParquetFile:
        if file in self._open:
            self._open.move_to_end(file)
            return self._open[file]
        path = f"{self._root}/{self._files[file]}"
        try:
            self._open[file] = pq.ParquetFile(path, filesystem=self._filesystem)
        except FileNotFoundError as error:
            raise TableError(f"{path} is gone; run the job again: it makes a new index") from error
        if len(self._open) > _OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        return self._open[file]


class _Group:
    """A row group, decoded."""

    def __init__(self, file: pq.ParquetFile, group: int) -> None:
        # Loaders are forked, and Arrow's threads do not come with them.
        rows = file.read_row_group(group, columns=["input_ids", "learned"], use_threads=False)
        self._ids, self._ends = _flat(rows["input_ids"])
        self._spans, self._span_ends = _flat(rows["learned"])
        parts = (self._ids, self._ends, self._spans, self._span_ends)
        self.bytes = sum(part.nbytes for part in parts)

    def row(self, place: int) -> TokenRow:
        ids = self._ids[self._ends[place] : self._ends[place + 1]]
        mask = np.zeros(len(ids), dtype=np.bool_)
        spans = self._spans[self._span_ends[place] : self._span_ends[place + 1]]
        for start, end in spans.reshape(-1, 2).tolist():
            mask[start:end] = True
        return TokenRow(ids, mask)


def read_index(workspace: Workspace, name: str) -> pa.Table:
    """The index of a token set, by key.

    Raises:
        TableError: If there is no such set.
    """
    filesystem, root = workspace.filesystem()
    folder = f"{TOKEN_SETS}/{name}"
    parts = [part for part in workspace.list(folder) if part.endswith(".parquet")]
    if not parts:
        known = ", ".join(workspace.list(TOKEN_SETS)) or "none"
        raise TableError(f"no token set {name!r} in {workspace.uri}; known: {known}")
    tables = []
    for part in parts:
        with pq.ParquetFile(f"{root}/{folder}/{part}", filesystem=filesystem) as file:
            tables.append(file.read(columns=TOKEN_INDEX.names))
    return pa.concat_tables(tables)


def _reopened(workspace: Workspace, name: str, kept_bytes: int) -> TokenRows:
    return TokenRows(workspace, name, kept_bytes=kept_bytes)


def _numbers(table: pa.Table, column: str) -> np.ndarray:
    return table[column].combine_chunks().to_numpy(zero_copy_only=False).astype(np.int32)


def _flat(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """The values of a list<int32> column, and where each row starts and ends in them.

    Null rows, which are those with a reason, are empty.
    """
    lists = column.combine_chunks()
    lists = lists.chunk(0) if isinstance(lists, pa.ChunkedArray) else lists
    counts = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    values = lists.flatten().to_numpy(zero_copy_only=False)
    return values, np.concatenate([[0], np.cumsum(counts)])
