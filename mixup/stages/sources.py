"""Input files: finding them, naming their state, and reading them row by row.

Every reader yields ``RawRow``: an offset that names the row within its file, and either its bytes or
why it could not be read. A file that breaks in the middle keeps the rows before the break and yields
one last row with the reason.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files as package_files
from pathlib import Path
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow import fs as arrow_fs

from mixup.errors import ConfigError
from mixup.records import content_key

logger = logging.getLogger(__name__)

BUNDLED_SAMPLE = "bundled:sample"
WHOLE_FILE = -1
"""The offset of a quarantine row that stands for what could not be read of a file."""

_FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
_COMPRESSIONS = {".gz": "gz", ".zst": "zst", ".zstd": "zst"}
# What `datasets` writes beside the data of a saved dataset.
_NOT_DATA = {"dataset_info.json", "state.json", "dataset_dict.json", "dataset_infos.json"}
_ARRAY_READ_BYTES = 4_000_000


@dataclass(frozen=True)
class SourceFile:
    """An input file in one state.

    Attributes:
        path: Absolute path or URL.
        format: ``jsonl``, ``json``, ``parquet`` or ``arrow``.
        compression: ``gz``, ``zst`` or empty.
        size: Bytes; -1 if the server does not say.
        modified: Last change, as the file system gives it; empty if it does not.
        fingerprint: Key of path, size and modification: another state is another file.
    """

    path: str
    format: str
    compression: str
    size: int
    modified: str

    @property
    def fingerprint(self) -> str:
        """The key of this state of the file."""
        return content_key(self.path, self.size, self.modified)

    @property
    def name(self) -> str:
        """The file's name without its extensions, the default source of its rows."""
        return Path(self.path).name.split(".")[0]


@dataclass(frozen=True)
class Chunk:
    """The part of a file that one task reads: the lines that start in [start, end), or all of it."""

    file: SourceFile
    start: int = 0
    end: int | None = None


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


def find_files(patterns: Sequence[str]) -> list[SourceFile]:
    """The data files that paths, folders, globs and URLs name, each once, in a stable order.

    Raises:
        ConfigError: If a pattern names nothing, or an explicitly named file is of no known type.
    """
    found: dict[str, SourceFile] = {}
    for pattern in patterns:
        matches = list(_expand(pattern))
        if not matches:
            raise ConfigError(f"ingest.paths: {pattern!r} names no data file; {_known_types()}")
        for file in matches:
            found.setdefault(file.path, file)
    return list(found.values())


def _known_types() -> str:
    return f"known types: {', '.join(_FORMATS)}, and JSON also as .gz and .zst"


def _expand(pattern: str) -> Iterator[SourceFile]:
    if pattern == BUNDLED_SAMPLE:
        pattern = str(package_files("mixup") / "sample" / "pool")
    filesystem, path = _filesystem(pattern)
    protocol = pattern.partition("://")[0] + "://" if "://" in pattern else ""
    if any(sign in pattern for sign in "*?[") and protocol not in ("http://", "https://"):
        names = sorted(filesystem.glob(path))
        yield from _known_files(filesystem, names, protocol)
        return
    if not filesystem.exists(path):
        raise ConfigError(f"ingest.paths: {pattern!r} does not exist")
    if not protocol.startswith("http") and filesystem.isdir(path):
        yield from _known_files(filesystem, sorted(filesystem.find(path)), protocol)
        return
    if _type_of(path) is None:
        raise ConfigError(f"ingest.paths: {pattern!r} is of no known type; {_known_types()}")
    yield _describe(filesystem, path, protocol)


def _known_files(filesystem: Any, names: Sequence[str], protocol: str) -> Iterator[SourceFile]:
    for name in names:
        if filesystem.isdir(name):
            yield from _known_files(filesystem, sorted(filesystem.find(name)), protocol)
        elif _type_of(name) and Path(name).name not in _NOT_DATA:
            yield _describe(filesystem, name, protocol)


def _type_of(path: str) -> tuple[str, str] | None:
    suffixes = [suffix.lower() for suffix in Path(path.split("?")[0]).suffixes]
    compression = _COMPRESSIONS.get(suffixes[-1], "") if suffixes else ""
    if compression:
        suffixes = suffixes[:-1]
    form = _FORMATS.get(suffixes[-1]) if suffixes else None
    if form is None or (compression and form not in ("jsonl", "json")):
        return None
    return form, compression


def _describe(filesystem: Any, path: str, protocol: str) -> SourceFile:
    info = filesystem.info(path)
    size = info.get("size")
    modified = info.get("mtime") or info.get("LastModified") or info.get("ETag") or ""
    if isinstance(modified, int | float):
        modified = datetime.fromtimestamp(modified, UTC).isoformat()
    form, compression = _type_of(path) or ("", "")
    remote = protocol and not path.startswith(protocol)
    full = f"{protocol}{path}" if remote else path
    return SourceFile(full, form, compression, -1 if size is None else int(size), str(modified))


def _filesystem(path: str) -> tuple[Any, str]:
    scheme = path.partition("://")[0] if "://" in path else ""
    if scheme in ("s3", "gs", "gcs"):
        filesystem, inner = arrow_fs.FileSystem.from_uri(path)
        return ArrowFSWrapper(filesystem), inner
    if not scheme:
        path = str(Path(path).expanduser().absolute())
    try:
        return fsspec.core.url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"ingest.paths: cannot open {path!r}: {error}") from error


