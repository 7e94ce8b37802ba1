"""Distill and reward, one stream: clusters → engine actors → reward actors → samples, rewards."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from mixup.actors.deaths import CRASHED, Guard
from mixup.actors.resources import Demand, check_demand
from mixup.actors.rewards import RewardPools
from mixup.commits import write_by_bucket
from mixup.cover import uncovered
from mixup.errors import RecordError
from mixup.ledger import StageCounts
from mixup.models.chat import PROMPT_TOO_LONG, render_chat
from mixup.models.generator import CALLS, Generation, GenerationRequest, VllmGenerator
from mixup.records import TABLES, content_key
from mixup.refresh_config import DistillConfig, RewardConfig
from mixup.stages.compact import compact
from mixup.stages.cover import TASK_CPUS, ActorPool, cover_buckets
from mixup.stages.reward import reward_state, score_samples
from mixup.stages.run import (
    Manifest,
    RunContext,
    Span,
    StageState,
    Stopwatch,
    commit_stream,
    run_tasks,
    stage_state,
)
from mixup.stages.verdicts import Judge
from mixup.tables import Snapshot, read_files, snapshot
from mixup.text.parse import parse_distilled
from mixup.text.prompts import answer_pattern, build_messages, prompt_revision
from mixup.workspace import Workspace

_WANTED = pa.schema(
    [
        ("sample", pa.string()),
        ("cluster", pa.string()),
        ("task", pa.string()),
        ("inputs", pa.list_(pa.string())),
        ("index", pa.int32()),
        ("constrained", pa.bool_()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("reason", pa.string()),
        ("attempts", pa.int32()),
    ]
)
_GENERATED = pa.schema(
    [
        *[field for field in _WANTED if field.name != "prompt_ids"],
        ("text", pa.string()),
        ("logprob", pa.float32()),
        ("tokens", pa.int32()),
        ("finish", pa.string()),
        ("started", pa.float64()),
        ("ended", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Distiller:
    """The distiller of a run and how it samples.

    Attributes:
        config: The settings.
        revision: The model's revision.
        seed: The run's seed.
    """

    config: DistillConfig
    revision: str
    seed: int

    def is_constrained(self, index: int) -> bool:
        """Whether the sample of an index is generated under the task's pattern."""
        return self.config.structured == "all" or (
            self.config.structured == "all_but_first" and index > 0
        )

    def sample_key(self, cluster: str, index: int) -> str:
        """The key of a sample: all that its text depends on. Raising n only adds keys."""
        return content_key("sample", cluster, index, self.is_constrained(index), self.decides())

    def decides(self) -> list[Any]:
        """JSON data that decides the text of every sample."""
        config = self.config
        sampling = [config.temperature, config.top_p, config.max_tokens, config.context_tokens]
        return [self.revision, prompt_revision(), sampling, self.seed]

    def prompt_budget(self) -> int:
        """The longest prompt in tokens."""
        return self.config.context_tokens - self.config.max_tokens


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
    import ray

    watch = Stopwatch()
    workspace, config = context.workspace, distiller.config
    check_demand([engine_demand(config), *RewardPools.demands(reward)])
    state = distill_state(context, distiller, judge)
    tables = {name: snapshot(workspace, name) for name in ("clusters", "samples", "rewards")}
    scope = None
    if config.max_clusters is not None:
        task = ray.remote(num_cpus=TASK_CPUS)(clusters_in_scope)
        scope = ray.get(task.remote(workspace, tables["clusters"], config.max_clusters))
    lacking = _lacking(tables["clusters"].buckets, (workspace, tables, distiller, judge, scope))
    batch_rows = config.batch_clusters * config.samples
    missing = partial(
        _missing_samples,
        workspace=workspace,
        tables=tables,
        distiller=distiller,
        judge=judge,
        scope=scope,
        block_rows=batch_rows,
    )
    engines = ActorPool(
        actor=_EngineActor,
        arguments=(distiller,),
        size=config.engines,
        batch_rows=batch_rows,
        cpus=config.engine_cpus,
        gpus=config.engine_gpus,
        calls=CALLS,
    )
    write = partial(
        _parse_and_score,
        workspace=workspace,
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
        stall=context.stall(_EngineActor.__name__),
    )
    context.workspace.write_json(f"runs/{context.run}/spans.json", spans)
    return _finish(context, judge, state, totals, watch)


