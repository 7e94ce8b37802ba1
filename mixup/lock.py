"""One writer per workspace: a lease with a fencing token, kept in a Delta table.

The lease is a table of one row. Taking it replaces that row by one commit, which the Delta log
accepts from one of several takers only, on a disk as on an object store; the version of that
commit is the fencing token, so tokens only grow. Every commit to another table carries the token
as a Delta application transaction (``mixup.commits``), and a writer whose token has been passed is
refused there.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from mixup.errors import TableError
from mixup.workspace import Workspace

logger = logging.getLogger(__name__)

LEASE_SECONDS = 120.0
HEARTBEAT_SECONDS = 15.0
HEARTBEATS = "runs/heartbeats"
_READS = 20
_SCHEMA = pa.schema([("holder", pa.string())])
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Holder:
    """Who holds a lease: a process of a machine since its boot; ``run`` is empty when released.

    ``in_doubt`` says that it was taken over from a silent holder of another boot, which may be
    stalled rather than dead.
    """

    run: str
    host: str
    boot: str
    pid: int
    started: float
    since: float
    in_doubt: bool = False

    @classmethod
    def this_process(cls, run: str, *, in_doubt: bool = False) -> Holder:
        """The current process, holding for a run."""
        started, now = psutil.Process().create_time(), time.time()
        return cls(run, socket.gethostname(), _boot_id(), os.getpid(), started, now, in_doubt)

    @property
    def is_on_this_boot(self) -> bool:
        """Whether the holder ran on this machine since it was last started."""
        return (self.host, self.boot) == (socket.gethostname(), _boot_id())

    @property
    def is_running(self) -> bool:
        """Whether the holder's process, of this machine and boot, is alive."""
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) < 1.0
        except psutil.NoSuchProcess:
            return False


class Lease:
    """A held lock; renews its heartbeat in a thread until released.

    Attributes:
        token: The fencing token, larger than that of every earlier holder.
        since: When it was taken, in seconds since the epoch.
        in_doubt: Whether an earlier holder may still run and commit where its token has not been
            passed yet.
    """

    def __init__(self, workspace: Workspace, holder: Holder, token: int) -> None:
        self.token, self.since, self.in_doubt = token, holder.since, holder.in_doubt
        self._workspace, self._holder = workspace, holder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease-heartbeat", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while True:
            try:
                self._workspace.write_json(_heartbeat(self.token), {"at": time.time()})
            except (
                OSError,
                TableError,
            ) as error:  # a later beat may pass; the fencing token guards the tables
                logger.warning("the lock's heartbeat could not be written: %s", error)
            if self._stop.wait(HEARTBEAT_SECONDS):
                return

    def release(self) -> None:
        """Give the lock back; harmless when another run has taken it over."""
        self._stop.set()
        self._thread.join(timeout=HEARTBEAT_SECONDS)
        table, current = _current(self._workspace)
        if current != self._holder:
            return
        try:
            _replace(self._workspace, table, _nobody())
        except DeltaError as error:
            logger.warning("the lock was taken over while it was released: %s", error)
        except OSError as error:  # a full disk: the next run takes over from a process that is gone
            logger.warning("the lock could not be given back: %s", error)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


def acquire(workspace: Workspace, run: str) -> Lease:
    """Take the workspace's lock for a run, or take it over from a dead holder.

    A holder is dead when its process has ended (same machine and boot), its machine has restarted,
    or its heartbeat is older than ``LEASE_SECONDS`` (another machine).

    Raises:
        TableError: If a living run holds it: says who and since when.
    """
    _ensure_lock_table(workspace)
    table, current = _current(workspace)
    if current.run:
        _refuse_if_alive(workspace, table, current)
        logger.warning("taking the lock over from run %s, which is dead", current.run)
    in_doubt = bool(current.run) and (current.in_doubt or not current.is_on_this_boot)
    mine = Holder.this_process(run, in_doubt=in_doubt)
    try:
        token = _replace(workspace, table, mine)
    except DeltaError as error:
        raise TableError(f"another run took the lock of {workspace.uri} just now") from error
    return Lease(workspace, mine, token)


def holder_of(workspace: Workspace) -> Holder | None:
    """Who holds the lock now, or None."""
    try:
        _, holder = _current(workspace)
    except TableNotFoundError:
        return None
    return holder if holder.run else None


