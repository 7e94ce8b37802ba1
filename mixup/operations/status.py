"""Status: what a workspace holds, who writes to it, and what the last run came to."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from pyarrow import fs

from mixup.errors import TableError
from mixup.lock import HEARTBEATS, Holder, holder_of
from mixup.operations.view import View
from mixup.records import TABLES
from mixup.stages.library_folder import FOLDER as LIBRARIES
from mixup.stages.library_folder import current_library
from mixup.stages.publish_mixture import FOLDER, current_mixture
from mixup.tables import open_table, scan_files, snapshot
from mixup.workspace import Workspace

_MOST_FILES = 1024
_WITH_REASONS = ("quarantine", "embeddings", "ratings", "samples", "rewards", "candidates")
_LOCK_READS = 5
_MADE = ("release", "mixture", "library", "model")


@dataclass(frozen=True)
class TableState:
    """A table's rows, version and bytes as its log states them."""

    rows: int
    version: int
    bytes: int


@dataclass(frozen=True)
class LockState:
    """Who holds the lock.

    Attributes:
        holder: The run and its process.
        is_alive: Whether that process runs; None where it belongs to another machine.
        beat_s: Seconds since the newest heartbeat; None if there is none.
    """

    holder: Holder
    is_alive: bool | None
    beat_s: float | None


@dataclass(frozen=True)
class RunState:
    """The run that started last.

    Attributes:
        run: Its id.
        started: When it started; None if its id does not tell.
        ended: When it ended with what it was to make; None if it did not.
        release: What it made, such as ``release 20260101T...``.
        table: The table that it committed to last, or None.
        committed: When that was.
        training: How far its training is: step, steps, loss; None where nothing was trained.
    """

    run: str
    started: float | None
    ended: float | None
    release: str | None
    table: str | None = None
    committed: float | None = None
    training: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Status:
    """A workspace at one moment.

    Attributes:
        uri: The workspace.
        tables: The tables that exist, in the order of the flow.
        release: The folder of the current release, or None.
        releases: How many releases are there.
        manifest: Its manifest; empty without one.
        mixture: The folder of the current mixture, or None.
        pairs: How many pairs it has.
        library: The folder of the current library, or None.
        models: The names of the models that were trained here.
        lock: Who holds the lock, or None.
        last_run: The run that started last, or None.
        reasons: Table to reasons why a row has no value, most frequent first; None where the table
            has too many files to be looked through for a glance.
        superseded: Of files that were read again in another state, or by other rules: how many
            earlier states there are, and the rows that were read of them. They stay in the tables
            and do not count any more.
        disk_bytes: Bytes of all files of a local workspace, None elsewhere.
    """

    uri: str
    tables: Mapping[str, TableState]
    release: str | None
    releases: int
    manifest: Mapping[str, Any]
    mixture: str | None
    pairs: int | None
    library: str | None
    models: Sequence[str]
    lock: LockState | None
    last_run: RunState | None
    reasons: Mapping[str, Mapping[str, int] | None]
    superseded: tuple[int, int]
    disk_bytes: int | None

    def to_json(self) -> dict[str, Any]:
        """Tables, release and, if there is one, mixture or library.

        It is what ``mixup status --json`` prints.
        """
        tables = {
            name: {"rows": state.rows, "version": state.version}
            for name, state in self.tables.items()
        }
        others = {"mixture": self.mixture, "library": self.library}
        there = {kind: folder for kind, folder in others.items() if folder is not None}
        return {"tables": tables, "release": self.release, **there}


def status(workspace: Workspace) -> Status:
    """Look at a workspace; reads logs, small documents and reasons only, and writes nothing."""
    opened = {name: open_table(workspace, name) for name in TABLES}
    there = {name: table for name, table in opened.items() if table is not None}
    view = View.of(workspace)
    mixture, library = current_mixture(workspace), current_library(workspace)
    folder = None if view.release is None else f"{workspace.uri}/releases/{view.release}"
    return Status(
        uri=workspace.uri,
        tables={name: _table_state(table) for name, table in there.items()},
        release=folder,
        releases=len(view.releases),
        manifest=view.manifest,
        mixture=None if mixture is None else f"{workspace.uri}/{FOLDER}/{mixture[0]}",
        pairs=None if mixture is None else _pairs(workspace, mixture[0]),
        library=None if library is None else f"{workspace.uri}/{LIBRARIES}/{library[0]}",
        models=_models(workspace),
        lock=_lock(workspace),
        last_run=_last_run(workspace, there),
        reasons={name: _reasons(view, name) for name in _WITH_REASONS if name in there},
        superseded=_superseded(view),
        disk_bytes=_disk_bytes(workspace) if workspace.is_local else None,
    )


def _models(workspace: Workspace) -> list[str]:
    names = workspace.list("models")
    return [name for name in names if workspace.exists(f"models/{name}/training.json")]