def chunks_of(file: SourceFile, chunk_bytes: int) -> list[Chunk]:
    """The parts of a file that can be read by themselves; only plain JSONL has several."""
    if file.format != "jsonl" or file.compression or file.size <= chunk_bytes:
        return [Chunk(file)]
    starts = range(0, file.size, chunk_bytes)
    return [Chunk(file, start, min(start + chunk_bytes, file.size)) for start in starts]


def read_rows(chunk: Chunk, *, max_row_bytes: int) -> Iterator[RawRow]:
    """The rows of a chunk in file order; never raises for what the file holds."""
    place = WHOLE_FILE
    try:
        for row in _reader(chunk, max_row_bytes):
            place = row.offset
            yield row
    except _BROKEN as error:
        detail = f"after offset {place}: {' '.join(str(error).split())[:300]}"
        yield RawRow(_break_offset(chunk), reason="unreadable_file", detail=detail)


_BROKEN = (OSError, EOFError, zlib.error, zstandard.ZstdError, pa.ArrowException)


def _break_offset(chunk: Chunk) -> int:
    """A negative offset that is unique to the chunk, since several chunks of a file may break."""
    return WHOLE_FILE - chunk.start


def _reader(chunk: Chunk, max_row_bytes: int) -> Iterator[RawRow]:
    filesystem, path = _filesystem(chunk.file.path)
    with filesystem.open(path, "rb") as stream:
        if chunk.file.format == "parquet":
            yield from _parquet_rows(stream)
        elif chunk.file.format == "arrow":
            yield from _arrow_rows(stream)
        else:
            text = _decompressed(stream, chunk.file.compression)
            as_array = chunk.file.format == "json"
            yield from (
                _json_rows(text, chunk, max_row_bytes)
                if as_array
                else _lines(text, chunk, max_row_bytes)
            )


def _decompressed(stream: IO[bytes], compression: str) -> IO[bytes]:
    if compression == "gz":
        return gzip.GzipFile(fileobj=stream)  # type: ignore[return-value]  # it reads like one
    if compression == "zst":
        reader = zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)
        return io.BufferedReader(reader)  # type: ignore[arg-type]  # it is a RawIOBase by duck
    return stream


def _lines(stream: IO[bytes], chunk: Chunk, max_row_bytes: int) -> Iterator[RawRow]:
    """Lines that start within the chunk; an over-long one is skipped without being held."""
    offset = chunk.start
    if offset:
        stream.seek(offset - 1)
        offset += len(_rest_of_line(stream)) - 1
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


def _rest_of_line(stream: IO[bytes]) -> bytes:
    return stream.readline()


def _skip_line(stream: IO[bytes]) -> int:
    skipped = 0
    while part := stream.readline(1_000_000):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


def _json_rows(stream: IO[bytes], chunk: Chunk, max_row_bytes: int) -> Iterator[RawRow]:
    """The elements of a JSON array; a .json file that holds no array is read as JSON lines."""
    reader = io.BufferedReader(stream) if not hasattr(stream, "peek") else stream  # type: ignore[arg-type]
    head = reader.peek(64)[:64].removeprefix(b"\xef\xbb\xbf").lstrip()  # type: ignore[attr-defined]
    if head[:1] != b"[":
        yield from _lines(reader, chunk, max_row_bytes)
        return
    yield from _array_elements(reader, max_row_bytes)


def _array_elements(stream: IO[bytes], max_row_bytes: int) -> Iterator[RawRow]:
    """Elements of one JSON array, with a buffer of little more than the largest element.

    A syntax error inside the array makes what follows unreadable: it costs the rest of the file.
    """
    decoder = json.JSONDecoder()
    buffer = stream.read(_ARRAY_READ_BYTES).decode("utf-8-sig", errors="surrogateescape")
    index, base = buffer.index("[") + 1, 0
    while True:
        while index < len(buffer) and buffer[index] in " \t\r\n,":
            index += 1
        if buffer[index : index + 1] == "]":
            return
        try:
            _, end = decoder.raw_decode(buffer, index)
        except (json.JSONDecodeError, RecursionError) as error:
            more = stream.read(max(_ARRAY_READ_BYTES, len(buffer) - index))
            if more and len(buffer) - index <= max_row_bytes:
                base += index
                buffer = buffer[index:] + more.decode("utf-8", errors="surrogateescape")
                index = 0
                continue
            raw = buffer[index : index + 4096].encode("utf-8", errors="surrogateescape")
            yield RawRow(base + index, raw, reason="broken_array", detail=str(error)[:200])
            return
        if end == len(buffer) and (more := stream.read(_ARRAY_READ_BYTES)):
            base += index  # a number may go on in the next part
            buffer = buffer[index:] + more.decode("utf-8", errors="surrogateescape")
            index = 0
            continue
        yield RawRow(base + index, buffer[index:end].encode("utf-8", errors="surrogateescape"))
        index = end


def _parquet_rows(stream: IO[bytes]) -> Iterator[RawRow]:
    offset = 0
    for batch in pq.ParquetFile(stream).iter_batches(batch_size=1024):
        for value in batch.to_pylist():
            yield RawRow(offset, value=value)
            offset += 1


def _arrow_rows(stream: IO[bytes]) -> Iterator[RawRow]:
    offset = 0
    for batch in pa.ipc.open_stream(stream):
        for value in batch.to_pylist():
            yield RawRow(offset, value=value)
            offset += 1
