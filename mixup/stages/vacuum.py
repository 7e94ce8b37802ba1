"""Vacuum: what no kept version needs is deleted, and the logs of the tables are kept short.

It runs under the lock, before the run writes anything: what a dead run left behind is then older
than the lock, and nothing that is younger is touched. Every version that a release's manifest names
is kept whole, so that deleting a release's folder is all that frees its files.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pyarrow import fs

from mixup.commits import HISTORY
from mixup.errors import TableError
from mixup.lock import HEARTBEATS, Lease
from mixup.records import PROMPT_SETS, TABLES, TOKEN_SETS
from mixup.stages.run import RunContext
from mixup.tables import open_table, stored_files
from mixup.workspace import TEMPORARY, Workspace

logger = logging.getLogger(__name__)

CHECKPOINT_COMMITS = 20
"""Commits after the newest checkpoint at which a table gets another one."""
SPANS_KEPT_RUNS = 100
"""The spans of so many of the newest runs are kept; they are the large part of a run's folder."""
_VERSIONS_AT_ONCE = 16
_DESCRIBED_BY = {
    "releases": "manifest.json",
    "mixtures": "manifest.json",
    "libraries": "manifest.json",
    TOKEN_SETS: "set.json",
    "models": "training.json",
    PROMPT_SETS: "set.json",
}
"""The folders of finished things, each of which has one document that is written last."""
_CHECKPOINTS, _CHECKPOINT = "checkpoints", "checkpoint.json"
_LOG_ENTRY = re.compile(r"_delta_log/(\d{20})\.(json|crc|checkpoint\.parquet)$")


@dataclass(frozen=True)
class FoundFile:
    """A file as a listing shows it: its path below the listed folder, bytes, and last change."""

    path: str
    bytes: int
    modified: float


def clean_up(context: RunContext, lease: Lease) -> None:
    """Free what no kept version needs, and checkpoint the logs that have grown.

    Where an earlier holder of the lock may still run, all tables are fenced first: it must not
    commit a file that is deleted here.
    """
    workspace = context.workspace
    if lease.in_doubt:
        context.committer(*[name for name in TABLES if open_table(workspace, name)]).fence()
    pins = pinned_versions(workspace)
    freed: list[FoundFile] = []
    if pins is not None:
        for name in TABLES:
            freed += _clean_table(workspace, name, pins.get(name, frozenset()), lease.since)
    freed += _leftovers(workspace, lease)
    _forget_heartbeats(workspace, lease)
    if freed:
        size = sum(file.bytes for file in freed) / 1e6
        logger.info("vacuum: removed %d files, %.1f MB", len(freed), size)


