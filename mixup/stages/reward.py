"""Reward: samples → rewards, where an outcome of a component's present revision is missing.

New samples are scored in the stream that makes them (``mixup.stages.distill``); a new reference
library or another encoder makes only rewards missing, and those are made here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mixup.actors.requests import ScoreRequest, request_of
from mixup.actors.rewards import RewardPools
from mixup.commits import write_by_bucket
from mixup.records import TABLES, Turn
from mixup.stages.compact import compact
from mixup.stages.cover import TASK_CPUS
from mixup.stages.manifests import Manifest, commit_stream, run_tasks
from mixup.stages.run import RunContext, StageState, stage_state
from mixup.stages.verdicts import Judge
from mixup.tables import Snapshot, read_files, snapshot
from mixup.workspace import Workspace


def reward_state(context: RunContext, judge: Judge) -> StageState:
    """Whether every parsed sample has an outcome for each component's present revision."""
    return stage_state(
        context.workspace,
        "reward",
        "rewards",
        inputs=["samples", "clusters"],
        decides=[dict(judge.revisions)],
    )


def reward_missing(context: RunContext, judge: Judge, pools: RewardPools) -> int:
    """Score the samples that lack an outcome for a component's present revision; how many scores.

    Outcomes of other revisions are replaced.
    """
    import ray

    workspace = context.workspace
    state = reward_state(context, judge)
    tables = {name: snapshot(workspace, name) for name in ("clusters", "samples", "rewards")}
    task = ray.remote(num_cpus=TASK_CPUS)(_reward_bucket)
    committer = context.committer("rewards")
    totals = commit_stream(
        run_tasks(
            task,
            [
                (workspace, tables, bucket, dict(judge.revisions), pools)
                for bucket in tables["samples"].files
            ],
            in_flight=4,
        ),
        committer,
        stage="reward",
        unit="scores",
        stall=context.stall("_EncoderActor"),
    )
    compact(context, "rewards")
    committer.complete("rewards", state.completion(context.run, dict(totals)))
    return totals["scores"]


def _reward_bucket(
    workspace: Workspace,
    tables: Mapping[str, Snapshot],
    bucket: int,
    revisions: Mapping[str, str],
    pools: RewardPools,
) -> Manifest:
    paths = tables["rewards"].in_bucket(bucket)
    held = read_files(workspace, "rewards", paths)
    current = held.filter(pc.is_in(held["revision"], value_set=pa.array(list(revisions.values()))))
    scored = Counter(current["sample"].to_pylist())
    columns = ["cluster", "task", "inputs"]
    clusters = read_files(workspace, "clusters", tables["clusters"].in_bucket(bucket), columns)
    of_cluster = {row["cluster"]: (row["task"], row["inputs"]) for row in clusters.to_pylist()}
    samples = read_files(workspace, "samples", tables["samples"].in_bucket(bucket)).to_pylist()
    lacking = [
        row
        for row in samples
        if scored[row["sample"]] < len(revisions) and row["cluster"] in of_cluster
    ]
    inputs = {row["sample"]: of_cluster[row["cluster"]] for row in lacking}
    again = set(inputs)
    found = score_samples(lacking, inputs, workspace, pools, revisions)
    keep = current.filter(
        pa.array([sample not in again for sample in current["sample"].to_pylist()], pa.bool_())
    )
    if keep.num_rows == held.num_rows:
        return found
    files = [*found.files, *write_by_bucket(workspace, "rewards", keep)]
    return Manifest(files, {"rewards": paths}, found.counts, found.spans)


def score_samples(
    samples: Sequence[Mapping[str, Any]],
    inputs: Mapping[str, tuple[str, Sequence[str]]],
    workspace: Workspace,
    pools: RewardPools,
    revisions: Mapping[str, str],
) -> Manifest:
    """Have samples scored and write their rewards; samples without an output are left out."""
    able = [row for row in samples if row["text"]]
    requests = [score_request(row, *inputs[row["sample"]]) for row in able]
    scores, spans = pools.score(requests)
    rows = [
        {
            "sample": row["sample"],
            "cluster": row["cluster"],
            "component": name,
            "revision": revisions[name],
            "value": found.value,
            "reason": found.reason,
            "attempts": 1,
        }
        for name, outcomes in scores.items()
        for row, found in zip(able, outcomes, strict=True)
    ]
    table = pa.Table.from_pylist(rows, schema=TABLES["rewards"].file_schema)
    counts = {"scores": len(rows), "unscored": sum(row["value"] is None for row in rows)}
    return Manifest(write_by_bucket(workspace, "rewards", table), counts=counts, spans=spans)


def score_request(row: Mapping[str, Any], task: str, inputs: Sequence[str]) -> ScoreRequest:
    """A sample as the reward actors read it, at application time: the targets are the inputs."""
    turns = row.get("turns")
    parsed = [Turn(**turn) for turn in turns] if turns else None
    return request_of(row["sample"], task, row["text"], parsed, targets=inputs, inputs=inputs)
