"""Teach by a model in a pool of vLLM engine actors of this cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from mixup.actors.deaths import CRASHED, Guard
from mixup.actors.resources import Demand
from mixup.mixture.items import Segment
from mixup.mixture.teaching import item_pattern, teacher_prompt
from mixup.mixture_config import EngineTeacher
from mixup.models.chat import PROMPT_TOO_LONG, render_chat
from mixup.models.generator import CALLS, GenerationRequest, VllmGenerator
from mixup.stages.candidates import Teaching, Wanted, wanted_items
from mixup.stages.cover import ActorPool, cover_buckets
from mixup.stages.run import Manifest
from mixup.stages.taught import taught, write_taught

_ASKED = pa.schema([("wanted", pa.string()), ("prompt_ids", pa.list_(pa.int32()))])
_ANSWERED = pa.schema(
    [
        ("wanted", pa.string()),
        ("text", pa.string()),
        ("input_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
        ("crashed", pa.bool_()),
    ]
)


def teacher_demand(config: EngineTeacher) -> Demand:
    """What the teacher's engines ask of the cluster."""
    return Demand("teacher engines", config.engines, config.engine_cpus, config.engine_gpus)


def engine_items(
    work: Teaching, config: EngineTeacher, buckets: Sequence[int]
) -> Iterator[Manifest]:
    """Manifests of the outcomes, batch by batch.

    Args:
        work: What there is to make.
        config: The engines.
        buckets: The buckets of segments to look at.
    """
    pool = ActorPool(
        actor=_TeacherEngine,
        arguments=(config,),
        size=config.engines,
        batch_rows=config.batch_rows,
        cpus=config.engine_cpus,
        gpus=config.engine_gpus,
        calls=CALLS,
    )
    missing = partial(_prompts, work=work, config=config)
    return cover_buckets(buckets, missing, pool, partial(_write, work=work))


def _prompts(batch: pa.Table, work: Teaching, config: EngineTeacher) -> Iterator[pa.Table]:
    """What the engines are asked about one bucket, in blocks; runs in a worker."""
    yield _ASKED.empty_table()
    room = config.context_tokens - config.max_tokens
    for bucket in batch["bucket"].to_pylist():
        rows = []
        for wanted in wanted_items(work, bucket):
            message = {"role": "user", "content": teacher_prompt(wanted.segment, wanted.task)}
            prompt_ids = render_chat(config.model, [message])
            fits = len(prompt_ids) <= room
            rows.append({"wanted": _packed(wanted), "prompt_ids": prompt_ids if fits else []})
            if len(rows) == config.batch_rows:
                yield pa.Table.from_pylist(rows, schema=_ASKED)
                rows = []
        if rows:
            yield pa.Table.from_pylist(rows, schema=_ASKED)


def _packed(wanted: Wanted) -> str:
    """What is wanted, as one column on its way through the actors."""
    segment = wanted.segment
    return json.dumps(
        [
            wanted.candidate,
            [segment.key, segment.article, segment.title, segment.text],
            wanted.task,
            wanted.attempts,
        ]
    )


def _unpacked(text: str) -> Wanted:
    candidate, segment, task, attempts = json.loads(text)
    return Wanted(candidate, Segment(*segment), task, attempts)


class _TeacherEngine:
    def __init__(self, config: EngineTeacher) -> None:
        self._guard = Guard.of_actor("a teacher engine")
        self._is_constrained = config.structured == "regex"
        self._generator = VllmGenerator(config.model, config)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = batch.to_pylist()
        if not rows:
            return _ANSWERED.empty_table()
        asked = [(_unpacked(row["wanted"]), row) for row in rows if row["prompt_ids"]]
        generated = self._guard.run(
            [wanted.candidate for wanted, _ in asked],
            lambda places: self._generator.generate([self._request(*asked[at]) for at in places]),
        )
        answers = {
            row["wanted"]: {"crashed": True}
            if found is None
            else {
                "text": found.text,
                "input_tokens": len(row["prompt_ids"]),
                "output_tokens": found.tokens,
            }
            for (_, row), found in zip(asked, generated, strict=True)
        }
        return pa.Table.from_pylist(
            [{"wanted": row["wanted"], **answers.get(row["wanted"], {})} for row in rows],
            schema=_ANSWERED,
        )

    def _request(self, wanted: Wanted, row: Mapping[str, Any]) -> GenerationRequest:
        # The attempt is part of the seed, so that trying again is not the same once more.
        seed = int(wanted.candidate[:8], 16) + wanted.attempts
        pattern = item_pattern(wanted.task) if self._is_constrained else None
        return GenerationRequest(row["prompt_ids"], seed, pattern)


def _write(batch: pa.Table, work: Teaching) -> pa.Table:
    """Read the answers of a batch and write their outcomes; runs in a worker."""
    if not batch.num_rows:
        return Manifest().to_table()
    rows = batch.to_pylist()
    found = [taught(_unpacked(row["wanted"]), row["text"], _silence(row)) for row in rows]
    used = {name: sum(row[name] or 0 for row in rows) for name in ("input_tokens", "output_tokens")}
    return write_taught(work.workspace, work.teacher, found, used).to_table()


def _silence(row: Mapping[str, Any]) -> str:
    """Why a row without a text has none."""
    return CRASHED if row["crashed"] else PROMPT_TOO_LONG
