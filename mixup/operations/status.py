"""Status: what a workspace holds, who writes to it, and what the last run came to."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mixup.errors import TableError
from mixup.lock import HEARTBEATS, Holder, holder_of
from mixup.operations.text import labeled, moment, rows_line, table_lines
from mixup.records import TABLES
from mixup.report.wording import duration
from mixup.stages.publish import current_release
from mixup.tables import row_count, version
from mixup.workspace import Workspace

_LOCK_READS = 5


@dataclass(frozen=True)
class TableState:
    """A table's rows at its current version."""

    rows: int
    version: int


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
    """A run: when it started, and when it ended with which release (None: it did not)."""

    run: str
    started: float | None
    ended: float | None
    release: str | None


@dataclass(frozen=True)
class Status:
    """A workspace at one moment.

    Attributes:
        uri: The workspace.
        tables: The tables that exist, in the order of the flow.
        release: The folder of the current release, or None.
        manifest: Its manifest; empty without one.
        lock: Who holds the lock, or None.
        last_run: The run that started last, or None.
    """

    uri: str
    tables: Mapping[str, TableState]
    release: str | None
    manifest: Mapping[str, Any]
    lock: LockState | None
    last_run: RunState | None

    def to_json(self) -> dict[str, Any]:
        """Tables and release, as ``mixup status --json`` prints them."""
        tables = {name: vars(state) for name, state in self.tables.items()}
        return {"tables": tables, "release": self.release}


def status(workspace: Workspace) -> Status:
    """Look at a workspace; reads logs and small documents only, and writes nothing."""
    versions = {name: version(workspace, name) for name in TABLES}
    tables = {
        name: TableState(row_count(workspace, name), found)
        for name, found in versions.items()
        if found >= 0
    }
    current = current_release(workspace)
    folder = None if current is None else f"releases/{current[0]}"
    manifest = workspace.read_json(f"{folder}/manifest.json") if folder else None
    return Status(
        uri=workspace.uri,
        tables=tables,
        release=f"{workspace.uri}/{folder}" if folder else None,
        manifest=manifest or {},
        lock=_lock(workspace),
        last_run=_last_run(workspace),
    )


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


def _last_run(workspace: Workspace) -> RunState | None:
    """The run with the largest id: ids begin with the time at which a run started."""
    runs = [name for name in workspace.list("runs") if name[:1].isdigit()]
    if not runs:
        return None
    summary = workspace.read_json(f"runs/{runs[-1]}/summary.json") or {}
    return RunState(runs[-1], _started(runs[-1]), summary.get("ended"), summary.get("release"))


def _started(run: str) -> float | None:
    try:
        moment = datetime.strptime(run.partition("-")[0], "%Y%m%dT%H%M%S")
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC).timestamp()


def status_lines(status: Status) -> list[str]:
    """A workspace at a glance."""
    rows = [(name, f"{state.rows:,}", str(state.version)) for name, state in status.tables.items()]
    tables = table_lines([("table", "rows", "version"), *rows]) if rows else ["  no table yet"]
    release = [labeled("release", status.release or "none yet")]
    if status.release and status.manifest:
        release += [
            rows_line(status.manifest["counts"]),
            labeled("made", status.manifest["created_at"]),
        ]
    return [
        labeled("workspace", status.uri),
        "",
        *tables,
        "",
        *release,
        labeled("lock", _lock_words(status.lock)),
        labeled("last run", _run_words(status.last_run, status.lock)),
    ]


def _lock_words(lock: LockState | None) -> str:
    if lock is None:
        return "free"
    holder = lock.holder
    text = f"held by run {holder.run} (process {holder.pid} on {holder.host}) since "
    text += moment(holder.since)
    if lock.is_alive is False:
        return f"{text}; that process has ended, so the next run takes it over"
    if lock.is_alive is None and lock.beat_s is not None:
        return f"{text}; last heartbeat {duration(max(lock.beat_s, 0.0))} ago"
    return text


def _run_words(run: RunState | None, lock: LockState | None) -> str:
    if run is None:
        return "none yet"
    started = "" if run.started is None else f", started {moment(run.started)}"
    if run.ended is not None:
        return f"{run.run}{started}, ended {moment(run.ended)} with release {run.release}"
    runs = lock is not None and lock.holder.run == run.run and lock.is_alive is not False
    return f"{run.run}{started}, {'running' if runs else 'did not finish; run the job again'}"
