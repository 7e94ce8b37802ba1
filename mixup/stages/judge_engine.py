"""Judging by a model in a pool of vLLM engine actors of this cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pyarrow as pa

from mixup.actors.resources import Demand, check_demand
from mixup.rater_config import EngineJudge
from mixup.stages.cover import cover_buckets
from mixup.stages.engine_answers import (
    AnsweringEngine,
    Question,
    batches,
    engine_pool,
    silence,
    tokens_used,
)
from mixup.stages.judgments import Outcome, read_answer, write_outcomes
from mixup.stages.manifests import Manifest
from mixup.stages.unjudged import Unjudged
from mixup.text.judging import rating_pattern

_ABOUT = pa.schema([("truncated", pa.bool_())])


def judge_demand(config: EngineJudge) -> Demand:
    """What the judge's engines ask of the cluster."""
    return Demand("judge engines", config.engines, config.engine_cpus, config.engine_gpus)


def engine_manifests(
    work: Unjudged, config: EngineJudge, chosen: Mapping[int, int]
) -> Iterator[Manifest]:
    """Manifests of the outcomes, batch by batch.

    Args:
        work: What there is to judge.
        config: The engines.
        chosen: How many fresh records of each bucket are judged.

    Raises:
        ResourceError: If the cluster cannot hold the engines.
    """
    check_demand([judge_demand(config)])
    missing = partial(_prompts, work=work, config=config, chosen=dict(chosen))
    pool = engine_pool(_JudgeActor, config)
    return cover_buckets(sorted(chosen), missing, pool, partial(_write, work=work))


def _prompts(
    batch: pa.Table, work: Unjudged, config: EngineJudge, chosen: Mapping[int, int]
) -> Iterator[pa.Table]:
    """What the engines are asked about some buckets, in blocks; runs in a worker."""
    questions = (
        Question(item.uid, item.attempts, item.prompt, {"truncated": item.truncated})
        for bucket in batch["bucket"].to_pylist()
        for item in work.items(bucket, chosen[bucket])
    )
    return batches(questions, config, _ABOUT)


class _JudgeActor(AnsweringEngine):
    what, about = "a judge engine", _ABOUT

    def pattern(self, row: Mapping[str, Any]) -> str:
        """That of a rating."""
        return rating_pattern()


def _write(batch: pa.Table, work: Unjudged) -> pa.Table:
    """Read the answers of a batch and write their outcomes; runs in a worker."""
    if not batch.num_rows:
        return Manifest().to_table()
    rows = batch.to_pylist()
    found = [_outcome(row) for row in rows]
    return write_outcomes(work.workspace, work.revision, found, tokens_used(rows)).to_table()


def _outcome(row: Mapping[str, Any]) -> Outcome:
    judgment, reason = None, silence(row)
    if reason is None:
        judgment, reason = read_answer(row["text"])
    return Outcome(row["key"], judgment, reason, row["attempts"] + 1, row["truncated"])
