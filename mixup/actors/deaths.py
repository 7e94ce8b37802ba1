"""Deaths of actors: a row that kills its process is found and given up, and costs no other row.

Ray restarts an actor that died and sends it its calls again. What it was working on when it died is
in a file on its node, written before the work starts. Its successor reads it and tries those rows
again in ever smaller portions: all together, then some, then each alone. A row that was present at
``MAX_DEATHS`` deaths is given up.
"""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

from mixup.errors import EngineDied, ModelError

logger = logging.getLogger(__name__)

MAX_DEATHS = 3
MAX_IN_A_ROW = 8
"""Deaths without a finished row in between after which it is not the rows that are at fault."""

CRASHED = "crashed"
"""The reason of a row that was present at ``MAX_DEATHS`` deaths of its actor."""

_EXIT = 70
_Result = TypeVar("_Result")


def portions(deaths: Sequence[int]) -> list[list[int]]:
    """The portions in which rows are tried, as places in the sequence.

    Fresh rows go together; those of one death in groups of the square root of their number; those
    of two alone; those of more are in none.

    Args:
        deaths: For each row the deaths at which it was present.
    """
    fresh = [place for place, count in enumerate(deaths) if count == 0]
    once = [place for place, count in enumerate(deaths) if count == 1]
    twice = [place for place, count in enumerate(deaths) if 1 < count < MAX_DEATHS]
    size = max(1, math.isqrt(len(once)))
    groups = [once[start : start + size] for start in range(0, len(once), size)]
    return [*([fresh] if fresh else []), *groups, *([place] for place in twice)]


class Guard:
    """Runs the work of one actor, and knows what its predecessors died of.

    Calls may come from several threads. After a death they work one at a time, so that a row is
    held to account for its own deaths only.
    """

    def __init__(self, what: str, record: Path) -> None:
        """Reads what the actor's predecessor left.

        Args:
            what: The actor's name, for messages.
            record: The file in which this actor and its successors keep what they work on.

        Raises:
            ModelError: If it died ``MAX_IN_A_ROW`` times without finishing a row in between.
        """
        self._what, self._path = what, record
        self._mutex, self._alone = threading.Lock(), threading.Lock()
        self._running: dict[int, list[str]] = {}
        self._calls = 0
        self._deaths, self._in_a_row = _predecessor(record)
        if self._in_a_row >= MAX_IN_A_ROW:
            raise ModelError(
                f"{what} died {self._in_a_row} times without finishing a row in between; look for "
                "the cause in its log, it is not a single row"
            )
        if self._in_a_row:
            logger.warning("%s died; %d row(s) are tried again", what, len(self._deaths))

    @classmethod
    def of_actor(cls, what: str) -> Guard:
        """The guard of the Ray actor that this process is."""
        import ray

        name = ray.get_runtime_context().get_actor_id()
        return cls(what, _folder() / f"{name}.json")

    def run(
        self, keys: Sequence[str], work: Callable[[list[int]], Sequence[_Result]]
    ) -> list[_Result | None]:
        """The results of all rows, in their order; None for a row that is given up.

        A failed engine ends the process, so that Ray replaces it.

        Args:
            keys: The rows' keys.
            work: Takes the places of some rows and returns their results in order.
        """
        found: list[_Result | None] = [None] * len(keys)
        with self._alone if self._deaths else nullcontext():
            for portion in portions([self._deaths[key] for key in keys]):
                call = self._begin([keys[place] for place in portion])
                try:
                    results = work(portion)
                except EngineDied:
                    traceback.print_exc()
                    os._exit(_EXIT)
                self._end(call)
                for place, result in zip(portion, results, strict=True):
                    found[place] = result
        return found

    def _begin(self, keys: list[str]) -> int:
        with self._mutex:
            self._calls += 1
            self._running[self._calls] = keys
            self._save()
            return self._calls

    def _end(self, call: int) -> None:
        with self._mutex:
            del self._running[call]
            self._in_a_row = 0

    def _save(self) -> None:
        document = {
            "deaths": dict(self._deaths),
            "running": list(self._running.values()),
            "in_a_row": self._in_a_row,
        }
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        staged = self._path.with_suffix(".tmp")
        staged.write_text(json.dumps(document))
        staged.replace(self._path)


def _predecessor(record: Path) -> tuple[Counter[str], int]:
    """The deaths by key, that of the predecessor included, and how many came in a row."""
    try:
        document: Mapping = json.loads(record.read_text())
    except FileNotFoundError:
        return Counter(), 0
    deaths = Counter(document["deaths"])
    deaths.update(key for keys in document["running"] for key in keys)
    return deaths, document["in_a_row"] + 1


def _folder() -> Path:
    """Where the actors of a node keep their records: in Ray's folder of the session."""
    from ray._private import worker

    node = worker._global_node
    root = Path(node.get_session_dir_path()) if node else Path(tempfile.gettempdir())
    return root / f"mixup-deaths-{os.getuid()}"
