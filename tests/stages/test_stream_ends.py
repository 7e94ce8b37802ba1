"""How a stream of manifests ends early: what came in is committed, and the reason is said."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from mixup.errors import StalledError
from mixup.interrupts import Terminated, raise_on_sigterm, same_signals
from mixup.stages.manifests import Manifest, Stall, commit_stream


class Recorder:
    """A committer that notes what it is given and what it has committed."""

    def __init__(self) -> None:
        self.added: list[tuple] = []
        self.committed = 0

    def add(self, files, removed=None) -> None:
        self.added.append(tuple(files))

    def commit(self) -> None:
        self.committed = len(self.added)


def commit(manifests, recorder: Recorder, stall: Stall | None = None):
    return commit_stream(manifests, recorder, stage="embed", unit="rows", stall=stall)  # type: ignore[arg-type]


def three_then(last) -> Iterator[Manifest]:
    for _ in range(3):
        yield Manifest(counts={"rows": 2})
    last()


def fail() -> None:
    raise ValueError("the actor broke")


def test_a_failed_stream_commits_what_came_before_it():
    recorder = Recorder()
    with pytest.raises(ValueError, match="the actor broke"):
        commit(three_then(fail), recorder)
    assert recorder.committed == 3


def test_a_stalled_stream_fails_with_the_last_lines_of_those_at_work():
    recorder = Recorder()
    ended = threading.Event()
    stall = Stall(0.3, lambda: "CUDA error: an illegal memory access")
    with pytest.raises(StalledError, match=r"embed: no row finished for 0.3 s") as stalled:
        commit(three_then(ended.wait), recorder, stall)
    assert stalled.value.details == "CUDA error: an illegal memory access"
    ended.set()
    assert recorder.committed == 3


def test_a_slow_stream_is_not_a_stalled_one():
    def slow() -> Iterator[Manifest]:
        for _ in range(4):
            threading.Event().wait(0.2)
            yield Manifest(counts={"rows": 1})

    recorder = Recorder()
    assert commit(slow(), recorder, Stall(1.0, lambda: ""))["rows"] == 4


def test_sigterm_commits_what_is_done_and_raises():
    recorder = Recorder()
    ended = threading.Event()

    def terminate_and_wait() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        ended.wait()

    with same_signals():
        raise_on_sigterm()
        with pytest.raises(Terminated):
            commit(three_then(terminate_and_wait), recorder)
    ended.set()
    assert recorder.committed == 3


def test_nothing_is_committed_twice_when_the_signal_comes_within_a_commit():
    """The signal waits until ``add`` has noted that its files are committed."""

    class Slow(Recorder):
        def add(self, files, removed=None) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            super().add(files)

    recorder = Slow()
    with same_signals():
        raise_on_sigterm()
        with pytest.raises(Terminated):
            commit(iter([Manifest(), Manifest()]), recorder)
    assert recorder.committed == len(recorder.added) == 2