def _pairs(workspace: Workspace, mixture: str) -> int | None:
    manifest = workspace.read_json(f"{FOLDER}/{mixture}/manifest.json") or {}
    return manifest.get("counts", {}).get("pairs")


def _table_state(table: DeltaTable) -> TableState:
    actions = pa.table(table.get_add_actions(flatten=True))
    if not actions.num_rows:
        return TableState(0, table.version(), 0)
    sums = {name: pc.sum(actions[name]).as_py() or 0 for name in ("num_records", "size_bytes")}
    return TableState(int(sums["num_records"]), table.version(), int(sums["size_bytes"]))


def _reasons(view: View, name: str) -> dict[str, int] | None:
    """Rows of a table without a value by reason, under the release's models where it states them.

    Only the columns of reasons are read, and none where there are too many files.
    """
    paths = snapshot(view.workspace, name).paths
    if len(paths) > _MOST_FILES:
        return None
    column, revision = _revision(view, name)
    if name == "quarantine":
        column = "file"
    found: Counter[str] = Counter()
    for part in scan_files(view.workspace, name, paths, ["reason", *([column] if column else [])]):
        rows = part if revision is None else part.filter(pc.equal(part[column], revision))
        if name == "quarantine":
            rows = part.filter(pc.invert(pc.is_in(part["file"], _earlier_states(view))))
        for count in pc.value_counts(rows["reason"].drop_null()).to_pylist():
            found[count["values"]] += count["counts"]
    return dict(found.most_common())


def _earlier_states(view: View) -> pa.Array:
    """The fingerprints of files that were read in a newer state."""
    newest: dict[str, Any] = {}
    for fingerprint, file in view.files.items():
        held = newest.get(file["path"])
        if held is None or file["ingested_at"] >= view.files[held]["ingested_at"]:
            newest[file["path"]] = fingerprint
    kept = set(newest.values())
    return pa.array([name for name in view.files if name not in kept], pa.string())


def _superseded(view: View) -> tuple[int, int]:
    """How many earlier states of files were read, and their rows."""
    earlier = _earlier_states(view).to_pylist()
    return len(earlier), sum(view.files[name]["rows"] or 0 for name in earlier)


def _revision(view: View, name: str) -> tuple[str | None, str | None]:
    """The column that tells whose outcomes the rows of a table are, and its value today."""
    if name == "ratings" and view.rater is not None:
        return "rater", view.rater
    if name == "embeddings" and "encoder" in view.models:
        return "encoder", view.models["encoder"]
    return None, None


def _disk_bytes(workspace: Workspace) -> int:
    filesystem, root = workspace.filesystem()
    infos = filesystem.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
    return sum(info.size or 0 for info in infos)


def _lock(workspace: Workspace) -> LockState | None:
    holder = _holder(workspace)
    if holder is None:
        return None
    tokens = [name.partition(".")[0] for name in workspace.list(HEARTBEATS)]
    newest = max((int(token) for token in tokens if token.isdigit()), default=None)
    beat = None if newest is None else workspace.read_json(f"{HEARTBEATS}/{newest}.json")
    alive = holder.is_running if holder.is_on_this_boot else None
    return LockState(holder, alive, None if beat is None else time.time() - beat["at"])


def _holder(workspace: Workspace) -> Holder | None:
    """The lock's holder; read again when a run takes or gives back the lock meanwhile."""
    for _ in range(_LOCK_READS):
        try:
            return holder_of(workspace)
        except (FileNotFoundError, ValueError):
            time.sleep(0.1)
    raise TableError(f"the lock of {workspace.uri} cannot be read; a run is taking it: try again")


def _last_run(workspace: Workspace, tables: Mapping[str, DeltaTable]) -> RunState | None:
    """The run with the largest id: ids begin with the time at which a run started."""
    runs = [name for name in workspace.list("runs") if name[:1].isdigit()]
    if not runs:
        return None
    run = runs[-1]
    summary = workspace.read_json(f"runs/{run}/summary.json") or {}
    made = [f"{kind} {summary[kind]}" for kind in _MADE if kind in summary]
    training = _training(workspace, run)
    state = RunState(
        run, _started(run), summary.get("ended"), made[0] if made else None, training=training
    )
    last = [(at, name) for name, table in tables.items() if (at := _committed(table, run))]
    if not last:
        return state
    committed, name = max(last)
    return replace(state, table=name, committed=committed)


def _training(workspace: Workspace, run: str) -> Mapping[str, Any] | None:
    described = workspace.read_json(f"runs/{run}/training.json")
    return (
        None if described is None else workspace.read_json(f"{described['folder']}/progress.json")
    )


def _committed(table: DeltaTable, run: str) -> float | None:
    """When a run committed to a table, if that was the table's last commit."""
    for commit in table.history(1):
        if json.loads(commit.get("mixup", "{}")).get("run") == run:
            return commit["timestamp"] / 1000
    return None


def _started(run: str) -> float | None:
    try:
        moment = datetime.strptime(run.partition("-")[0], "%Y%m%dT%H%M%S")
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC).timestamp()