def _refuse_if_alive(workspace: Workspace, table: DeltaTable, holder: Holder) -> None:
    if holder.is_on_this_boot:
        alive = holder.is_running
    else:
        beat = workspace.read_json(_heartbeat(table.version()))
        alive = time.time() - (beat["at"] if beat else holder.since) < LEASE_SECONDS
        alive = alive and not (holder.host == socket.gethostname() and holder.boot)
    if alive:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.since))
        raise TableError(
            f"workspace {workspace.uri} is locked by run {holder.run} "
            f"(process {holder.pid} on {holder.host}) since {since}; wait for it or stop it"
        )


def _nobody() -> Holder:
    return Holder("", "", "", 0, 0.0, time.time())


def _ensure_lock_table(workspace: Workspace) -> None:
    """Make the lease's table, empty, where there is none."""
    uri = _lock_uri(workspace)
    if workspace.is_local:
        Path(uri).mkdir(parents=True, exist_ok=True)
    try:
        DeltaTable.create(uri, schema=Schema.from_arrow(_SCHEMA), mode="ignore")
    except DeltaError:  # another process made it at the same moment
        logger.debug("the lock table was made by another run")


def _replace(workspace: Workspace, table: DeltaTable, holder: Holder) -> int:
    """Replace the row by one commit without retries; the version of that commit.

    Without retries the commit becomes the version after the one that was read, or fails.
    """
    token = table.version() + 1
    name = f"{uuid.uuid4().hex}.parquet"
    filesystem, root = workspace.filesystem()
    path = f"{root}/lock/{name}"
    content = pa.table({"holder": [json.dumps(asdict(holder))]}, schema=_SCHEMA)
    pq.write_table(content, path, filesystem=filesystem)
    size = filesystem.get_file_info(path).size
    added = AddAction(name, size, {}, int(time.time() * 1000), True, '{"numRecords": 1}')
    removed = [_remove_action(file) for file in _files(table)]
    table.create_write_transaction(
        [added, *removed],
        mode="append",
        schema=table.schema(),
        commit_properties=CommitProperties(max_commit_retries=0),
    )
    for action in removed:  # no reader wants an earlier holder
        filesystem.delete_file(f"{root}/lock/{action.path}")
    return token


def _remove_action(path: str) -> RemoveAction:
    return RemoveAction(path, True, int(time.time() * 1000))


def _files(table: DeltaTable) -> list[str]:
    actions = pa.table(table.get_add_actions(flatten=True))
    return actions.column("path").to_pylist() if actions.num_rows else []


def ensure_held(workspace: Workspace, token: int) -> None:
    """Check that a run still holds the lock, before what no table's commit would refuse.

    Raises:
        TableError: If another run has taken it over.
    """
    table, holder = _current(workspace)
    if table.version() != token:
        raise TableError(
            f"the lock of {workspace.uri} has passed to {holder.run or 'nobody'}, so this run ends "
            "without publishing"
        )


def _current(workspace: Workspace) -> tuple[DeltaTable, Holder]:
    """The lease's table as it is now, and who holds it by that version.

    Raises:
        TableNotFoundError: If the workspace has never been locked.
        TableError: If the holder keeps changing while it is read.
    """
    filesystem, root = workspace.filesystem()
    for _ in range(_READS):
        table = DeltaTable(_lock_uri(workspace))
        files = _files(table)
        if not files:
            return table, _nobody()
        try:
            rows = pq.read_table(f"{root}/lock/{files[0]}", filesystem=filesystem).to_pylist()
        except FileNotFoundError:  # replaced by another run between the two reads
            continue
        return table, Holder(**json.loads(rows[0]["holder"]))
    raise TableError(f"the lock of {workspace.uri} changes hands too fast to be read; try again")


def _lock_uri(workspace: Workspace) -> str:
    return f"{workspace.uri}/lock"


def _heartbeat(token: int) -> str:
    return f"{HEARTBEATS}/{token}.json"


def _boot_id() -> str:
    """The machine's boot and the process namespace: in another one process ids mean others."""
    if not _BOOT_ID.exists():
        return ""
    return f"{_BOOT_ID.read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
