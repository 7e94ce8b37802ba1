"""Reading an input file row by row.

Every reader yields ``RawRow``: an offset that names the row within its file, and either its bytes
or why it could not be read. What breaks keeps the rows before the break and yields one row with
the reason: for the rest of a file, or of a row group where the format lets the next one be read.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mixup.stages.arrays import array_elements
from mixup.stages.sources import Chunk, open_file
from mixup.stages.streams import (
    BROKEN,
    UNREACHABLE,
    Bounded,
    RawRow,
    Salvage,
    decompressed,
    failure,
)

WHOLE_FILE = -1
"""The offset of a quarantine row that stands for what could not be read of a file."""

_BATCH_ROWS = 1024
_BATCH_BYTES = 4_000_000
_BUFFER_BYTES = 1_000_000
_ARROW_FILE = b"ARROW1"
# What Python raises for values that it cannot hold: times out of range, unknown time zones, text
# that is not UTF-8. All are of single rows.
_BAD_VALUE = (ValueError, ArithmeticError, LookupError, TypeError, pa.ArrowException)


def read_rows(chunk: Chunk, *, max_row_bytes: int) -> Iterator[RawRow]:
    """The rows of a chunk in file order; never raises for what the file holds."""
    place = WHOLE_FILE
    try:
        for row in _reader(chunk, max_row_bytes):
            place = row.offset
            yield row
    except BROKEN as error:
        yield _break(error, chunk.start, f"after offset {place}")


def _break(error: BaseException, start: int, where: str) -> RawRow:
    """The row that stands for what is lost from a start on, at an offset that is its own.

    It is negative, since rows are not, and unique, since several parts of a file may break.
    """
    detail = f"{where}: {' '.join(str(error).split())[:300]}"
    return RawRow(WHOLE_FILE - start, reason=failure(error), detail=detail)


def _reader(chunk: Chunk, max_row_bytes: int) -> Iterator[RawRow]:
    file = chunk.file
    with open_file(file) as stream:
        if file.format == "parquet":
            yield from _parquet_rows(Bounded(stream), chunk, max_row_bytes)
        elif file.format == "arrow":
            yield from _arrow_rows(Bounded(stream), max_row_bytes)
        elif file.format == "json":
            yield from _json_rows(decompressed(stream, file.compression), chunk, max_row_bytes)
        else:
            yield from _lines(decompressed(stream, file.compression), chunk, max_row_bytes)


def _lines(stream: io.BufferedReader, chunk: Chunk, max_row_bytes: int) -> Iterator[RawRow]:
    """Lines that start within the chunk; an over-long one is skipped without being held."""
    offset = chunk.start
    if offset:
        stream.seek(offset - 1)
        offset += _skip_line(stream) - 1
    while chunk.end is None or offset < chunk.end:
        line = stream.readline(max_row_bytes + 1)
        if not line:
            return
        length = len(line)
        if length > max_row_bytes and not line.endswith(b"\n"):
            length += _skip_line(stream)
            yield RawRow(offset, line[:4096], reason="row_too_long", detail=f"{length} bytes")
        elif line.strip():
            yield RawRow(offset, line)
        offset += length


def _skip_line(stream: io.BufferedReader) -> int:
    skipped = 0
    while part := stream.readline(1_000_000):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


def _json_rows(stream: io.BufferedReader, chunk: Chunk, max_row_bytes: int) -> Iterator[RawRow]:
    """The elements of a JSON array; a .json file that holds no array is read as JSON lines."""
    head = stream.peek(4096)[:4096]
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] != b"[":
        yield from _lines(stream, chunk, max_row_bytes)
        return
    yield from array_elements(Salvage(stream), max_row_bytes)


# --- Parquet and Arrow ---------------------------------------------------------------------------


def _parquet_rows(stream: Any, chunk: Chunk, max_row_bytes: int) -> Iterator[RawRow]:
    """Rows by their index; a damaged row group costs what follows in it, and no other group."""
    # With a buffer a column is read page by page, and not a whole row group at once.
    file = pq.ParquetFile(stream, buffer_size=_BUFFER_BYTES, page_checksum_verification=True)
    first = 0
    for group in range(file.num_row_groups):
        after = first + file.metadata.row_group(group).num_rows
        start = max(first, chunk.start)
        end = after if chunk.end is None else min(after, chunk.end)
        if start < end:
            place = start
            try:
                for batch, offset in _group_batches(file, group, first, start, end):
                    yield from _value_rows(batch, offset, max_row_bytes)
                    place = offset + batch.num_rows
            except BROKEN as error:
                lost = _break(error, start, f"rows {place} to {end - 1} of row group {group}")
                yield lost
                if lost.reason == UNREACHABLE:
                    return
        first = after


def _group_batches(
    file: pq.ParquetFile, group: int, first: int, start: int, end: int
) -> Iterator[tuple[pa.RecordBatch, int]]:
    """The batches of a row group that hold its rows [start, end), cut to them, with their places.

    Rows before the start are decoded and let go, which costs little beside parsing a row.
    """
    found = file.metadata.row_group(group)
    row_bytes = max(1, found.total_byte_size // max(1, found.num_rows))
    rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES // row_bytes))
    place = first
    for batch in file.iter_batches(batch_size=rows, row_groups=[group]):
        after = place + batch.num_rows
        if after > start:
            cut = max(0, start - place)
            yield batch.slice(cut, min(after, end) - place - cut), place + cut
        if after >= end:
            return
        place = after


def _arrow_rows(stream: Any, max_row_bytes: int) -> Iterator[RawRow]:
    """The rows of an Arrow stream, as `datasets` writes it, or of an Arrow file."""
    is_file = stream.read(len(_ARROW_FILE)) == _ARROW_FILE
    stream.seek(0)
    offset = 0
    for batch in _file_batches(stream) if is_file else pa.ipc.open_stream(stream):
        yield from _value_rows(batch, offset, max_row_bytes)
        offset += batch.num_rows


def _file_batches(stream: Any) -> Iterator[pa.RecordBatch]:
    reader = pa.ipc.open_file(stream)
    for index in range(reader.num_record_batches):
        yield reader.get_batch(index)


def _value_rows(batch: pa.RecordBatch, offset: int, max_row_bytes: int) -> Iterator[RawRow]:
    """The rows of an Arrow batch; times are left out, since no instruction row needs them.

    Python has no value for some of them, such as nanoseconds or an unknown time zone.
    """
    wanted = [
        place for place, field in enumerate(batch.schema) if not pa.types.is_temporal(field.type)
    ]
    batch = batch.select(wanted)
    for start in range(0, batch.num_rows, _BATCH_ROWS):
        yield from _decoded(batch.slice(start, _BATCH_ROWS), offset + start, max_row_bytes)


def _decoded(batch: pa.RecordBatch, offset: int, max_row_bytes: int) -> list[RawRow]:
    """The rows of a batch; where one is at fault, such as text that is not UTF-8, it alone."""
    rows = batch.num_rows
    try:
        # Offsets in a damaged file can point outside of their buffers.
        batch.validate(full=True)
        if (size := batch.nbytes) <= max_row_bytes:
            return [RawRow(offset + n, value=value) for n, value in enumerate(batch.to_pylist())]
        problem = RawRow(offset, reason="row_too_long", detail=f"{size} bytes")
    except _BAD_VALUE as error:
        problem = RawRow(offset, reason="unreadable_row", detail=str(error)[:200])
    if rows == 1:
        return [problem]
    return [
        *_decoded(batch.slice(0, rows // 2), offset, max_row_bytes),
        *_decoded(batch.slice(rows // 2), offset + rows // 2, max_row_bytes),
    ]
