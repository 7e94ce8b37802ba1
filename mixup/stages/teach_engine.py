"""Teach by a model in a pool of vLLM engine actors of this cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from mixup.actors.resources import Demand
from mixup.mixture.items import Segment
from mixup.mixture.teaching import item_pattern, teacher_prompt
from mixup.mixture_config import EngineTeacher
from mixup.stages.candidates import Teaching, Wanted, wanted_items
from mixup.stages.cover import cover_buckets
from mixup.stages.engine_answers import (
    AnsweringEngine,
    Question,
    batches,
    engine_pool,
    silence,
    tokens_used,
)
from mixup.stages.manifests import Manifest
from mixup.stages.taught import taught, write_taught

_SEGMENT = ("key", "article", "title", "text")
_ABOUT = pa.schema(
    [
        ("segment", pa.struct([(name, pa.string()) for name in _SEGMENT])),
        ("task", pa.string()),
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
    missing = partial(_prompts, work=work, config=config)
    pool = engine_pool(_TeacherEngine, config)
    return cover_buckets(buckets, missing, pool, partial(_write, work=work))


def _prompts(batch: pa.Table, work: Teaching, config: EngineTeacher) -> Iterator[pa.Table]:
    """What the engines are asked about some buckets, in blocks; runs in a worker."""
    wanted = (one for bucket in batch["bucket"].to_pylist() for one in wanted_items(work, bucket))
    return batches(map(_question, wanted), config, _ABOUT)


def _question(wanted: Wanted) -> Question:
    segment = {name: getattr(wanted.segment, name) for name in _SEGMENT}
    about = {"segment": segment, "task": wanted.task}
    prompt = teacher_prompt(wanted.segment, wanted.task)
    return Question(wanted.candidate, wanted.attempts, prompt, about)


class _TeacherEngine(AnsweringEngine):
    what, about = "a teacher engine", _ABOUT

    def pattern(self, row: Mapping[str, Any]) -> str:
        """That of the task."""
        return item_pattern(row["task"])


def _write(batch: pa.Table, work: Teaching) -> pa.Table:
    """Read the answers of a batch and write their outcomes; runs in a worker."""
    if not batch.num_rows:
        return Manifest().to_table()
    rows = batch.to_pylist()
    found = [taught(_wanted(row), row["text"], silence(row)) for row in rows]
    return write_taught(work.workspace, work.teacher, found, tokens_used(rows)).to_table()


def _wanted(row: Mapping[str, Any]) -> Wanted:
    return Wanted(row["key"], Segment(**row["segment"]), row["task"], row["attempts"])
