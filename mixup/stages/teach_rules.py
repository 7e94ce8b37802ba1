"""Teach by rules: segments → candidates, without a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from mixup.errors import LedgerError
from mixup.ledger import StageCounts
from mixup.mixture.cut import items_of
from mixup.mixture.pairs import rules_revision
from mixup.records import content_key
from mixup.stages.candidates import (
    MADE,
    Teaching,
    Wanted,
    candidate_row,
    candidate_table,
    wanted_items,
)
from mixup.stages.compact import compact
from mixup.stages.manifests import Manifest, commit_stream
from mixup.stages.run import RunContext, StageState, Stopwatch
from mixup.stages.writing import Output
from mixup.tables import changed_buckets

_BLOCK_ROWS = 2048


def rules_teacher(seed: int) -> str:
    """The revision of the teacher that needs no model: its rules and the seed of their draws."""
    return content_key("rules", rules_revision(), seed)


def teach_by_rules(context: RunContext, state: StageState, work: Teaching) -> StageCounts:
    """Cut items from the segments that have none yet.

    Raises:
        LedgerError: If a wanted item was neither made nor has a reason.
    """
    watch = Stopwatch()
    since = state.consumed("segments")
    buckets = changed_buckets(context.workspace, work.tables["segments"], since)
    totals = commit_stream(
        context.each(cut_bucket, work, [(bucket,) for bucket in buckets]),
        context.committer("candidates"),
        stage="teach",
        unit="rows",
    )
    reasons = [name for name in totals if name not in (MADE, "rows")]
    counts = StageCounts(
        stage="teach",
        unit="items",
        rows_in=totals["rows"],
        parts={MADE: totals[MADE], **{name: totals[name] for name in sorted(reasons)}},
        seconds=watch.seconds,
    ).check()
    compact(context, "candidates")
    completion = state.completion(context.run, dict(counts.parts))
    context.committer("candidates").complete("candidates", completion)
    return counts.log()


def cut_bucket(work: Teaching, bucket: int) -> Manifest:
    """The outcomes of one bucket's segments that lack one; runs in a worker."""
    output = Output(work.workspace, "candidates", bucket)
    counts: Counter[str] = Counter()
    block: list[dict[str, Any]] = []
    for row in _outcomes(work, bucket):
        counts.update(["rows", row["reason"] or MADE])
        block.append(row)
        if len(block) == _BLOCK_ROWS:
            output.add(candidate_table(block))
            block = []
    output.add(candidate_table(block))
    return Manifest(output.flush(), counts=counts)


def _outcomes(work: Teaching, bucket: int) -> Iterator[dict[str, Any]]:
    by_segment = groupby(wanted_items(work, bucket), key=lambda wanted: wanted.segment)
    for segment, found in by_segment:
        wanted: dict[str, Wanted] = {one.task: one for one in found}
        for made in items_of(segment, seed=work.seed, tasks=list(wanted)):
            one = wanted.pop(made.task)
            yield candidate_row(one, work.teacher, made.item, rule=made.rule, reason=made.reason)
        if wanted:
            raise LedgerError(f"segment {segment.key}: no outcome for {', '.join(sorted(wanted))}")