def pinned_versions(workspace: Workspace) -> Mapping[str, Collection[int]] | None:
    """The versions of each table that releases name; None where a manifest cannot be read."""
    pins: dict[str, set[int]] = {}
    for name in workspace.list("releases"):
        if name.endswith((".json", ".tmp")):
            continue
        try:
            manifest = workspace.read_json(f"releases/{name}/manifest.json")
            versions = {} if manifest is None else manifest["tables"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning(
                "vacuum: the manifest of release %s cannot be read (%s), so it is not known which "
                "versions it needs and no table is cleaned; mend it or delete that folder",
                *(name, error),
            )
            return None
        for table, version in versions.items():
            if version >= 0:  # else the release was made before the table
                pins.setdefault(table, set()).add(version)
    return pins


def _clean_table(
    workspace: Workspace, name: str, pins: Collection[int], before: float
) -> list[FoundFile]:
    """Free the files and log entries of one table; what was freed."""
    table = open_table(workspace, name)
    if table is None:
        return []
    found = listing(workspace, f"tables/{name}")
    if (needed := _needed(workspace, table, name, pins)) is None:
        return []
    unneeded = unneeded_files(found, needed, before)
    if table.version() - max(checkpoints(found), default=0) >= CHECKPOINT_COMMITS:
        table.create_checkpoint()
    unneeded += unneeded_entries(found, [*pins, table.version() - HISTORY])
    _delete(workspace, f"tables/{name}", unneeded)
    return unneeded


def _needed(
    workspace: Workspace, table: DeltaTable, name: str, pins: Collection[int]
) -> set[str] | None:
    """The files of the present version and the pinned ones; None where one cannot be read."""
    needed = {file.path for file in stored_files(table, name)}
    with ThreadPoolExecutor(_VERSIONS_AT_ONCE) as readers:  # on an object store it is all waiting
        try:
            for paths in readers.map(partial(_files_at, workspace, name), sorted(pins)):
                needed.update(paths)
        except TableError as error:
            logger.warning("vacuum: %s; the table is not cleaned", error)
            return None
    return needed


def _files_at(workspace: Workspace, name: str, version: int) -> list[str]:
    try:
        table = DeltaTable(workspace.table_uri(name), version=version)
    except DeltaError as error:
        raise TableError(
            f"version {version} of table {name}, which a release names, cannot be read: {error}"
        ) from error
    return [file.path for file in stored_files(table, name)]


def unneeded_files(
    found: Iterable[FoundFile], needed: Collection[str], before: float
) -> list[FoundFile]:
    """The data files that no kept version holds and that were there before a moment.

    Args:
        found: All files of a table's folder.
        needed: The paths that kept versions hold.
        before: When the lock was taken: what came later may be a worker's that is still writing.
    """
    return [
        file
        for file in found
        if file.path.endswith(".parquet")
        and not file.path.startswith("_delta_log/")
        and file.path not in needed
        and file.modified < before
    ]


def checkpoints(found: Iterable[FoundFile]) -> list[int]:
    """The versions that have a checkpoint."""
    entries = [_LOG_ENTRY.search(file.path) for file in found]
    return sorted(int(m[1]) for m in entries if m and m[2] == "checkpoint.parquet")


def unneeded_entries(found: Iterable[FoundFile], kept: Iterable[int]) -> list[FoundFile]:
    """The log entries, oldest first, that no kept version is read from.

    A version is read from the newest checkpoint up to it and the commits since, so all before the
    last checkpoint that the earliest kept version can start at goes.
    """
    found, earliest = list(found), min(kept)
    start = max((version for version in checkpoints(found) if version <= earliest), default=0)
    entries = [(file, _LOG_ENTRY.search(file.path)) for file in found]
    old = [(int(match[1]), file.path, file) for file, match in entries if match]
    return [file for version, _, file in sorted(old, key=lambda e: e[:2]) if version < start]


def _leftovers(workspace: Workspace, lease: Lease) -> list[FoundFile]:
    """Free what dead runs left outside of the tables; what was freed."""
    filesystem, root = workspace.filesystem()
    freed: list[FoundFile] = []
    trainings = [f"{_CHECKPOINTS}/{name}" for name in workspace.list(_CHECKPOINTS)]
    for folder, document in {**_DESCRIBED_BY, **dict.fromkeys(trainings, _CHECKPOINT)}.items():
        for name in workspace.list(folder):
            if not _is_unfinished(workspace, f"{folder}/{name}", document):
                continue
            inside = listing(workspace, f"{folder}/{name}")
            if all(file.modified < lease.since for file in inside):
                filesystem.delete_dir(f"{root}/{folder}/{name}")
                freed += inside
    runs = [name for name in workspace.list("runs") if name[:1].isdigit()]
    old = {f"runs/{run}/spans.json" for run in runs[:-SPANS_KEPT_RUNS]}
    for folder in ("releases", "mixtures", "libraries", "runs", "fitted"):
        unneeded = [
            file
            for file in listing(workspace, folder)
            if f"{folder}/{file.path}" in old or TEMPORARY.search(file.path)
        ]
        unneeded = [file for file in unneeded if file.modified < lease.since]
        _delete(workspace, folder, unneeded)
        freed += unneeded
    return freed


def _is_unfinished(workspace: Workspace, path: str, document: str) -> bool:
    """Whether an entry of one of these folders is itself one, that no run has finished."""
    name = path.rpartition("/")[2]
    if ".json" in name:
        return False
    if workspace.is_local:
        return TEMPORARY.search(name) is not None
    return not workspace.exists(f"{path}/{document}")  # it is written in place there, this last


def _forget_heartbeats(workspace: Workspace, lease: Lease) -> None:
    """Delete those of earlier holders: each run leaves one."""
    filesystem, root = workspace.filesystem()
    for name in workspace.list(HEARTBEATS):
        token, _, kind = name.partition(".")
        if kind == "json" and token.isdigit() and int(token) < lease.token:
            filesystem.delete_file(f"{root}/{HEARTBEATS}/{name}")


def listing(workspace: Workspace, folder: str) -> list[FoundFile]:
    """All files below a folder of the workspace."""
    filesystem, root = workspace.filesystem()
    base = f"{root}/{folder}"
    selector = fs.FileSelector(base, recursive=True, allow_not_found=True)
    return [
        FoundFile(info.path.removeprefix(f"{base}/"), info.size, info.mtime_ns / 1e9)
        for info in filesystem.get_file_info(selector)
        if info.is_file
    ]


def _delete(workspace: Workspace, folder: str, files: Iterable[FoundFile]) -> None:
    filesystem, root = workspace.filesystem()
    for file in files:
        filesystem.delete_file(f"{root}/{folder}/{file.path}")
