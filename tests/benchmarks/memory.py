"""The most memory of the driver and of each kind of process below it, sampled.

Memory is what a process holds for itself: its resident set without the pages that are shared or
backed by files, which are those of Ray's object store and of libraries.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

EVERY_S = 0.5


class Memory:
    """Samples while ``watched``; the peaks are kept by phase, such as a stage.

    Attributes:
        phase: What is going on now.
        most: The most bytes of any one process, by phase and kind of process.
    """

    def __init__(self, phase: str = "") -> None:
        self.phase = phase
        self.most: dict[str, dict[str, int]] = defaultdict(dict)
        self._stop = threading.Event()

    def watch(self) -> None:
        """Sample until ``watched`` ends."""
        driver = psutil.Process()
        while not self._stop.wait(EVERY_S):
            most = self.most[self.phase]
            for process in [driver, *driver.children(recursive=True)]:
                try:
                    name = "driver" if process == driver else process.name()
                    memory = process.memory_info()
                    held = memory.rss - memory.shared
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
                kind = name if name == "driver" or name.startswith("ray::") else "ray itself"
                most[kind] = max(most.get(kind, 0), held)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Sample in a thread of this process."""
        thread = threading.Thread(target=self.watch)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def lines(self, phase: str = "") -> list[str]:
        """The peaks of a phase, the largest first, as lines to print."""
        kinds = sorted(self.most[phase].items(), key=lambda found: -found[1])
        return [f"    peak own memory {kind:40} {held / 1e6:8,.0f} MB" for kind, held in kinds]