def _lacking(buckets: Sequence[int], shared: tuple) -> dict[int, int]:
    """How many samples each bucket lacks, where any: without one no engine need be started."""
    import ray

    task, place = ray.remote(num_cpus=TASK_CPUS)(_count_wanted), ray.put(shared)
    calls = [(place, bucket) for bucket in buckets]
    counts = dict(run_tasks(task, calls, in_flight=len(calls) or 1))
    return {bucket: counts[bucket] for bucket in sorted(counts) if counts[bucket]}


def _count_wanted(shared: tuple, bucket: int) -> tuple[int, int]:
    workspace, tables, distiller, judge, scope = shared
    return bucket, len(_wanted(workspace, tables, distiller, judge, scope, bucket))


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


def engine_demand(config: DistillConfig) -> Demand:
    """What the engines ask of the cluster."""
    return Demand("vLLM engines", config.engines, config.engine_cpus, config.engine_gpus)


def clusters_in_scope(workspace: Workspace, clusters: Snapshot, limit: int) -> list[str]:
    """The keys of at most ``limit`` clusters: of each task in turn the most cohesive one left."""
    rows = read_files(workspace, "clusters", clusters.paths, ["cluster", "task", "cohesion"])
    ranked: dict[str, list[tuple[float, str]]] = {}
    for row in rows.to_pylist():
        ranked.setdefault(row["task"], []).append((-row["cohesion"], row["cluster"]))
    turns = [
        (place, task, key)
        for task, found in ranked.items()
        for place, (_, key) in enumerate(sorted(found))
    ]
    return [key for _, _, key in sorted(turns)[:limit]]


def _missing_samples(
    batch: pa.Table,
    workspace: Workspace,
    tables: Mapping[str, Snapshot],
    distiller: Distiller,
    judge: Judge,
    scope: Sequence[str] | None,
    block_rows: int,
) -> Iterator[pa.Table]:
    """The samples that one bucket lacks, with their prompts, in blocks; runs in a worker."""
    yield _WANTED.empty_table()
    for bucket in batch["bucket"].to_pylist():
        wanted = _wanted(workspace, tables, distiller, judge, scope, bucket)
        for start in range(0, len(wanted), block_rows):
            rows = [_with_prompt(row, distiller) for row in wanted[start : start + block_rows]]
            yield pa.Table.from_pylist(rows, schema=_WANTED)


def _wanted(
    workspace: Workspace,
    tables: Mapping[str, Snapshot],
    distiller: Distiller,
    judge: Judge,
    scope: Sequence[str] | None,
    bucket: int,
) -> list[dict[str, Any]]:
    """The missing samples of one bucket, without prompts; the most cohesive clusters first."""
    judgments = judge.judge(workspace, tables, bucket)
    if scope is not None:
        inside = set(scope)
        judgments = [found for found in judgments if found.cluster["cluster"] in inside]
    if distiller.config.keep == "accepted":
        judgments = [found for found in judgments if found.best is None]
    judgments.sort(key=lambda found: -found.cluster["cohesion"])
    wanted = [
        {
            "sample": distiller.sample_key(found.cluster["cluster"], index),
            "cluster": found.cluster["cluster"],
            "task": found.cluster["task"],
            "inputs": found.cluster["inputs"],
            "index": index,
            "constrained": distiller.is_constrained(index),
        }
        for found in judgments
        for index in range(distiller.config.samples)
    ]
    paths = tables["samples"].in_bucket(bucket)
    held = read_files(workspace, "samples", paths, ["sample", "reason", "attempts"])
    keys = pa.table({"sample": pa.array([row["sample"] for row in wanted], pa.string())})
    missing = uncovered(keys, held, "sample")
    attempts = dict(
        zip(missing["sample"].to_pylist(), missing["attempts"].to_pylist(), strict=True)
    )
    return [
        {**row, "attempts": attempts[row["sample"]]} for row in wanted if row["sample"] in attempts
    ]


