"""What tasks did, committed as it comes: tasks → manifests → the tables, with progress shown."""

from __future__ import annotations

import json
import logging
import math
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from mixup.commits import Committer, WrittenFile
from mixup.errors import StalledError
from mixup.interrupts import uninterrupted

logger = logging.getLogger(__name__)

Span = tuple[str, float, float]
"""What was worked on, and from when to when, in seconds since the epoch."""
SPANS_KEPT = 10_000
MANIFEST = pa.schema([("manifest", pa.string())])


@dataclass(frozen=True)
class Manifest:
    """What one task did: files written, files they replace, counts, and who worked when.

    This is all that comes back to the driver; it does not grow with the rows.
    """

    files: Sequence[WrittenFile] = ()
    removed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    spans: Sequence[Span] = ()

    def to_table(self) -> pa.Table:
        """One row of a Ray Data block."""
        document = {
            "files": [asdict(file) for file in self.files],
            "removed": {name: list(paths) for name, paths in self.removed.items()},
            "counts": dict(self.counts),
            "spans": [list(span) for span in self.spans],
        }
        return pa.table({"manifest": [json.dumps(document)]}, schema=MANIFEST)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """The manifest that ``to_table`` wrote."""
        document = json.loads(text)
        files = [WrittenFile(**file) for file in document["files"]]
        spans = [(name, start, end) for name, start, end in document["spans"]]
        return cls(files, document["removed"], document["counts"], spans)


def commit_stream(
    manifests: Iterable[Manifest],
    committer: Committer,
    *,
    stage: str,
    unit: str,
    total: int | None = None,
    spans: list[Span] | None = None,
    stall: Stall | None = None,
) -> Counter[str]:
    """Commit manifests as they come; their summed counts. Shows progress on a terminal.

    Whatever ends the stream, what came before is committed: also what had come in and waited.

    Args:
        manifests: What the tasks did, in any order.
        committer: Commits their files.
        stage: The stage's name.
        unit: The name of the count that is progress, such as ``rows``.
        total: How much of it there is, if known.
        spans: Takes the first ``SPANS_KEPT`` spans.
        stall: When a stream without a manifest counts as stalled; None: never.

    Raises:
        StalledError: If nothing came for the time of ``stall``.
    """
    totals: Counter[str] = Counter()
    pump, is_writing = _Pump(manifests), False
    with _progress(stage, unit, total) as advance:

        def take(manifest: Manifest) -> None:
            nonlocal is_writing
            with uninterrupted():
                is_writing = True
                committer.add(manifest.files, manifest.removed)
                is_writing = False
            totals.update(manifest.counts)
            if spans is not None and len(spans) < SPANS_KEPT:
                spans.extend(manifest.spans)
            advance(manifest.counts.get(unit, 0))

        try:
            while (manifest := pump.next(stage, stall)) is not None:
                take(manifest)
        except BaseException:
            if not is_writing:  # else it is the commit that failed
                with uninterrupted():
                    for manifest in pump.close():
                        take(manifest)
                    committer.commit()
            raise
    committer.commit()
    return totals


@dataclass(frozen=True)
class Stall:
    """When a stage counts as stalled, and what there is to say of it then.

    Attributes:
        timeout_s: Seconds without a manifest.
        last_words: The last log lines of those who should be working.
    """

    timeout_s: float
    last_words: Callable[[], str]

    def error(self, what: str) -> StalledError:
        """The error of a stage, or of a part of one, that has stalled."""
        message = (
            f"{what}: no row finished for {self.timeout_s:g} s (stall_timeout_s); "
            "what was committed stays"
        )
        return StalledError(message, self.last_words())


class _Pump:
    """Draws from a stream in a thread, so that waiting for it can be given up."""

    def __init__(self, manifests: Iterable[Manifest]) -> None:
        self._ready: queue.Queue[Manifest | BaseException | None] = queue.Queue(maxsize=64)
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._draw, args=(manifests,), name="manifests", daemon=True
        )

    def next(self, stage: str, stall: Stall | None) -> Manifest | None:
        """The next manifest; None at the end.

        Raises:
            StalledError: If there is none for too long.
        """
        if self._thread.ident is None:
            self._thread.start()
        deadline = time.monotonic() + stall.timeout_s if stall else math.inf
        while True:
            try:
                found = self._ready.get(timeout=_POLL_S)
                break
            except queue.Empty:
                if stall and time.monotonic() > deadline:
                    raise stall.error(stage) from None
        if isinstance(found, BaseException):
            raise found
        return found

    def close(self) -> list[Manifest]:
        """Draw no more; what was drawn and not taken."""
        self._closed.set()
        left: list[Manifest] = []
        while not self._ready.empty():
            found = self._ready.get()
            if isinstance(found, Manifest):
                left.append(found)
        return left

    def _draw(self, manifests: Iterable[Manifest]) -> None:
        try:
            for manifest in manifests:
                self._ready.put(manifest)
                if self._closed.is_set():
                    return
            self._ready.put(None)
        except BaseException as error:  # noqa: BLE001  raised where the stream is waited for
            self._ready.put(error)


_POLL_S = 0.5
_LINE_EVERY_S = 30.0


@contextmanager
def _progress(stage: str, unit: str, total: int | None) -> Iterator[Callable[[int], object]]:
    """A bar on a terminal; elsewhere a plain line every half minute. Yields what counts it on."""
    if sys.stderr.isatty():
        with tqdm(desc=stage, unit=f" {unit}", total=total, leave=False) as bar:
            yield bar.update
        return
    done, shown = 0, time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, shown
        done += count
        if time.monotonic() - shown >= _LINE_EVERY_S:
            logger.info("%s: %d %s so far", stage, done, unit)
            shown = time.monotonic()

    yield advance


def run_tasks(
    function: Any, arguments: Sequence[tuple], *, in_flight: int, stall: Stall | None = None
) -> Iterator[Any]:
    """Run a remote function over arguments, a bounded number in flight; results as they come.

    Raises:
        StalledError: If none came for the time of ``stall``.
    """
    import ray

    patience = stall.timeout_s if stall else None
    waiting = list(reversed(arguments))
    running: set[Any] = set()
    while waiting or running:
        while waiting and len(running) < in_flight:
            running.add(function.remote(*waiting.pop()))
        done, rest = ray.wait(list(running), num_returns=1, timeout=patience)
        if stall and not done:
            raise stall.error("waiting for tasks")
        running = set(rest)
        for reference in done:
            yield ray.get(reference)
