"""The releases of a workspace and their lineage: who became a row, when the tables have moved on.

A release's ``lineage.parquet`` is read in batches and filtered, so memory does not grow with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mixup.errors import TableError
from mixup.workspace import Workspace

_BATCH_ROWS = 65_536


def releases_of(workspace: Workspace) -> list[str]:
    """The names of the releases that are there, the newest first."""
    names = [name for name in workspace.list("releases") if not name.endswith((".json", ".tmp"))]
    there = [name for name in names if workspace.exists(f"releases/{name}/manifest.json")]
    return sorted(there, reverse=True)


def lineage_rows(workspace: Workspace, release: str, column: str, value: str) -> list[dict]:
    """The rows of a release's lineage with a value: one for each occurrence behind a row.

    Raises:
        TableError: If the release lacks its lineage.
    """
    return [
        row
        for batch in _batches(workspace, f"releases/{release}/lineage.parquet")
        for row in batch.filter(pc.equal(batch[column], value)).to_pylist()
    ]


def ids_beginning(workspace: Workspace, release: str, prefix: str) -> set[str]:
    """The ids of a release's rows that begin so."""
    found: set[str] = set()
    path = f"releases/{release}/lineage.parquet"
    for batch in _batches(workspace, path, ["id"]):
        found.update(batch["id"].filter(pc.starts_with(batch["id"], prefix)).to_pylist())
    return found


def release_row(workspace: Workspace, release: str, key: str) -> dict[str, Any] | None:
    """A row of a release's data; None where its data is not there."""
    folder = f"releases/{release}/data"
    for name in workspace.list(folder):
        for batch in _batches(workspace, f"{folder}/{name}"):
            for row in batch.filter(pc.equal(batch["id"], key)).to_pylist():
                return row
    return None


def memberships(
    workspace: Workspace, releases: Sequence[str], column: str, value: str
) -> list[dict[str, Any]]:
    """In which releases something is a row, or part of one: release, row, its kind and sample."""
    found = []
    for release in releases:
        rows = lineage_rows(workspace, release, column, value)
        for row, kind, sample in sorted(
            {(row["id"], row["kind"], row.get("sample")) for row in rows}, key=str
        ):
            found.append({"release": release, "row": row, "kind": kind, "sample": sample})
    return found


def _batches(
    workspace: Workspace, relative: str, columns: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    filesystem, _ = workspace.filesystem()
    path = workspace.path(relative)
    try:
        with pq.ParquetFile(path, filesystem=filesystem) as file:
            yield from file.iter_batches(batch_size=_BATCH_ROWS, columns=columns)
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise TableError(
            f"{path} cannot be read ({' '.join(str(error).split())[:200]}), so no fate can be told"
        ) from error
