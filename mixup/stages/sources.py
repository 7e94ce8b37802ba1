"""Input files: finding them, naming their state, dividing and opening them."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import fsspec
import pyarrow.parquet as pq
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow import fs as arrow_fs

from mixup.errors import ConfigError
from mixup.records import content_key
from mixup.stages.streams import BROKEN, Bounded

logger = logging.getLogger(__name__)

BUNDLED_SAMPLE = "bundled:sample"
BUNDLED_TEXT = "bundled:text"

_FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
_ONE_STREAM = ("jsonl", "json", "text")
"""The formats that are read from their beginning to their end, so that they may be compressed."""
_SECRET = re.compile("sig|token|secret|password|credential|key", re.IGNORECASE)
_COMPRESSIONS = {".gz": "gz", ".zst": "zst", ".zstd": "zst"}
# What `datasets` writes beside the data of a saved dataset; its `cache-*.arrow` repeat the rows.
_NOT_DATA = {"dataset_info.json", "state.json", "dataset_dict.json", "dataset_infos.json"}
# Instruction text packs to a quarter to an eighth of its size.
_PACKED = 4
_MOST_PARTS_OF_A_GROUP = 4096


@dataclass(frozen=True)
class Kinds:
    """Which files a key of the config may name.

    Attributes:
        key: The key, for messages.
        bundled: The name of the package's sample, and its folder in the package.
        formats: The format by the file's last suffix.
        bare: A pattern of names without a suffix, whose format is ``text``; None: there are none.
    """

    key: str
    bundled: tuple[str, str]
    formats: Mapping[str, str]
    bare: re.Pattern[str] | None = None

    @property
    def known(self) -> str:
        """The types in words."""
        return f"known types: {', '.join(self.formats)}, and JSON also as .gz and .zst"

    def type_of(self, path: str) -> tuple[str, str] | None:
        """The format and compression that a file's name tells; None for no known type."""
        name = Path(path.split("?")[0])
        suffixes = [suffix.lower() for suffix in name.suffixes]
        compression = _COMPRESSIONS.get(suffixes[-1], "") if suffixes else ""
        if compression:
            suffixes = suffixes[:-1]
        form = self.formats.get(suffixes[-1]) if suffixes else None
        if form is None and self.bare is not None and self.bare.fullmatch(name.name.split(".")[0]):
            form = "text" if not suffixes else None
        if form is None or (compression and form not in _ONE_STREAM):
            return None
        return form, compression


ROWS = Kinds("ingest.paths", (BUNDLED_SAMPLE, "pool"), _FORMATS)
"""Files of rows: instruction data, ratings, evaluation questions."""
TEXTS = Kinds(
    "text.paths",
    (BUNDLED_TEXT, "text"),
    {**_FORMATS, ".txt": "text"},
    bare=re.compile(r"wiki_\d+"),
)
"""Files of raw text; WikiExtractor writes its files without a suffix."""


@dataclass(frozen=True)
class SourceFile:
    """An input file in one state.

    Attributes:
        path: Absolute path or URL.
        format: ``jsonl``, ``json``, ``parquet``, ``arrow`` or ``text``.
        compression: ``gz``, ``zst`` or empty.
        size: Bytes; -1 if the server does not say.
        modified: Last change, as the file system gives it; empty if it does not.
        rules: Key of the settings that decide how its rows are stored (licence, longest row).
        fingerprint: Key of all of this but the format: another state, or the same read by other
            rules, is another file.
    """

    path: str
    format: str
    compression: str
    size: int
    modified: str
    rules: str = ""

    @cached_property
    def fingerprint(self) -> str:
        """The key of this state of the file, read by these rules."""
        return content_key(self.path, self.size, self.modified, self.rules)

    @cached_property
    def name(self) -> str:
        """The file's name without its extensions, the default source of its rows."""
        return Path(self.shown).name.split(".")[0]

    @cached_property
    def shown(self) -> str:
        """The path as text that can be stored: a name need not be UTF-8."""
        return self.path.encode("utf-8", "backslashreplace").decode()

    @property
    def is_web(self) -> bool:
        """Whether it comes from a web server, which may not give parts of a file."""
        return self.path.startswith(("http://", "https://"))


@dataclass(frozen=True)
class Chunk:
    """A part of a file that can be read by itself.

    Attributes:
        file: The file.
        start: The first byte, or row of a Parquet file.
        end: The byte before which its last line starts, or the row after its last; None for all.
        size: About how many bytes of text it holds.
    """

    file: SourceFile
    start: int = 0
    end: int | None = None
    size: int = 0


