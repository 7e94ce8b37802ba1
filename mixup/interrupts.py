"""Signals that end a run: SIGTERM raises like Ctrl-C does, and never in the middle of a commit."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_ENDING = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM), as by a scheduler, ``ray job stop`` or a shutdown."""


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def raise_on_sigterm() -> None:
    """Have SIGTERM raise ``Terminated`` in the main thread; call again after a library took it."""
    if _in_main_thread():
        signal.signal(signal.SIGTERM, _terminate)


@contextmanager
def same_signals() -> Iterator[None]:
    """Puts back the signal handlers that a library sets within the block; Ray does so at start."""
    if not _in_main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Holds back SIGINT and SIGTERM until the block has ended, then lets the first of them act."""
    if not _in_main_thread():
        yield
        return
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        held.append(number)

    try:
        with same_signals():
            for number in _ENDING:
                signal.signal(number, hold)
            yield
    finally:
        if held:
            signal.raise_signal(held[0])
