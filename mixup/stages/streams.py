"""Byte streams of input files: decompressed, and honest about where they break."""

from __future__ import annotations

import gzip
import io
import zlib
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import zstandard

BROKEN = (OSError, EOFError, ValueError, zlib.error, zstandard.ZstdError, pa.ArrowException)
"""What reading a file raises when the file, or the way to it, is at fault."""

UNREADABLE = "unreadable_file"
UNREACHABLE = "unreachable_file"


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


def failure(error: BaseException) -> str:
    """Whether the file is damaged, for good, or the way to it failed, which may pass.

    Arrow raises a bare ``OSError`` for damaged Parquet; what the operating system or a server
    refused carries an error number or names the service.
    """
    refused = isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile)
    named = getattr(error, "errno", None) is not None or "AWS Error" in str(error)
    passing = isinstance(error, ConnectionError | TimeoutError)
    return UNREACHABLE if refused and (named or passing) else UNREADABLE


_BUFFER_BYTES = 1_000_000
_COMPRESSED_BYTES = 16_384
# zstd packs up to 128 KiB into 4 bytes, so what is fed to it at once bounds what comes out.
_FED_BYTES = 2048


def decompressed(stream: IO[bytes], compression: str) -> io.BufferedReader:
    """A buffered stream of what a ``gz``, ``zst`` or (empty) plain stream holds.

    Reading to the end raises where the content is cut off or damaged.
    """
    source: Any = stream  # file systems' streams have more and fewer methods than IO[bytes] names
    plain = source if hasattr(source, "peek") else io.BufferedReader(source, _BUFFER_BYTES)
    if compression == "gz":
        # A GzipFile has all that is used of a BufferedReader but is not declared as one.
        return gzip.GzipFile(fileobj=plain)  # pyright: ignore[reportReturnType]
    if compression == "zst":
        return io.BufferedReader(_ZstdStream(plain), _BUFFER_BYTES)
    return plain


class _ZstdStream(io.RawIOBase):
    """The content of zstd frames.

    The library's own reader takes a frame that is cut off for the end of the stream, so that the
    rows after the cut would be missed by nobody.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._frame, self._rest = stream, None, b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if not self._decompress():
                return 0
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _decompress(self) -> bool:
        """Decompress a little more; whether there was anything."""
        data = self._rest or self._stream.read(_COMPRESSED_BYTES)
        if not data:
            if self._frame is not None:
                raise EOFError("the zstd stream ends within a frame")
            return False
        frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
        fed, rest = data[:_FED_BYTES], data[_FED_BYTES:]
        self._ready = memoryview(frame.decompress(fed))
        self._frame, self._rest = (None, frame.unused_data + rest) if frame.eof else (frame, rest)
        return True


class Bounded:
    """A file of which no more is asked than it has.

    A damaged Arrow message can name a length of exabytes, for which Python would make room at once.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._size = stream.seek(0, io.SEEK_END)
        stream.seek(0)

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self._stream.closed

    def readable(self) -> bool:
        """It is there to be read."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes, or all that are left."""
        left = max(0, self._size - self._stream.tell())
        return self._stream.read(left if size < 0 else min(size, left))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """The place."""
        return self._stream.tell()

    def flush(self) -> None:
        """Nothing: it is only read."""

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class Salvage:
    """Large reads that give what comes before a break; the next read raises it."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream, self._error = stream, None

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; fewer only at the end or before a break.

        Raises:
            OSError: Or another of ``BROKEN``, if the stream breaks here.
        """
        if self._error is not None:
            raise self._error
        parts: list[bytes] = []
        while size > 0:
            try:
                part = self._stream.read1(size)
            except BROKEN as error:
                if not parts:
                    raise
                self._error = error
                break
            if not part:
                break
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
