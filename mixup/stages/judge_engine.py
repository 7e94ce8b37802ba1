"""Judging by a model in a pool of vLLM engine actors of this cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pyarrow as pa

from mixup.actors.deaths import CRASHED, Guard
from mixup.actors.resources import Demand, check_demand
from mixup.config import EngineJudge
from mixup.models.chat import PROMPT_TOO_LONG, render_chat
from mixup.models.generator import CALLS, GenerationRequest, VllmGenerator
from mixup.stages.cover import ActorPool, cover_buckets
from mixup.stages.judgments import Outcome, read_answer, write_outcomes
from mixup.stages.run import Manifest
from mixup.stages.unjudged import Unjudged
from mixup.text.judging import rating_pattern

_ASKED = pa.schema(
    [
        ("uid", pa.string()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("truncated", pa.bool_()),
        ("attempts", pa.int32()),
    ]
)
_ANSWERED = pa.schema(
    [
        *[field for field in _ASKED if field.name != "prompt_ids"],
        ("text", pa.string()),
        ("input_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
        ("crashed", pa.bool_()),
    ]
)


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
    pool = ActorPool(
        actor=_JudgeActor,
        arguments=(config,),
        size=config.engines,
        batch_rows=config.batch_rows,
        cpus=config.engine_cpus,
        gpus=config.engine_gpus,
        calls=CALLS,
    )
    missing = partial(_prompts, work=work, config=config, chosen=dict(chosen))
    write = partial(_write, work=work)
    return cover_buckets(sorted(chosen), missing, pool, write)


def _prompts(
    batch: pa.Table, work: Unjudged, config: EngineJudge, chosen: Mapping[int, int]
) -> Iterator[pa.Table]:
    """What the engines are asked about one bucket, in blocks; runs in a worker."""
    yield _ASKED.empty_table()
    for bucket in batch["bucket"].to_pylist():
        rows = []
        for item in work.items(bucket, chosen[bucket]):
            prompt_ids = render_chat(config.model, [{"role": "user", "content": item.prompt}])
            fits = len(prompt_ids) <= config.context_tokens - config.max_tokens
            asked = {"uid": item.uid, "truncated": item.truncated, "attempts": item.attempts}
            rows.append({**asked, "prompt_ids": prompt_ids if fits else []})
            if len(rows) == config.batch_rows:
                yield pa.Table.from_pylist(rows, schema=_ASKED)
                rows = []
        if rows:
            yield pa.Table.from_pylist(rows, schema=_ASKED)


class _JudgeActor:
    def __init__(self, config: EngineJudge) -> None:
        self._guard = Guard.of_actor("a judge engine")
        self._pattern = rating_pattern() if config.structured == "regex" else None
        self._generator = VllmGenerator(config.model, config)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = batch.to_pylist()
        asked = [row for row in rows if row["prompt_ids"]]
        if not rows:
            return _ANSWERED.empty_table()
        generated = self._guard.run(
            [row["uid"] for row in asked],
            lambda places: self._generator.generate([self._request(asked[at]) for at in places]),
        )
        answers = {
            row["uid"]: {"crashed": True}
            if found is None
            else {
                "text": found.text,
                "input_tokens": len(row["prompt_ids"]),
                "output_tokens": found.tokens,
            }
            for row, found in zip(asked, generated, strict=True)
        }
        return pa.Table.from_pylist(
            [{**row, **answers.get(row["uid"], {})} for row in rows], schema=_ANSWERED
        )

    def _request(self, row: Mapping[str, Any]) -> GenerationRequest:
        # The attempt is part of the seed, so that trying again is not the same once more.
        seed = int(row["uid"][:8], 16) + row["attempts"]
        return GenerationRequest(row["prompt_ids"], seed, self._pattern)


def _write(batch: pa.Table, work: Unjudged) -> pa.Table:
    """Read the answers of a batch and write their outcomes; runs in a worker."""
    if not batch.num_rows:
        return Manifest().to_table()
    rows = batch.to_pylist()
    outcomes = [_outcome(row) for row in rows]
    used = {name: sum(row[name] or 0 for row in rows) for name in ("input_tokens", "output_tokens")}
    return write_outcomes(work.workspace, work.revision, outcomes, used).to_table()


def _outcome(row: Mapping[str, Any]) -> Outcome:
    judgment, reason = None, CRASHED if row["crashed"] else PROMPT_TOO_LONG
    if row["text"] is not None:
        judgment, reason = read_answer(row["text"])
    return Outcome(row["uid"], judgment, reason, row["attempts"] + 1, row["truncated"])
