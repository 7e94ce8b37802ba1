"""Rate: the ratings that came with the data → ratings, one outcome row per record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from mixup.commits import write_file
from mixup.ledger import StageCounts
from mixup.quality.transition import compress
from mixup.rater_config import RatedField
from mixup.records import content_key
from mixup.stages.compact import compact
from mixup.stages.cover import TASK_CPUS
from mixup.stages.manifests import Manifest, commit_stream, run_tasks
from mixup.stages.pool import pool_by_age
from mixup.stages.run import RunContext, StageState, Stopwatch, stage_state
from mixup.tables import Snapshot, changed_buckets, read_files, snapshot
from mixup.workspace import Workspace

UNRATED = "unrated"
BAD_RATING = "bad_rating"
_IN_FLIGHT = 32


def rater_revision(rater: RatedField) -> str:
    """What decides an observed rating: the field and how its values are read."""
    return content_key("column", rater.field, rater.scale, rater.classes)


def rate_state(context: RunContext, rater: RatedField) -> StageState:
    """Whether every record has a rating outcome."""
    return stage_state(
        context.workspace,
        "rate",
        "ratings",
        inputs=["occurrences"],
        decides=[rater_revision(rater), context.pool_key],
    )


def rate(context: RunContext, rater: RatedField) -> StageCounts:
    """Read the ratings of the pool's records from the rows they came in.

    A record stays ``unrated``, with null in place of a rating, when no row of it has one; of
    several, the row that came last decides. An outcome that is another today, because a row came or
    a file left the pool, is replaced.
    """
    import ray

    watch = Stopwatch()
    workspace = context.workspace
    state = rate_state(context, rater)
    tables = {name: snapshot(workspace, name) for name in ("files", "occurrences", "ratings")}
    buckets = changed_buckets(workspace, tables["occurrences"], state.consumed("occurrences"))
    task = ray.remote(num_cpus=TASK_CPUS)(_rate_bucket)
    totals = commit_stream(
        run_tasks(
            task,
            [(workspace, tables, bucket, context.pool, rater) for bucket in buckets],
            in_flight=_IN_FLIGHT,
        ),
        context.committer("ratings"),
        stage="rate",
        unit="rows",
    )
    counts = StageCounts(
        stage="rate",
        unit="records",
        rows_in=totals["rows"],
        parts={name: totals[name] for name in ("rated", UNRATED, BAD_RATING)},
        dropped=(BAD_RATING,),
        seconds=watch.seconds,
    ).check()
    compact(context, "ratings")
    context.committer("ratings").complete("ratings", state.completion(context.run, counts.parts))
    return counts.log()


def _rate_bucket(
    workspace: Workspace,
    tables: Mapping[str, Snapshot],
    bucket: int,
    pool: Sequence[str],
    rater: RatedField,
) -> Manifest:
    """The new rating outcomes of one bucket; runs in a worker."""
    revision = rater_revision(rater)
    rows = pool_by_age(workspace, tables, bucket, pool)
    found: dict[str, tuple[float | None, str | None]] = {}
    for uid, extra in zip(rows["uid"].to_pylist(), rows["extra"].to_pylist(), strict=True):
        overall, reason = observed_rating(extra, rater)
        if uid not in found or overall is not None or found[uid][0] is None:
            found[uid] = (overall, reason)
    paths = tables["ratings"].in_bucket(bucket)
    held = read_files(workspace, "ratings", paths)
    known = {
        row["uid"]: (row["overall"], row["reason"])
        for row in held.select(["uid", "rater", "overall", "reason"]).to_pylist()
        if row["rater"] == revision
    }
    new = {
        uid: outcome
        for uid, outcome in found.items()
        if uid not in known or not _same(known[uid], outcome)
    }
    if not new:
        return Manifest()
    written = _rating_rows(new, revision)
    replaced = [uid for uid in new if uid in known]
    removed: dict[str, Sequence[str]] = {}
    if replaced:
        kept = [
            not (uid in new and rater == revision)
            for uid, rater in zip(held["uid"].to_pylist(), held["rater"].to_pylist(), strict=True)
        ]
        written = pa.concat_tables([held.filter(pa.array(kept)), written])
        removed = {"ratings": paths}
    counts = {"rows": len(new), "rated": 0, UNRATED: 0, BAD_RATING: 0}
    for _, reason in new.values():
        counts[reason or "rated"] += 1
    return Manifest([write_file(workspace, "ratings", written, bucket)], removed, counts)


def _same(held: tuple[float | None, str | None], found: tuple[float | None, str | None]) -> bool:
    """Whether two outcomes are one; the table holds ratings in single precision."""
    if held[0] is None or found[0] is None:
        return held == found
    return bool(np.float32(held[0]) == np.float32(found[0]))


def _rating_rows(
    outcomes: Mapping[str, tuple[float | None, str | None]], revision: str
) -> pa.Table:
    overall = [value for value, _ in outcomes.values()]
    count = len(outcomes)
    blank = pa.nulls(count, pa.float32())
    return pa.table(
        {
            "uid": list(outcomes),
            "rater": [revision] * count,
            "rarity": blank,
            "complexity": blank,
            "informativeness": blank,
            "overall": pa.array(overall, pa.float32()),
            "rating": pa.array([None if v is None else compress(v) for v in overall], pa.int8()),
            "source": pa.array([None if v is None else "column" for v in overall], pa.string()),
            "reason": pa.array([reason for _, reason in outcomes.values()], pa.string()),
            "attempts": pa.array([1] * count, pa.int32()),
        }
    )


def observed_rating(extra: str, rater: RatedField) -> tuple[float | None, str | None]:
    """The overall rating 1-10 in a row's extra fields, or the reason why there is none.

    Args:
        extra: The row's other fields, as JSON.
        rater: The field and how it is read. A label's class 0-5 stands for the lowest overall
            rating that compresses to it (1 and 5 to 9).
    """
    value = json.loads(extra).get(rater.field)
    if value is None:
        return None, UNRATED
    if rater.classes is not None:
        label = json.dumps(value) if isinstance(value, bool) else str(value)
        rating = rater.classes.get(label)
        return (None, BAD_RATING) if rating is None else (_lowest_overall(rating), None)
    if rater.scale is None or isinstance(value, bool):
        return None, BAD_RATING
    try:
        number = float(value)
    except ValueError:
        return None, BAD_RATING
    low, high = rater.scale
    if not low <= number <= high:
        return None, BAD_RATING
    return 1.0 + 9.0 * (number - low) / (high - low), None


def _lowest_overall(rating: int) -> float:
    return 1.0 if rating == 0 else 4.0 + rating