def find_files(patterns: Sequence[str], kinds: Kinds = ROWS) -> list[SourceFile]:
    """The data files that paths, folders, globs and URLs name, each once, in a stable order.

    Raises:
        ConfigError: If a pattern names nothing, or an explicitly named file is of no known type.
    """
    found: dict[str, SourceFile] = {}
    for pattern in patterns:
        matches = list(_expand(pattern, kinds))
        if not matches:
            raise ConfigError(f"{kinds.key}: {pattern!r} names no data file; {kinds.known}")
        for file in matches:
            found.setdefault(file.path, file)
    return list(found.values())


def _expand(pattern: str, kinds: Kinds) -> Iterator[SourceFile]:
    key = kinds.key
    if not pattern.strip():
        raise ConfigError(f"{key}: a path is empty; expected a file, folder, glob or URL")
    bundled, folder = kinds.bundled
    if pattern == bundled:
        pattern = str(package_files("mixup") / "sample" / folder)
    refuse_credentials(pattern, key)
    try:
        filesystem, path = _filesystem(pattern)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error
    protocol = pattern.partition("://")[0] + "://" if "://" in pattern else ""
    is_web = protocol in ("http://", "https://")
    if not is_web and any(sign in path for sign in "*?[") and not filesystem.exists(path):
        names = sorted(filesystem.glob(path))
        yield from _known_files(filesystem, names, protocol, set(), kinds)
        return
    if not filesystem.exists(path):
        raise ConfigError(f"{key}: {pattern!r} {_absence(path, protocol)}")
    if not is_web and filesystem.isdir(path):
        yield from _known_files(filesystem, [path], protocol, set(), kinds)
        return
    if kinds.type_of(path) is None:
        raise ConfigError(f"{key}: {pattern!r} is of no known type; {kinds.known}")
    if not _is_regular(path, protocol):
        raise ConfigError(f"{key}: {pattern!r} is no regular file but a pipe or device")
    yield _describe(filesystem, path, protocol, kinds)


def _absence(path: str, protocol: str) -> str:
    """Why there is nothing at a path."""
    if not protocol and os.path.islink(path):
        return f"is a link to {os.readlink(path)!r}, which does not exist"
    return "does not exist"


def _is_regular(path: str, protocol: str) -> bool:
    """Whether a path is a regular file, or may be one: to open a pipe would wait for ever.

    A link whose target is missing counts: that it cannot be read is said where it is read.
    """
    if protocol and protocol != "file://":
        return True
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True


def refuse_credentials(address: str, key: str) -> None:
    """Refuse a URL with a password or a signature: the config is stored, released and logged.

    Args:
        address: A path or URL; of the web, its user part alone is taken for a credential.
        key: The config's key that holds it.

    Raises:
        ConfigError: Without the URL in its message.
    """
    if "://" not in address:
        return
    url = urlsplit(address)
    secret = next((name for name, _ in parse_qsl(url.query) if _SECRET.search(name)), None)
    user = url.username if url.scheme in ("http", "https") else None
    if url.password or user or secret:
        where = f"its parameter {secret!r}" if secret else "its user part"
        raise ConfigError(
            f"{key}: a URL of {url.hostname} carries a credential in {where}; the config is "
            "stored and released, so give credentials through the environment"
        )


def _known_files(
    filesystem: Any, names: Sequence[str], protocol: str, seen: set[str], kinds: Kinds
) -> Iterator[SourceFile]:
    """The data files among some paths and in the folders among them.

    Args:
        filesystem: Where they are.
        names: Paths of files and folders.
        protocol: The URL's scheme with its slashes; empty for a local path.
        seen: The folders that were walked, as they really are: links can lead in a circle.
        kinds: What counts as a data file.
    """
    for name in names:
        if filesystem.isdir(name):
            if protocol or os.path.realpath(name) not in seen:
                inside = sorted(found for found in filesystem.find(name) if found != name)
                if not protocol:
                    seen.update(os.path.realpath(folder) for folder, _, _ in os.walk(name))
                yield from _known_files(filesystem, inside, protocol, seen, kinds)
        elif kinds.type_of(name) and not _is_beside_data(Path(name).name):
            if _is_regular(name, protocol):
                yield _describe(filesystem, name, protocol, kinds)
            else:
                logger.warning("%s is no regular file but a pipe or device; it is left out", name)


