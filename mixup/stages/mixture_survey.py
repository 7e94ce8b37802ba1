"""What the report of a mixture counts and shows, gathered bucket by bucket from the tables."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc

from mixup.mixture.splits import SPLITS
from mixup.records import content_key
from mixup.report.mixture_digest import LENGTH_STEP, PairExample
from mixup.stages.candidates import MADE
from mixup.stages.leaks import NEAR_OTHER_SPLIT, leaked_pairs
from mixup.tables import Snapshot, scan_files
from mixup.workspace import Workspace

EXAMPLES = 2
"""Examples of each task and plan."""
NEIGHBOR_ROW = "row_of_the_pool"
"""What stands for the degradations of a variant that is a low-rated row of the pool."""
_COUNTED = (
    *("pair", "task", "split", "plan", "rule", "rating", "rating_source", "licence", "cot"),
    *("keeps_facts", "degradations", "variant_ratings", "tokens", "input", "output"),
)


@dataclass
class MixtureSurvey:
    """Counts of some buckets; those of several add up.

    Attributes:
        pairs: Pairs by (task, split).
        fates: Rows by ``paired`` or the reason.
        made: Candidates by (task, ``made`` or the reason).
        classes: Variants by (degradation, class).
        variants: Variants by degradation.
        by: Pairs by the value of a column, such as (``plan``, its value).
        examples: The examples of each (task, plan), those with the least rank.
    """

    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    fates: Counter[str] = field(default_factory=Counter)
    made: Counter[tuple[str, str]] = field(default_factory=Counter)
    classes: Counter[tuple[str, str]] = field(default_factory=Counter)
    by: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], list[tuple[str, PairExample]]] = field(default_factory=dict)

    def add(self, other: MixtureSurvey) -> None:
        """Take the counts and examples of other buckets."""
        for name in ("pairs", "fates", "made", "classes", "by"):
            getattr(self, name).update(getattr(other, name))
        for stratum, found in other.examples.items():
            both = [*self.examples.get(stratum, []), *found]
            self.examples[stratum] = heapq.nsmallest(EXAMPLES, both, key=_rank)

    def of(self, column: str) -> dict[str, int]:
        """Pairs by the value of a column, the most frequent first."""
        found = [(value, n) for (name, value), n in self.by.items() if name == column]
        return dict(sorted(found, key=lambda one: (-one[1], one[0])))


def _rank(found: tuple[str, PairExample]) -> str:
    return found[0]


@dataclass(frozen=True)
class Surveyed:
    """What the tasks share.

    Attributes:
        workspace: The workspace.
        tables: Snapshots of ``mixture``, ``leaks``, ``targets`` and, with a teacher,
            ``candidates``.
        teacher: The teacher's revision.
        tasks: The task types.
    """

    workspace: Workspace
    tables: Mapping[str, Snapshot]
    teacher: str
    tasks: Sequence[str]


def survey_bucket(shared: Surveyed, bucket: int) -> MixtureSurvey:
    """Count one bucket of each table; runs in a worker."""
    survey = MixtureSurvey()
    paths = {name: found.in_bucket(bucket) for name, found in shared.tables.items()}
    leaked = leaked_pairs(shared.workspace, shared.tables["leaks"])
    for part in scan_files(shared.workspace, "mixture", paths["mixture"], _COUNTED):
        for row in part.to_pylist():
            if row["pair"] not in leaked:
                _count_pair(survey, row)
    for part in scan_files(shared.workspace, "targets", paths["targets"], ["pair", "reason"]):
        for pair, reason in zip(part["pair"].to_pylist(), part["reason"].to_pylist(), strict=True):
            fate = reason or "paired"
            survey.fates[NEAR_OTHER_SPLIT if pair in leaked else fate] += 1
    columns = ["teacher", "task", "reason"]
    for part in scan_files(shared.workspace, "candidates", paths["candidates"], columns):
        mine = part.filter(pc.equal(part["teacher"], shared.teacher))
        for task, reason in zip(mine["task"].to_pylist(), mine["reason"].to_pylist(), strict=True):
            survey.made[(task, reason or MADE)] += 1
    return survey


def _count_pair(survey: MixtureSurvey, row: Mapping[str, Any]) -> None:
    survey.pairs[(row["task"], row["split"])] += 1
    low = row["tokens"] // LENGTH_STEP * LENGTH_STEP
    values = {
        **{name: row[name] for name in ("plan", "rule", "rating_source", "licence")},
        "size": str(len(row["variant_ratings"])),
        "length": f"{low} to {low + LENGTH_STEP}",
        "thought": "yes" if row["cot"] else "no",
        "keeps_facts": "yes" if row["keeps_facts"] else "no",
    }
    survey.by.update((name, value or "") for name, value in values.items())
    for names, rating in zip(row["degradations"], row["variant_ratings"], strict=True):
        survey.classes.update((name, str(rating)) for name in set(names) or {NEIGHBOR_ROW})
    stratum, ranked = (row["task"], row["plan"]), (content_key("example", row["pair"]), _shown(row))
    both = [*survey.examples.get(stratum, []), ranked]
    survey.examples[stratum] = heapq.nsmallest(EXAMPLES, both, key=_rank)


def _shown(row: Mapping[str, Any]) -> PairExample:
    return PairExample(
        **{name: row[name] for name in ("pair", "task", "split", "plan", "rule", "rating")},
        rating_source=row["rating_source"],
        input=row["input"],
        output=row["output"],
        thought=row["cot"],
        degradations=tuple(tuple(names) for names in row["degradations"]),
        ratings=tuple(row["variant_ratings"]),
    )


def pairs_by_task(survey: MixtureSurvey, tasks: Sequence[str]) -> dict[str, dict[str, int]]:
    """Pairs by task and split, every task and split named."""
    return {task: {split: survey.pairs[(task, split)] for split in SPLITS} for task in tasks}
