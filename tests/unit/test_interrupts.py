"""Signals that end a run, sent to this process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from mixup.interrupts import Terminated, raise_on_sigterm, same_signals, uninterrupted


@pytest.fixture(autouse=True)
def _handlers_as_before() -> Iterator[None]:
    with same_signals():
        yield


def test_sigterm_raises_as_an_interrupt():
    raise_on_sigterm()
    with pytest.raises(Terminated):
        os.kill(os.getpid(), signal.SIGTERM)
    assert issubclass(Terminated, KeyboardInterrupt)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_waits_for_the_end_of_a_commit(number: int, error: type[BaseException]):
    raise_on_sigterm()
    if number == signal.SIGINT:  # ignored in what a shell started in the background
        signal.signal(number, signal.default_int_handler)
    steps: list[str] = []

    def commit() -> None:
        with uninterrupted():
            os.kill(os.getpid(), number)
            steps.append("committed")

    with pytest.raises(error):
        commit()
    assert steps == ["committed"]


def test_without_a_signal_nothing_is_raised():
    raise_on_sigterm()
    handler = signal.getsignal(signal.SIGTERM)
    with uninterrupted():
        pass
    assert signal.getsignal(signal.SIGTERM) is handler


def test_handlers_that_a_library_sets_are_put_back():
    raise_on_sigterm()
    with same_signals():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with pytest.raises(Terminated):
        os.kill(os.getpid(), signal.SIGTERM)
