"""What a judge said of records, as rows of the ratings table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from mixup.commits import write_by_bucket
from mixup.cover import is_retryable
from mixup.errors import RecordError
from mixup.quality.transition import compress
from mixup.records import TABLES
from mixup.stages.manifests import Manifest
from mixup.stages.run import OUTSTANDING
from mixup.text.judging import Judgment, parse_judgment
from mixup.workspace import Workspace

SOURCE = "judge"


@dataclass(frozen=True)
class Outcome:
    """What came of asking the judge about a record.

    Attributes:
        uid: The record.
        judgment: The four integers, or None.
        reason: Why there are none, or None.
        attempts: How often it was tried, this time included.
        truncated: Whether the judge saw its beginning only.
    """

    uid: str
    judgment: Judgment | None
    reason: str | None
    attempts: int
    truncated: bool


def read_answer(answer: str) -> tuple[Judgment | None, str | None]:
    """The judgment in an answer, or the reason why there is none."""
    try:
        return parse_judgment(answer), None
    except RecordError as error:
        return None, error.reason


def write_outcomes(
    workspace: Workspace, revision: str, outcomes: Sequence[Outcome], used: Mapping[str, int]
) -> Manifest:
    """Write outcomes to the ratings table's folder, and count them; runs in a worker.

    Args:
        workspace: The workspace.
        revision: The judge's revision.
        outcomes: One for each record.
        used: What they took, such as ``requests``; goes into the counts.
    """
    rows = _rows(outcomes, revision)
    counts = Counter(used)
    counts.update(outcome.reason or "rated" for outcome in outcomes)
    counts.update(
        {
            "rows": len(outcomes),
            "truncated": sum(outcome.truncated for outcome in outcomes),
            OUTSTANDING: sum(is_retryable(rows).to_pylist()),
        }
    )
    return Manifest(write_by_bucket(workspace, "ratings", rows), counts=counts)


def _rows(outcomes: Sequence[Outcome], revision: str) -> pa.Table:
    rows = [
        {
            "uid": outcome.uid,
            "rater": revision,
            **_marks(outcome.judgment),
            "reason": outcome.reason,
            "attempts": outcome.attempts,
        }
        for outcome in outcomes
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["ratings"].file_schema)


def _marks(found: Judgment | None) -> dict[str, float | int | str]:
    """The columns of a rating; all of them null where there is none."""
    if found is None:
        return {}
    return {
        "rarity": float(found.rarity),
        "complexity": float(found.complexity),
        "informativeness": float(found.informativeness),
        "overall": float(found.overall),
        "rating": compress(found.overall),
        "source": SOURCE,
    }