def _with_prompt(row: dict[str, Any], distiller: Distiller) -> dict[str, Any]:
    prompt_ids = render_prompt(distiller.config.model, row["inputs"], row["task"])
    if len(prompt_ids) > distiller.prompt_budget():
        return {**row, "prompt_ids": [], "reason": PROMPT_TOO_LONG}
    return {**row, "prompt_ids": prompt_ids}


def render_prompt(model: str, inputs: Sequence[str], task: str) -> list[int]:
    """The token ids of a cluster's prompt in the model's chat template."""
    return render_chat(model, build_messages(inputs, task))


class _EngineActor:
    def __init__(self, distiller: Distiller) -> None:
        config = distiller.config
        self._guard = Guard.of_actor("a vLLM engine")
        self._config = config
        self._generator = VllmGenerator(config.model, config)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = batch.to_pylist()
        asked = [row for row in rows if row["reason"] is None]
        started = time.time()
        generated = self._guard.run(
            [row["sample"] for row in asked],
            lambda places: self._generator.generate([self._request(asked[at]) for at in places]),
        )
        done = {
            row["sample"]: {"reason": CRASHED} if found is None else _generated(found)
            for row, found in zip(asked, generated, strict=True)
        }
        span = {"started": started, "ended": time.time()}
        return pa.Table.from_pylist(
            [{**row, **done.get(row["sample"], {}), **span} for row in rows], schema=_GENERATED
        )

    def _request(self, row: Mapping[str, Any]) -> GenerationRequest:
        pattern = None
        if row["constrained"]:
            pattern = answer_pattern(row["task"], max_tokens=self._config.max_tokens)
        seed = int(row["sample"][:8], 16)
        return GenerationRequest(row["prompt_ids"], seed, pattern)


def _generated(found: Generation) -> dict[str, Any]:
    return {
        "text": found.text,
        "logprob": found.logprob,
        "tokens": found.tokens,
        "finish": found.finish,
    }


def _parse_and_score(
    batch: pa.Table,
    workspace: Workspace,
    distiller: str,
    pools: RewardPools,
    revisions: Mapping[str, str],
) -> pa.Table:
    """Parse a batch's outputs, have the reward actors score them, write both; runs in a worker."""
    if not batch.num_rows:
        return Manifest().to_table()
    rows = batch.to_pylist()
    samples = [{**row, "distiller": distiller, **_parsed(row)} for row in rows]
    schema = TABLES["samples"].file_schema
    named = [
        {**{name: row.get(name) for name in schema.names}, "attempts": row["attempts"] + 1}
        for row in samples
    ]
    files = write_by_bucket(workspace, "samples", pa.Table.from_pylist(named, schema=schema))
    inputs = {row["sample"]: (row["task"], row["inputs"]) for row in rows}
    scored = score_samples(samples, inputs, workspace, pools, revisions)
    counts = Counter(
        samples=len(samples),
        tokens=sum(row["tokens"] or 0 for row in samples),
        clusters=len({row["cluster"] for row in samples}),
        **scored.counts,
    )
    counts.update(
        "parsed" if row["reason"] is None else f"rejected:{row['reason']}" for row in samples
    )
    engine = {("generate", row["started"], row["ended"]) for row in rows}
    return Manifest(
        [*files, *scored.files], counts=counts, spans=[*engine, *scored.spans]
    ).to_table()


def _parsed(row: Mapping[str, Any]) -> dict[str, Any]:
    """The parsed columns of a sample: thought and turns, or the reason why there are none."""
    if row["reason"] is not None:
        return {}
    try:
        found = parse_distilled(row["text"], row["task"])
    except RecordError as error:
        return {"reason": "cut_off" if row["finish"] == "length" else error.reason}
    return {"thought": found.thought, "turns": [turn._asdict() for turn in found.turns]}
