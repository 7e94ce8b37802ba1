"""Places in input files: what was read from ``path:LINE``, and on which line a record stands."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from mixup.errors import ConfigError
from mixup.operations.view import View
from mixup.tables import scan_files

_PLACE = re.compile(r"(.+):(\d+)", re.DOTALL)
_READ_BYTES = 1 << 20
_SHOWN_FILES = 5


def place_of(text: str) -> tuple[str, int] | None:
    """The path and number of ``path:NUMBER``, or None for anything else."""
    found = _PLACE.fullmatch(text.strip())
    return None if found is None else (found[1], int(found[2]))


def occurrences_of(view: View, uid: str) -> list[dict[str, Any]]:
    """Where a record occurs: path, offset, line or row, source and licence."""
    found = []
    for row in view.rows("occurrences", "uid", uid):
        file = view.files.get(row["file"], {})
        found.append(occurrence(file, {**row, "path": file.get("path")}))
    return sorted(found, key=lambda place: (place["path"] or "", place["offset"]))


def occurrence(file: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """One place where a record occurs, with its line or row where that can be told."""
    place = {"path": row["path"], "offset": row["offset"], **_number(file, row["offset"])}
    return {**place, "source": row["source"], "licence": row["licence"]}


def _number(file: Mapping[str, Any], offset: int) -> dict[str, int]:
    """The row of a Parquet or Arrow file, or the line of a local plain JSONL file, from 1."""
    path = file.get("path") or ""
    if _has_rows(path):
        return {"row": offset}
    if not _has_lines(path):
        return {}
    line = _line_number(path, offset, size=file["size"])
    return {} if line is None else {"line": line}


def _has_rows(path: str) -> bool:
    return path.endswith((".parquet", ".arrow"))


def _has_lines(path: str) -> bool:
    return path.endswith((".jsonl", ".ndjson")) and "://" not in path


def _line_number(path: str, offset: int, *, size: int) -> int | None:
    """The line that starts at a byte offset; None if the file is gone or is not of that size."""
    filesystem = fs.LocalFileSystem()
    if filesystem.get_file_info(path).size != size:
        return None
    line = 1
    with filesystem.open_input_stream(path, compression=None) as stream:
        while offset > 0 and (data := stream.read(min(offset, _READ_BYTES))):
            line += data.count(b"\n")
            offset -= len(data)
    return line


def _line_offset(path: str, line: int, *, size: int) -> int:
    """The byte offset at which a line starts.

    Raises:
        ConfigError: If the file is not as it was read, or has fewer lines.
    """
    filesystem = fs.LocalFileSystem()
    if filesystem.get_file_info(path).size != size:
        raise ConfigError(
            f"{path} is gone or has changed since it was read, so line {line} cannot be told; "
            "trace the record by its key"
        )
    left, offset = line - 1, 0
    with filesystem.open_input_stream(path, compression=None) as stream:
        while left > 0 and (data := stream.read(_READ_BYTES)):
            count = data.count(b"\n")
            if count < left:
                left, offset = left - count, offset + len(data)
                continue
            at = -1
            for _ in range(left):
                at = data.index(b"\n", at + 1)
            left, offset = 0, offset + at + 1
    if left > 0 or line < 1 or offset >= size:
        raise ConfigError(f"{path} has no line {line}")
    return offset


def at_place(view: View, path: str, number: int) -> dict[str, Any]:
    """What was read from a place: a record's uid, or quarantine rows.

    Args:
        view: The workspace.
        path: The path of an input file, or its end.
        number: The line of a plain JSONL file, from 1; the row of a Parquet or Arrow file as a
            trace shows it, from 0; the offset in any other file.

    Returns:
        ``place`` (path, offset, line or row), and ``uid`` or ``quarantine``.

    Raises:
        ConfigError: If no such file was read, or nothing stands there.
    """
    file = _file(view, path)
    offset = number
    if _has_lines(file["path"]):
        offset = _line_offset(file["path"], number, size=file["size"])
    place = {"path": file["path"], "offset": offset, **_number(file, offset)}
    for part in _of_file(view, "occurrences", file, ["file", "offset", "uid"]):
        for uid in part.filter(pc.equal(part["offset"], offset))["uid"].to_pylist():
            return {"place": place, "uid": uid}
    # An offset below 0 stands for all that came after the place where a file broke off.
    held = [
        row
        for part in _of_file(view, "quarantine", file)
        for row in part.filter(
            pc.or_(pc.equal(part["offset"], offset), pc.less(part["offset"], 0))
        ).to_pylist()
    ]
    found = [row for row in held if row["offset"] == offset] or held
    if not found:
        raise ConfigError(
            f"nothing was read from {file['path']}:{number}: neither table occurrences nor "
            "quarantine has that place; it may be a blank line"
        )
    return {"place": place, "quarantine": [_bad_row(row) for row in found]}


def _file(view: View, path: str) -> dict[str, Any]:
    """The newest state in which a file was read."""
    whole = path if "://" in path else os.path.abspath(Path(path).expanduser())
    files = list(view.files.values())
    found = [file for file in files if file["path"] == whole]
    found = found or [file for file in files if file["path"].endswith(f"/{path.lstrip('./')}")]
    paths = sorted({file["path"] for file in found})
    if len(paths) > 1:
        shown = ", ".join(paths[:_SHOWN_FILES])
        raise ConfigError(f"{path} could be {len(paths)} files: {shown}; give more of its path")
    if not found:
        raise ConfigError(
            f"no file {path} was read into {view.workspace.uri}: none of the {len(files)} rows of "
            "table files has that path or ends with it"
        )
    return max(found, key=lambda file: str(file.get("ingested_at") or ""))


def _of_file(
    view: View, table: str, file: Mapping[str, Any], columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """The rows of a table that came from one file, a row group at a time."""
    for part in scan_files(view.workspace, table, view.tables[table].paths, columns):
        yield part.filter(pc.equal(part["file"], file["fingerprint"]))


def _bad_row(row: Mapping[str, Any]) -> dict[str, Any]:
    raw = row["raw"] or b""
    return {
        "offset": row["offset"],
        "reason": row["reason"],
        "detail": row["detail"],
        "raw": raw.decode("utf-8", "backslashreplace"),
        "raw_base64": base64.b64encode(raw).decode("ascii"),
    }
