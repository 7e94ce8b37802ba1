"""Samples on their way through the engines and the reward actors: prompt → text → rows, scored."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from mixup.actors.deaths import CRASHED, Guard
from mixup.actors.resources import Demand
from mixup.actors.rewards import RewardPools
from mixup.commits import write_by_bucket
from mixup.errors import RecordError
from mixup.models.generator import CALLS, Generation, GenerationRequest, VllmGenerator
from mixup.records import TABLES
from mixup.refresh_config import DistillConfig
from mixup.stages.cover import ActorPool
from mixup.stages.manifests import Manifest
from mixup.stages.reward import score_samples
from mixup.stages.undistilled import WANTED, Distiller
from mixup.text.parse import parse_distilled
from mixup.text.prompts import answer_pattern
from mixup.workspace import Workspace

_GENERATED = pa.schema(
    [
        *[field for field in WANTED if field.name != "prompt_ids"],
        ("text", pa.string()),
        ("logprob", pa.float32()),
        ("tokens", pa.int32()),
        ("finish", pa.string()),
        ("started", pa.float64()),
        ("ended", pa.float64()),
    ]
)


def engine_demand(config: DistillConfig) -> Demand:
    """What the engines ask of the cluster."""
    return Demand("vLLM engines", config.engines, config.engine_cpus, config.engine_gpus)


def engine_pool(distiller: Distiller) -> ActorPool:
    """The engines of a distiller."""
    config = distiller.config
    return ActorPool(
        actor=DistillerEngine,
        arguments=(distiller,),
        size=config.engines,
        batch_rows=config.batch_clusters * config.samples,
        cpus=config.engine_cpus,
        gpus=config.engine_gpus,
        calls=CALLS,
    )


class DistillerEngine:
    """An actor with an engine: maps a batch of wanted samples to what it generated."""

    def __init__(self, distiller: Distiller) -> None:
        config = distiller.config
        self._guard = Guard.of_actor("a vLLM engine")
        self._config = config
        self._generator = VllmGenerator(config.model, config)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Generate a batch."""
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


def parse_and_score(
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
