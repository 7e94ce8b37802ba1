"""The processes that a command of a test leaves running, found by their session, and their end.

A command is started with ``start_new_session=True``. Ray puts its workers into process groups of
their own, but leaves them in the session; its job drivers leave it, and are found as descendants.
"""

from __future__ import annotations

import os
import subprocess
import time

import psutil


def members(leader: subprocess.Popen[str]) -> dict[psutil.Process, str]:
    """The processes that a command started, each with its command line."""
    found = {other for other in psutil.process_iter() if _session_of(other) == leader.pid}
    if psutil.pid_exists(leader.pid):
        found.update(psutil.Process(leader.pid).children(recursive=True))
    return {other: _name_of(other) for other in found if other.pid != leader.pid}


def survivors(
    leader: subprocess.Popen[str], family: dict[psutil.Process, str], *, timeout_s: float
) -> dict[psutil.Process, str]:
    """What is left of a dead command's processes, later ones included, when the time is over."""
    deadline = time.monotonic() + timeout_s
    while True:
        family = family | members(leader)
        left = {other: name for other, name in family.items() if _is_alive(other)}
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.2)


def end(leader: subprocess.Popen[str]) -> None:
    """End a command and all that it started."""
    family = members(leader)
    for other in (leader, *family, *members(leader)):
        try:
            other.kill()
        except psutil.NoSuchProcess:
            continue
    leader.wait()
    if leader.stdout:
        leader.stdout.close()
    assert not (left := survivors(leader, family, timeout_s=30)), left


def _session_of(process: psutil.Process) -> int:
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return -1


def _name_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:200] or process.name()
    except psutil.NoSuchProcess:
        return "ended"


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
