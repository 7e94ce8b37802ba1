"""What every stage is given: the workspace, the right to write to it, and the pool of this run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from mixup.actors.logs import last_lines
from mixup.commits import Committer, Completion, last_completion
from mixup.records import content_key
from mixup.stages.manifests import Stall, run_tasks
from mixup.tables import version
from mixup.workspace import Workspace


class Runner(Protocol):
    """Runs a function with one shared argument and each of several others; results as they come."""

    def __call__(
        self,
        function: Callable[..., Any],
        shared: object,
        arguments: Sequence[tuple],
        stall: Stall,
    ) -> Iterator[Any]:
        """Run it.

        Raises:
            StalledError: If no result came for the time of ``stall``.
        """
        ...


def on_ray(
    function: Callable[..., Any], shared: object, arguments: Sequence[tuple], stall: Stall
) -> Iterator[Any]:
    """The runner of a cluster: each call is a task of one CPU; what is shared is sent once.

    Tasks that wait tell an autoscaler what would be used; they cost the driver next to nothing.
    """
    import ray

    task, place = ray.remote(num_cpus=1)(function), ray.put(shared)
    calls = [(place, *rest) for rest in arguments]
    return run_tasks(task, calls, in_flight=_TASKS_IN_FLIGHT, stall=stall)


_TASKS_IN_FLIGHT = 1000


@dataclass(frozen=True)
class RunContext:
    """One run of a pipeline.

    Attributes:
        workspace: Where the tables are.
        run: The run's id.
        token: The fencing token of the lock it holds.
        pool: Fingerprints of the input files that make up the pool of this run. The tables may hold
            more: rows of files that the config no longer names stay there and are not used.
        commit_interval_s: Least seconds between two commits.
        stall_timeout_s: Seconds without a finished row after which a stage has failed.
        runner: Runs tasks.
    """

    workspace: Workspace
    run: str
    token: int
    pool: tuple[str, ...] = ()
    commit_interval_s: float = 5.0
    stall_timeout_s: float = 1800.0
    runner: Runner = on_ray

    @property
    def pool_key(self) -> str:
        """A key of the files in the pool."""
        return content_key(sorted(self.pool))

    def stall(self, title: str) -> Stall:
        """When a stage counts as stalled whose actors' processes have a title."""
        return Stall(self.stall_timeout_s, partial(last_lines, title))

    def each(
        self, function: Callable[..., Any], shared: object, arguments: Sequence[tuple]
    ) -> Iterator[Any]:
        """Run ``function(shared, *rest)`` for each of the arguments, in workers, in any order.

        Raises:
            StalledError: If no result came for the time that the config allows.
        """
        return self.runner(function, shared, arguments, self.stall(function.__name__))

    def committer(self, *tables: str) -> Committer:
        """A committer for some tables, in that order."""
        return Committer(
            self.workspace,
            token=self.token,
            run=self.run,
            tables=tables,
            interval_s=self.commit_interval_s,
        )


OUTSTANDING = "outstanding"
"""The count, in a completion, of keys that the next run is to try: retryable ones and those that a
budget left. Without it there are none."""


@dataclass(frozen=True)
class StageState:
    """Whether a stage has anything to do, and what to record when it is done.

    A stage is current when its last completion has the same fingerprint, read the same versions
    of its inputs, and left nothing outstanding.
    """

    stage: str
    table: str
    fingerprint: str
    inputs: Mapping[str, int]
    last: Completion | None

    @property
    def is_current(self) -> bool:
        """Whether nothing that decides the stage's outcomes has changed."""
        return (
            self.last is not None
            and self.last.fingerprint == self.fingerprint
            and dict(self.last.inputs) == dict(self.inputs)
            and not self.last.counts.get(OUTSTANDING)
        )

    def consumed(self, table: str) -> int:
        """The version of an input up to which all is covered under the fingerprint; -1: none."""
        if self.last is None or self.last.fingerprint != self.fingerprint:
            return -1
        if self.last.counts.get(OUTSTANDING):
            return -1
        return self.last.inputs.get(table, -1)

    def completion(self, run: str, counts: Mapping[str, int]) -> Completion:
        """The record of the stage's end."""
        return Completion(self.stage, self.fingerprint, dict(self.inputs), dict(counts), run)


def stage_state(
    workspace: Workspace, stage: str, table: str, *, inputs: Sequence[str], decides: object
) -> StageState:
    """The state of a stage that writes ``table`` from ``inputs``, as decided by JSON data."""
    versions = {name: version(workspace, name) for name in inputs}
    last = last_completion(workspace, table, stage)
    return StageState(stage, table, content_key(stage, decides), versions, last)


class Stopwatch:
    """Wall seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return round(time.monotonic() - self._start, 2)