def _is_beside_data(name: str) -> bool:
    return name in _NOT_DATA or (name.startswith("cache-") and name.endswith(".arrow"))


def _describe(filesystem: Any, path: str, protocol: str, kinds: Kinds) -> SourceFile:
    try:
        info = filesystem.info(path)
    except FileNotFoundError:  # a link to nothing, or gone meanwhile: said where it is read
        info = {}
    size = info.get("size")
    modified = info.get("mtime") or info.get("LastModified") or info.get("ETag") or ""
    if isinstance(modified, int | float):
        modified = datetime.fromtimestamp(modified, UTC).isoformat()
    form, compression = kinds.type_of(path) or ("", "")
    remote = protocol and not path.startswith(protocol)
    full = f"{protocol}{path}" if remote else path
    return SourceFile(full, form, compression, -1 if size is None else int(size), str(modified))


def _filesystem(path: str) -> tuple[Any, str]:
    scheme = path.partition("://")[0] if "://" in path else ""
    try:
        if scheme in ("s3", "gs", "gcs"):
            filesystem, inner = arrow_fs.FileSystem.from_uri(path)
            return ArrowFSWrapper(filesystem), inner
        if not scheme:
            path = os.path.abspath(Path(path).expanduser())  # one spelling, one fingerprint
        return fsspec.core.url_to_fs(path)
    except (ValueError, ImportError, OSError, RuntimeError) as error:
        raise ConfigError(f"cannot open {path!r}: {error}") from error


def chunks_of(file: SourceFile, chunk_bytes: int) -> list[Chunk]:
    """The parts of a file that can be read by themselves: several of plain JSONL and of Parquet.

    A file from a web server is one part, since not every server gives parts of a file.
    """
    is_plain = file.format == "jsonl" and not file.compression
    if file.format == "parquet" and file.size * _PACKED > chunk_bytes and not file.is_web:
        return _row_chunks(file, chunk_bytes)
    if not is_plain or file.is_web or file.size <= chunk_bytes:
        return [Chunk(file, size=max(file.size, 0) * (1 if is_plain else _PACKED))]
    starts = range(0, file.size, chunk_bytes)
    ends = [min(start + chunk_bytes, file.size) for start in starts]
    return [Chunk(file, start, end, end - start) for start, end in zip(starts, ends, strict=True)]


def _row_chunks(file: SourceFile, chunk_bytes: int) -> list[Chunk]:
    """Parts of a Parquet file: row groups together, or ranges of the rows of a large one."""
    try:
        with open_file(file) as stream:
            metadata = pq.ParquetFile(Bounded(stream)).metadata
    except BROKEN:  # said by who reads it
        return [Chunk(file, size=file.size)]
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    packed = sum(max(group.total_byte_size, 0) for group in groups)
    # Text that repeats is a dictionary in the file: the size it names can be less than the file's.
    scale = max(1.0, _PACKED * file.size / max(packed, 1))
    chunks: list[Chunk] = []
    start = after = held = 0
    for group in groups:
        size = int(max(group.total_byte_size, 0) * scale)
        if held and held + size > chunk_bytes:
            chunks.append(Chunk(file, start, after, held))
            start, held = after, 0
        parts = min(-(-size // chunk_bytes), group.num_rows, _MOST_PARTS_OF_A_GROUP)
        cuts = [after + group.num_rows * part // parts for part in range(1, parts)]
        for cut in cuts:
            chunks.append(Chunk(file, start, cut, size // parts))
            start = cut
        after, held = after + group.num_rows, held + (size // parts if cuts else size)
    return [*chunks, Chunk(file, start, None, held)]


@contextmanager
def open_file(file: SourceFile) -> Iterator[Any]:
    """The bytes of a file; a URL's text is asked for once and read as it comes.

    Raises:
        OSError: If it cannot be read.
    """
    filesystem, path = _filesystem(file.path)
    if not file.is_web:
        with filesystem.open(path, "rb") as stream:
            yield stream
        return
    from aiohttp import ClientError  # fsspec needs it for URLs only, and it is slow to import

    # A block size of 0 means one request; Parquet and Arrow files are read in places.
    as_stream = {} if file.format in ("parquet", "arrow") else {"block_size": 0}
    try:
        with filesystem.open(path, "rb", **as_stream) as stream:
            yield stream
    except ClientError as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
