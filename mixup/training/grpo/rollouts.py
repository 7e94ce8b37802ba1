"""The table of rollouts: what was generated at each step, its rewards, and which attempt counts.

Ranks write their rows as files of the table and tell the sink; the driver commits them. When a
trainer worker dies, the run goes on from its last checkpoint with a new attempt, which does some
steps again. Rows of earlier attempts stay, to be looked at, but of each step one attempt counts: a
new attempt takes the place of all earlier ones from its own first step on, since the model that
they went on to train is gone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mixup.commits import Committer, WrittenFile, write_file
from mixup.records import TABLES
from mixup.tables import read_files, snapshot
from mixup.workspace import Workspace

TABLE = "rollouts"


@dataclass(frozen=True)
class RewardPart:
    """A component's outcome for a rollout: a value, or the reason why there is none."""

    component: str
    value: float | None
    reason: str | None = None


@dataclass(frozen=True)
class RolloutRow:
    """One rollout as it is kept.

    Attributes:
        step: The optimizer step that begins with it.
        prompt: The key of the pair that it answers.
        index: Its place in its group.
        version: Of the weights that drew it.
        task: The pair's task.
        question: What was asked, as text.
        text: What was answered.
        tokens: How many tokens that is.
        finish: ``stop`` or ``length``.
        seed: That it was drawn with.
        logprob: Mean log-probability of its tokens by the engine; None where any is missing.
        rewards: Each component's outcome.
        reward: Their weighted mean; None where a component with weight is missing.
        advantage: None where it is left out of the loss.
        reason: Why it is left out.
    """

    step: int
    prompt: str
    index: int
    version: int
    task: str
    question: str
    text: str
    tokens: int
    finish: str
    seed: int
    logprob: float | None
    rewards: Sequence[RewardPart]
    reward: float | None
    advantage: float | None
    reason: str | None


def rollout_table(run: str, attempt: int, rows: Sequence[RolloutRow]) -> pa.Table:
    """Rows of one attempt of a run, as the table has them; a NaN is a value that is missing."""
    documents = [
        {
            **{name: _known(value) for name, value in vars(row).items()},
            "rewards": [
                {"component": one.component, "value": _known(one.value), "reason": one.reason}
                for one in row.rewards
            ],
            "run": run,
            "attempt": attempt,
        }
        for row in rows
    ]
    return pa.Table.from_pylist(documents, schema=TABLES[TABLE].file_schema)


def write_rollouts(
    workspace: Workspace, run: str, attempt: int, rows: Sequence[RolloutRow]
) -> WrittenFile:
    """Write rows as a file of the table, which the driver has yet to commit. Runs in workers."""
    return write_file(workspace, TABLE, rollout_table(run, attempt, rows), None)


class RolloutSink:
    """A Ray actor between the ranks, which write files, and the driver, which commits them."""

    def __init__(self, last_attempt: int) -> None:
        """Made by the driver.

        Args:
            last_attempt: The last attempt of the run in the table (``last_attempt``).
        """
        self._attempt = last_attempt
        self._files: list[WrittenFile] = []
        self._given_out = 0

    def begin(self) -> int:
        """The number of a new attempt. Asked for once, by rank 0, whenever workers start."""
        self._attempt += 1
        return self._attempt

    def add(self, file: WrittenFile) -> None:
        """Take a file that is written."""
        self._files.append(file)

    def drain(self) -> list[WrittenFile]:
        """The files that were not given out yet."""
        found, self._files = self._files, []
        self._given_out += len(found)
        return found

    def settle(self, count: int) -> None:
        """Some of the files that were given out are committed."""
        self._given_out -= count

    def is_settled(self) -> bool:
        """Whether all that was written is committed."""
        return not self._files and not self._given_out


def commit_rollouts(sink: Any, committer: Committer) -> int:
    """Commit what the ranks wrote since the last time; how many rows that is. Runs in the driver.

    Called every few seconds, before a checkpoint is kept (so that no step before it is without its
    rollouts), and at the end.
    """
    import ray

    files: list[WrittenFile] = ray.get(sink.drain.remote())
    committer.add(files)
    committer.commit()
    ray.get(sink.settle.remote(len(files)))
    return sum(file.rows for file in files)


def last_attempt(workspace: Workspace, run: str) -> int:
    """The highest attempt of a run in the table; 0 where there is none."""
    found = _attempts(workspace, run)["attempt"]
    return pc.max(found).as_py() or 0


def counting_attempts(pairs: Iterable[tuple[int, int]]) -> dict[int, int]:
    """The attempt that counts, by step.

    Args:
        pairs: The (step, attempt) of each row; repeated as may be.

    Returns:
        For each step the last attempt that began at or before it, where that attempt has done it.
        A step that it has not reached (yet) has none, whatever earlier attempts did there.
    """
    done = set(pairs)
    first: dict[int, int] = {}
    for step, attempt in done:
        first[attempt] = min(step, first.get(attempt, step))
    holders = {
        step: max(attempt for attempt, start in first.items() if start <= step)
        for step in {step for step, _ in done}
    }
    return {step: holders[step] for step in sorted(holders) if (step, holders[step]) in done}


def counting_rollouts(
    workspace: Workspace, run: str, columns: Sequence[str] | None = None
) -> pa.Table:
    """The rows of a run that count, one attempt for each step."""
    found = _attempts(workspace, run)
    pairs = zip(found["step"].to_pylist(), found["attempt"].to_pylist(), strict=True)
    holders = counting_attempts(pairs)
    wanted = list(columns or TABLES[TABLE].file_schema.names)
    needed = list(dict.fromkeys([*wanted, "run", "step", "attempt"]))
    rows = read_files(workspace, TABLE, snapshot(workspace, TABLE).paths, needed)
    rows = rows.filter(pc.equal(rows["run"], run))
    return rows.filter(_held(rows, holders)).select(wanted)


def _attempts(workspace: Workspace, run: str) -> pa.Table:
    paths = snapshot(workspace, TABLE).paths
    rows = read_files(workspace, TABLE, paths, ["run", "step", "attempt"])
    return rows.filter(pc.equal(rows["run"], run))


def _held(rows: pa.Table, holders: Mapping[int, int]) -> pa.Array:
    steps, attempts = rows["step"].to_pylist(), rows["attempt"].to_pylist()
    return pa.array(
        [holders.get(step) == attempt for step, attempt in zip(steps, attempts, strict=True)],
        pa.bool_(),
    )


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
