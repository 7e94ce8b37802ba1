"""Where a workspace lies and how its documents are read and written, on a disk or object store."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from mixup.errors import ConfigError, TableError

logger = logging.getLogger(__name__)

FORMAT = 1
TEMPORARY = re.compile(r"\.[0-9a-f]{8}([0-9a-f]{24})?\.tmp$")
"""How the names of files and folders end that are not finished yet, on a disk."""
# No space, the user's share of it used up, the largest size of a file reached.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DESCRIPTION = "workspace.json"


@dataclass(frozen=True)
class Workspace:
    """A workspace: a folder or object-store prefix with tables, releases and fitted artifacts.

    Attributes:
        uri: An absolute local path, or a URL such as ``s3://bucket/prefix``.
        buckets: Into how many buckets the keyed tables are divided, fixed when it was made.
    """

    uri: str
    buckets: int = 1

    @property
    def is_local(self) -> bool:
        """Whether the workspace lies on a file system of this machine (or one mounted on it)."""
        return "://" not in self.uri

    def table_uri(self, name: str) -> str:
        """The location of a Delta table."""
        return f"{self.uri}/tables/{name}"

    def filesystem(self) -> tuple[fs.FileSystem, str]:
        """The Arrow file system and the workspace's path on it."""
        return filesystem_of(self.uri)

    def path(self, relative: str) -> str:
        """The path of something inside the workspace, as its own file system spells it."""
        return f"{self.filesystem()[1]}/{relative}"

    def exists(self, relative: str) -> bool:
        """Whether a file or folder of the workspace exists."""
        filesystem, root = self.filesystem()
        found = filesystem.get_file_info(f"{root}/{relative}").type
        return found != fs.FileType.NotFound

    def read_json(self, relative: str) -> Any:
        """The content of a JSON document, or None where there is none."""
        filesystem, root = self.filesystem()
        try:
            with filesystem.open_input_stream(f"{root}/{relative}") as stream:
                return json.loads(stream.read())
        except FileNotFoundError:
            return None

    @contextmanager
    def writing(self, target: str | None = None) -> Iterator[None]:
        """Name a disk that is full in the block as what it is, and take a part of a file away.

        Args:
            target: The file that the block writes, as its own file system spells it.

        Raises:
            TableError: If there is no space left.
        """
        try:
            yield
        except Exception as error:
            if not is_full(error):
                raise
            if target is not None:
                with suppress(OSError):
                    self.filesystem()[0].delete_file(target)
            raise TableError(
                f"workspace {self.uri}: {os.strerror(_errno_of(error))}; what was committed stays: "
                "make room, and the same command goes on from there"
            ) from error

    def write_json(self, relative: str, document: object) -> None:
        """Write a JSON document so that readers see the old or the new one, never a part."""
        text = json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True)
        self.write_bytes(relative, text.encode("utf-8", errors="replace"))

    def write_bytes(self, relative: str, data: bytes) -> None:
        """Write a small file whole: through a rename on a disk, by one put on an object store."""
        filesystem, root = self.filesystem()
        target = f"{root}/{relative}"
        filesystem.create_dir(target.rsplit("/", 1)[0], recursive=True)
        temporary = f"{target}.{uuid.uuid4().hex}.tmp" if self.is_local else target
        with self.writing(temporary), filesystem.open_output_stream(temporary) as stream:
            stream.write(data)
        if temporary != target:
            filesystem.move(temporary, target)

    def list(self, relative: str) -> list[str]:
        """The sorted names of the entries of a folder; empty where there is none."""
        filesystem, root = self.filesystem()
        selector = fs.FileSelector(f"{root}/{relative}", allow_not_found=True)
        return sorted(info.base_name for info in filesystem.get_file_info(selector))

    @contextmanager
    def staged_folder(self, relative: str) -> Iterator[str]:
        """A new folder under a temporary name, moved to ``relative`` when the block ends well.

        On an object store, where a move is a copy, the folder is written in place: what makes it
        visible is the pointer that the caller writes last.
        """
        filesystem, root = self.filesystem()
        target = f"{root}/{relative}"
        staged = f"{target}.{uuid.uuid4().hex[:8]}.tmp" if self.is_local else target
        filesystem.create_dir(staged, recursive=True)
        try:
            yield staged
        except BaseException:
            if staged != target:
                filesystem.delete_dir(staged)
            raise
        if staged != target:
            filesystem.move(staged, target)


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk is full; Delta's own say so in their text only."""
    return _errno_of(error) in _FULL


def _errno_of(error: BaseException) -> int:
    code = getattr(error, "errno", None)
    said = re.search(r"\(os error (\d+)\)|\[errno (\d+)\]", str(error), re.IGNORECASE)
    if code is None and said is not None:
        return int(said.group(1) or said.group(2))
    return code or 0


def filesystem_of(uri: str) -> tuple[fs.FileSystem, str]:
    """The Arrow file system of a local path or URL, and the path on it.

    Raises:
        ConfigError: If the URL's scheme is unknown or it cannot be opened.
    """
    if "://" not in uri:
        return fs.LocalFileSystem(), uri.rstrip("/")
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise ConfigError(f"cannot open {uri!r}: {error}; use a folder, s3:// or gs://") from error
    return filesystem, path.rstrip("/")


def base_folder() -> Path:
    """The folder against which a relative workspace path is resolved.

    That is the current folder, where the user typed the command. A submitted Ray job runs in a
    temporary copy of the working folder, which is deleted with the job: there it is the folder in
    the environment variable ``MIXUP_ROOT``, or the home folder.
    """
    if root := os.environ.get("MIXUP_ROOT"):
        return Path(root).expanduser().resolve()
    here = Path.cwd()
    return Path.home() if "runtime_resources" in here.parts else here


def resolve_location(location: str) -> str:
    """An absolute local path or a URL for what a user typed as the workspace.

    Raises:
        ConfigError: If the location is empty.
    """
    if not location.strip():
        raise ConfigError("workspace is empty; expected a folder, s3:// or gs:// URL")
    scheme = urlsplit(location).scheme
    if scheme == "file":
        return urlsplit(location).path
    if "://" in location:
        return location.rstrip("/")
    return str((base_folder() / Path(location).expanduser()).resolve())


def open_workspace(location: str) -> Workspace:
    """Open an existing workspace.

    Raises:
        ConfigError: If there is none at the location.
        TableError: If it was written by a newer format.
    """
    uri = resolve_location(location)
    description = Workspace(uri).read_json(_DESCRIPTION)
    if description is None:
        raise ConfigError(f"no workspace at {uri}; `mixup refresh` makes one")
    if description["format"] > FORMAT:
        raise TableError(f"workspace {uri} has format {description['format']}, known: {FORMAT}")
    return Workspace(uri, description["buckets"])


def ensure_workspace(location: str, *, buckets: int) -> Workspace:
    """Open a workspace, making it with this many buckets where there is none.

    Raises:
        ConfigError: If the place cannot be written to.
    """
    uri = resolve_location(location)
    workspace = Workspace(uri, buckets)
    try:
        if not workspace.exists(_DESCRIPTION):
            workspace.write_json(_DESCRIPTION, {"format": FORMAT, "buckets": buckets})
            logger.info("made the workspace %s with %d bucket(s)", uri, buckets)
    except OSError as error:
        raise ConfigError(f"cannot make the workspace {uri}: {error}") from error
    return open_workspace(location)
