"""Small tables of a workspace on a disk, for the tests of what is done with their files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable

from mixup.commits import Committer, write_by_bucket
from mixup.records import TABLES, content_key
from mixup.stages.compact import merged, merges
from mixup.tables import ensure_table, stored_files, version
from mixup.workspace import Workspace

KEYS = sorted(content_key(number) for number in range(60))


def committer(workspace: Workspace, *names: str, token: int = 1, changes_data: bool = True):
    return Committer(
        workspace,
        token=token,
        run=f"run-{token}",
        tables=names,
        interval_s=0.0,
        changes_data=changes_data,
    )


def records(keys: Sequence[str], task: str = "qa") -> pa.Table:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = [{"uid": key, "task": task, "turns": turns, "tokens": 2} for key in keys]
    return pa.Table.from_pylist(rows, schema=TABLES["records"].file_schema)


def embeddings(keys: Sequence[str], width: int = 3) -> pa.Table:
    """A vector for each key, and null with a reason for each seventh."""
    rows = [
        {
            "uid": key,
            "encoder": "e",
            "vector": None if place % 7 == 6 else np.full(width, int(key[:4], 16)).tolist(),
            "truncated": False,
            "reason": "no_direction" if place % 7 == 6 else None,
            "attempts": 1,
        }
        for place, key in enumerate(keys)
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["embeddings"].file_schema)


def commit(workspace: Workspace, name: str, rows: pa.Table, token: int = 1) -> list[str]:
    """Commit rows; the paths of the files that hold them."""
    files = write_by_bucket(workspace, name, rows)
    committer(workspace, name, token=token).add(files)
    return [file.path for file in files]


def commit_one_by_one(workspace: Workspace, name: str, tables: Sequence[pa.Table]) -> None:
    for rows in tables:
        commit(workspace, name, rows)


def compact_here(workspace: Workspace, name: str, token: int = 1) -> None:
    """What ``compact`` does, without Ray."""
    writer = committer(workspace, name, token=token, changes_data=False)
    for group in merges(stored_files(ensure_table(workspace, name), name)):
        found = merged(workspace, name, group)
        writer.add(found.files, found.removed)


def rows_of(workspace: Workspace, name: str, at: int | None = None) -> list[dict]:
    """All rows as any Delta reader sees them, sorted by key."""
    found = DeltaTable(workspace.table_uri(name), version=at).to_pyarrow_table()
    return found.sort_by([(column, "ascending") for column in TABLES[name].key]).to_pylist()


def release(workspace: Workspace, name: str, *tables: str) -> dict[str, int]:
    """A release's folder with a manifest that names the present versions of some tables."""
    versions = {table: version(workspace, table) for table in tables}
    workspace.write_json(f"releases/{name}/manifest.json", {"tables": versions})
    return versions
