"""Ray Data in this process: quiet, patient with its actors, and looked at when it pays."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

_INIT_DEATHS = 2
_SHORTEST_S, _LONGEST_S = 0.1, 1.0
_SHARE = 0.1


def set_up() -> None:
    """Its own bars and chatter off, since mixup shows progress by stage; its actors last."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
    # An actor that is killed while it loads its model is replaced too.
    context.max_consecutive_actor_init_deaths = _INIT_DEATHS
    callbacks: list[Any] = context.custom_execution_callback_classes  # it looks like one
    if Looks not in callbacks:
        callbacks.append(Looks)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors come as exceptions


def executions() -> set[Any]:
    """The executions of Ray Data that go on in this process; each is a thread."""
    from ray.data._internal.execution.streaming_executor import StreamingExecutor

    return {thread for thread in threading.enumerate() if isinstance(thread, StreamingExecutor)}


class Looks:
    """How long an execution waits before it looks at its tasks again: an ``ExecutionCallback``.

    Ray Data looks ten times a second, whether or not a task has ended, and each look asks several
    actors: a twelfth of two cores, which the engines on them lack. Here it waits a tenth of the
    time for which nothing has changed, from a tenth of a second to a second: what ends is seen
    later by a tenth of what it took at most, or by as little as before. The wait is one for the
    whole process; of two executions at a time the last to look decides.
    """

    def __init__(self) -> None:
        self._seen: list[tuple[int, ...]] = []
        self._changed = 0.0

    def before_execution_starts(self, executor: Any) -> None:
        """Look often at first."""
        self._changed = time.monotonic()
        _wait(_SHORTEST_S)

    def on_execution_step(self, executor: Any) -> None:
        """After a look: decide about the next one."""
        seen = [_tasks_of(operator) for operator in executor._topology or ()]
        now = time.monotonic()
        if seen != self._seen:
            self._seen, self._changed = seen, now
        _wait(min(max(_SHARE * (now - self._changed), _SHORTEST_S), _LONGEST_S))

    def after_execution_succeeds(self, executor: Any) -> None:
        """Nothing to do."""

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        """Nothing to do."""


def _tasks_of(operator: Any) -> tuple[int, ...]:
    metrics = operator.metrics
    return (
        metrics.num_tasks_submitted,
        metrics.num_tasks_finished,
        metrics.num_task_outputs_generated,
        metrics.num_outputs_taken,
    )


def _wait(seconds: float) -> None:
    from ray.data._internal.execution import streaming_executor_state

    streaming_executor_state.WAIT_FOR_TASK_COMPLETION_TIMEOUT_S = seconds
