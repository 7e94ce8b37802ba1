"""What a teacher model answered, as rows of the candidates table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mixup.commits import write_by_bucket
from mixup.cover import is_retryable
from mixup.errors import RecordError
from mixup.ledger import StageCounts
from mixup.mixture.items import Item
from mixup.mixture.teaching import read_item
from mixup.stages.asking import USED, WAITING
from mixup.stages.candidates import MADE, Wanted, candidate_row, candidate_table
from mixup.stages.compact import compact
from mixup.stages.manifests import Manifest
from mixup.stages.run import OUTSTANDING, RunContext, StageState, Stopwatch
from mixup.workspace import Workspace

RULE = "teacher"


@dataclass(frozen=True)
class Taught:
    """What came of asking for an item.

    Attributes:
        wanted: What was asked for.
        item: The item, or None.
        reason: Why there is none, or None.
    """

    wanted: Wanted
    item: Item | None
    reason: str | None


def taught(wanted: Wanted, text: str | None, reason: str | None) -> Taught:
    """The item in an answer, or the reason why there is none."""
    if text is None:
        return Taught(wanted, None, reason)
    try:
        return Taught(wanted, read_item(text, wanted.segment, wanted.task), None)
    except RecordError as error:
        return Taught(wanted, None, error.reason)


def write_taught(
    workspace: Workspace, teacher: str, found: Sequence[Taught], used: Mapping[str, int]
) -> Manifest:
    """Write outcomes to the candidates table's folder, and count them; runs in a worker.

    Args:
        workspace: The workspace.
        teacher: The teacher's revision.
        found: One for each item that was asked for.
        used: What they took, such as ``requests``; goes into the counts.
    """
    rows: list[dict[str, Any]] = [
        candidate_row(one.wanted, teacher, one.item, rule=RULE, reason=one.reason) for one in found
    ]
    table = candidate_table(rows)
    counts = Counter(used)
    counts.update(one.reason or MADE for one in found)
    counts.update({"rows": len(found), OUTSTANDING: sum(is_retryable(table).to_pylist())})
    return Manifest(write_by_bucket(workspace, "candidates", table), counts=counts)


def finish_teaching(
    context: RunContext,
    state: StageState,
    wanted: int,
    totals: Counter[str],
    defects: Sequence[str],
    watch: Stopwatch,
) -> StageCounts:
    """Check the sums of a teacher's stage, and record that it is done.

    Args:
        context: The run.
        state: The stage's state.
        wanted: The items that were to be made.
        totals: The counts of all outcomes, and of what they took.
        defects: The reasons that count as dropped.
        watch: Runs since the stage began.

    Raises:
        LedgerError: If an item is in no part.
    """
    others = {"rows", MADE, OUTSTANDING, *USED}
    reasons = sorted(name for name in totals if name not in others)
    waiting = wanted - totals["rows"]
    counts = StageCounts(
        stage="teach",
        unit="items",
        rows_in=wanted,
        parts={
            MADE: totals[MADE],
            **{name: totals[name] for name in reasons},
            **({WAITING: waiting} if waiting else {}),
        },
        dropped=tuple(name for name in reasons if name in defects),
        seconds=watch.seconds,
        extra={
            **{name: totals[name] for name in USED if totals[name]},
            OUTSTANDING: waiting + totals[OUTSTANDING],
        },
    ).check()
    compact(context, "candidates")
    record = {**counts.parts, **counts.extra}
    context.committer("candidates").complete("candidates", state.completion(context.run, record))
    return counts.log()
