"""Distill and reward, one stream: clusters → engine actors → reward actors → samples, rewards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

import pyarrow as pa

from mixup.actors.resources import check_demand
from mixup.actors.rewards import RewardPools
from mixup.ledger import StageCounts
from mixup.refresh_config import RewardConfig
from mixup.stages.compact import compact
from mixup.stages.cover import TASK_CPUS, cover_buckets
from mixup.stages.distill_engine import (
    DistillerEngine,
    engine_demand,
    engine_pool,
    parse_and_score,
)
from mixup.stages.manifests import Span, commit_stream, run_tasks
from mixup.stages.reward import reward_state
from mixup.stages.run import RunContext, StageState, Stopwatch, stage_state
from mixup.stages.undistilled import WANTED, Distiller, Undistilled, clusters_in_scope
from mixup.stages.verdicts import Judge
from mixup.tables import snapshot


def distill_state(context: RunContext, distiller: Distiller, judge: Judge) -> StageState:
    """Whether every cluster has its samples, or an accepted distillation that is kept."""
    config = distiller.config
    scope = [config.samples, config.structured, config.keep, config.max_clusters]
    return stage_state(
        context.workspace,
        "distill",
        "samples",
        inputs=["clusters"],
        decides=[distiller.decides(), scope, judge.decides()],
    )


def distill(
    context: RunContext,
    distiller: Distiller,
    judge: Judge,
    reward: RewardConfig,
    pools: RewardPools,
) -> StageCounts:
    """Sample and score every cluster that needs it; both tables are committed as it goes.

    Raises:
        ResourceError: If the cluster cannot hold the actors.
    """
    watch = Stopwatch()
    check_demand([engine_demand(distiller.config), *RewardPools.demands(reward)])
    state = distill_state(context, distiller, judge)
    work = _work(context, distiller, judge)
    lacking = _lacking(work, work.tables["clusters"].buckets)
    engines = engine_pool(distiller)
    missing = partial(_missing_samples, work=work, block_rows=engines.batch_rows)
    write = partial(
        parse_and_score,
        workspace=context.workspace,
        distiller=distiller.revision,
        pools=pools,
        revisions=judge.revisions,
    )
    spans: list[Span] = []
    totals = commit_stream(
        cover_buckets(list(lacking), missing, engines, write),
        context.committer("samples", "rewards"),
        stage="distill",
        unit="samples",
        total=sum(lacking.values()),
        spans=spans,
        stall=context.stall(DistillerEngine.__name__),
    )
    context.workspace.write_json(f"runs/{context.run}/spans.json", spans)
    return _finish(context, judge, state, totals, watch)


def _work(context: RunContext, distiller: Distiller, judge: Judge) -> Undistilled:
    import ray

    workspace, limit, scope = context.workspace, distiller.config.max_clusters, None
    tables = {name: snapshot(workspace, name) for name in ("clusters", "samples", "rewards")}
    if limit is not None:
        task = ray.remote(num_cpus=TASK_CPUS)(clusters_in_scope)
        scope = ray.get(task.remote(workspace, tables["clusters"], limit))
    return Undistilled(workspace, tables, distiller, judge, scope)


def _lacking(work: Undistilled, buckets: Sequence[int]) -> dict[int, int]:
    """How many samples each bucket lacks, where any: without one no engine need be started."""
    import ray

    task, place = ray.remote(num_cpus=TASK_CPUS)(_count_missing), ray.put(work)
    calls = [(place, bucket) for bucket in buckets]
    counts = dict(run_tasks(task, calls, in_flight=len(calls) or 1))
    return {bucket: counts[bucket] for bucket in sorted(counts) if counts[bucket]}


def _count_missing(work: Undistilled, bucket: int) -> tuple[int, int]:
    return bucket, len(work.samples(bucket))


def _missing_samples(batch: pa.Table, work: Undistilled, block_rows: int) -> Iterator[pa.Table]:
    """The samples that one bucket lacks, with their prompts, in blocks; runs in a worker."""
    yield WANTED.empty_table()
    for bucket in batch["bucket"].to_pylist():
        missing = work.samples(bucket)
        for start in range(0, len(missing), block_rows):
            rows = [work.with_prompt(row) for row in missing[start : start + block_rows]]
            yield pa.Table.from_pylist(rows, schema=WANTED)


def _finish(
    context: RunContext, judge: Judge, state: StageState, totals: Counter[str], watch: Stopwatch
) -> StageCounts:
    rejects = {name: n for name, n in totals.items() if name.startswith("rejected:")}
    counts = StageCounts(
        stage="distill",
        unit="samples",
        rows_in=totals["samples"],
        parts={"parsed": totals["parsed"], **dict(sorted(rejects.items()))},
        seconds=watch.seconds,
        extra={name: totals[name] for name in ("tokens", "clusters", "scores", "unscored")},
    ).check()
    record = {**counts.parts, **counts.extra}
    compact(context, "samples", "rewards")
    committer = context.committer("samples", "rewards")
    committer.complete("samples", state.completion(context.run, record))
    rewards = reward_state(context, judge)
    committer.complete("rewards", rewards.completion(context.run, record))
    return counts.log()
