"""Reading an input file row by row.

Every reader yields ``RawRow``: an offset that names the row within its file, and either its bytes
or why it could not be read. A file that breaks in the middle keeps the rows before the break and
yields one last row with the reason.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mixup.stages.sources import Chunk, open_file
from mixup.stages.streams import BROKEN, Salvage, decompressed, failure

WHOLE_FILE = -1
"""The offset of a quarantine row that stands for what could not be read of a file."""

_ARRAY_READ_BYTES = 4_000_000


@dataclass(frozen=True)
class RawRow:
    """A row as it stands in its file, or why it cannot be read.

    Attributes:
        offset: Byte offset of the row (row index in Parquet and Arrow files).
        raw: Its bytes; for Parquet and Arrow rows their JSON form, made only if needed.
        value: The decoded value, where the format gives one without parsing the bytes.
        reason: Why it could not be read, or None.
        detail: More on the reason.
    """

    offset: int
    raw: bytes = b""
    value: Any = None
    reason: str | None = None
    detail: str = ""


def read_rows(chunk: Chunk, *, max_row_bytes: int) -> Iterator[RawRow]:
    """The rows of a chunk in file order; never raises for what the file holds."""
    place = WHOLE_FILE
    try:
        for row in _reader(chunk, max_row_bytes):
            place = row.offset
            yield row
    except BROKEN as error:
        detail = f"after offset {place}: {' '.join(str(error).split())[:300]}"
        yield RawRow(_break_offset(chunk), reason=failure(error), detail=detail)


def _break_offset(chunk: Chunk) -> int:
    """A negative offset that is unique to the chunk, since several chunks of a file may break."""
    return WHOLE_FILE - chunk.start


def _reader(chunk: Chunk, max_row_bytes: int) -> Iterator[RawRow]:
    file = chunk.file
    with open_file(file) as stream:
        if file.format == "parquet":
            yield from _value_rows(pq.ParquetFile(stream).iter_batches(batch_size=1024))
        elif file.format == "arrow":
            yield from _value_rows(pa.ipc.open_stream(stream))
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
    head = stream.peek(4096)[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
    if head[:1] != b"[":
        yield from _lines(stream, chunk, max_row_bytes)
        return
    yield from _array_elements(Salvage(stream), max_row_bytes)


def _array_elements(stream: Salvage, max_row_bytes: int) -> Iterator[RawRow]:
    """Elements of one JSON array, with a buffer of little more than the largest element.

    A syntax error inside the array makes what follows unreadable: it costs the rest of the file.
    """
    # Numbers stay text: only the end of an element is looked for, and one of 5,000 digits has one.
    decoder = json.JSONDecoder(parse_int=str, parse_float=str)
    # As Latin-1 a character is a byte, and the structure of JSON is ASCII.
    buffer = stream.read(_ARRAY_READ_BYTES).decode("latin-1")
    index, base = buffer.index("[") + 1, 0
    while True:
        while index < len(buffer) and buffer[index] in " \t\r\n,":
            index += 1
        if buffer[index : index + 1] == "]":
            return
        try:
            _, end = decoder.raw_decode(buffer, index)
        except (ValueError, RecursionError) as error:
            end, problem = len(buffer), str(error)[:200]
        else:
            problem = ""
        # A number may go on in the next part, and so may its exponent.
        if (problem or end + 2 >= len(buffer)) and len(buffer) - index <= max_row_bytes:
            more = stream.read(max(_ARRAY_READ_BYTES, len(buffer) - index))
            if more:
                base, buffer, index = base + index, buffer[index:] + more.decode("latin-1"), 0
                continue
        raw = buffer[index:end].encode("latin-1")
        if problem:
            yield RawRow(base + index, raw[:4096], reason="broken_array", detail=problem)
            return
        yield _sized(RawRow(base + index, raw), max_row_bytes)
        index = end


def _sized(row: RawRow, max_row_bytes: int) -> RawRow:
    length = len(row.raw)
    if length <= max_row_bytes:
        return row
    return RawRow(row.offset, row.raw[:4096], reason="row_too_long", detail=f"{length} bytes")


def _value_rows(batches: Iterable[pa.RecordBatch]) -> Iterator[RawRow]:
    """The rows of Arrow batches; times are left out, since no instruction row needs them.

    Python has no value for some of them, such as nanoseconds or an unknown time zone.
    """
    offset = 0
    for batch in batches:
        wanted = [
            place
            for place, field in enumerate(batch.schema)
            if not pa.types.is_temporal(field.type)
        ]
        yield from _decoded(batch.select(wanted), offset)
        offset += batch.num_rows


def _decoded(batch: pa.RecordBatch, offset: int) -> list[RawRow]:
    """The rows of a batch; where one of them is at fault, such as text that is not UTF-8, alone."""
    try:
        return [RawRow(offset + row, value=value) for row, value in enumerate(batch.to_pylist())]
    except ValueError as error:
        if batch.num_rows == 1:
            return [RawRow(offset, reason="unreadable_row", detail=str(error)[:200])]
    halves = (0, batch.num_rows // 2), (batch.num_rows // 2, batch.num_rows)
    return [
        found
        for start, end in halves
        for found in _decoded(batch.slice(start, end - start), offset + start)
    ]
