"""Embed: records → embeddings, by a pool of encoder actors."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixup.actors.deaths import CRASHED, Guard
from mixup.actors.resources import Demand
from mixup.clusters.linearize import embed_text
from mixup.commits import write_by_bucket
from mixup.config import EmbedConfig
from mixup.ledger import StageCounts
from mixup.models.encoder import SentenceEncoder
from mixup.models.memory import give_back_freed_memory
from mixup.records import Turn
from mixup.stages.compact import compact
from mixup.stages.cover import ActorPool, cover_buckets
from mixup.stages.manifests import Manifest, Span, commit_stream
from mixup.stages.pool import missing_keys, records_of
from mixup.stages.run import RunContext, StageState, Stopwatch, stage_state
from mixup.tables import Snapshot, changed_buckets, read_files, snapshot
from mixup.workspace import Workspace

_TO_EMBED = pa.schema([("uid", pa.string()), ("text", pa.string()), ("attempts", pa.int32())])
_EMBEDDED = pa.schema(
    [
        ("uid", pa.string()),
        ("vector", pa.list_(pa.float32())),
        ("truncated", pa.bool_()),
        ("reason", pa.string()),
        ("attempts", pa.int32()),
        ("started", pa.float64()),
        ("ended", pa.float64()),
    ]
)
NO_DIRECTION = "no_direction"
"""The encoder gave a vector without a direction: zero or not a number."""


def embed_demand(config: EmbedConfig) -> Demand:
    """What the encoders ask of the cluster."""
    return Demand("encoders", config.actors, config.actor_cpus, config.actor_gpus)


def embed_state(context: RunContext, encoder: str) -> StageState:
    """Whether every record has an outcome for the encoder's revision."""
    return stage_state(
        context.workspace, "embed", "embeddings", inputs=["records"], decides=encoder
    )


def embed(context: RunContext, config: EmbedConfig, encoder: str) -> StageCounts:
    """Embed the records that have no outcome for this encoder.

    Args:
        context: The run.
        config: The encoder and its actors.
        encoder: The encoder's revision.
    """
    watch = Stopwatch()
    workspace = context.workspace
    state = embed_state(context, encoder)
    tables = {name: snapshot(workspace, name) for name in ("records", "embeddings")}
    buckets = changed_buckets(workspace, tables["records"], state.consumed("records"))
    missing = partial(
        _missing_texts,
        workspace=workspace,
        tables=tables,
        encoder=encoder,
        block_rows=config.batch_rows,
    )
    pool = ActorPool(
        actor=_EmbedActor,
        arguments=(config,),
        size=config.actors,
        batch_rows=config.batch_rows,
        cpus=config.actor_cpus,
        gpus=config.actor_gpus,
    )
    write = partial(_write_embeddings, workspace=workspace, encoder=encoder)
    totals = commit_stream(
        cover_buckets(buckets, missing, pool, write),
        context.committer("embeddings"),
        stage="embed",
        unit="rows",
        stall=context.stall(_EmbedActor.__name__),
    )
    counts = StageCounts(
        stage="embed",
        unit="records",
        rows_in=totals["rows"],
        parts={name: totals[name] for name in ("embedded", NO_DIRECTION, CRASHED)},
        dropped=(NO_DIRECTION, CRASHED),
        seconds=watch.seconds,
        extra={"truncated": totals["truncated"]},
    ).check()
    compact(context, "embeddings")
    context.committer("embeddings").complete(
        "embeddings", state.completion(context.run, {**counts.parts, **counts.extra})
    )
    return counts.log()


def _missing_texts(
    batch: pa.Table,
    workspace: Workspace,
    tables: dict[str, Snapshot],
    encoder: str,
    block_rows: int,
) -> Iterator[pa.Table]:
    """The texts of one bucket that have no embedding, in blocks; runs in a worker."""
    yield _TO_EMBED.empty_table()
    for bucket in batch["bucket"].to_pylist():
        uids = read_files(workspace, "records", tables["records"].in_bucket(bucket), ["uid"])
        wanted = missing_keys(
            workspace,
            uids["uid"],
            tables["embeddings"],
            bucket,
            key="uid",
            where=("encoder", encoder),
        )
        for part in records_of(workspace, tables["records"], bucket, wanted):
            for start in range(0, part.num_rows, block_rows):
                rows = part.slice(start, block_rows)
                texts = [
                    embed_text([Turn(**turn) for turn in turns])
                    for turns in rows["turns"].to_pylist()
                ]
                columns = [rows["uid"], pa.array(texts, pa.string()), rows["attempts"]]
                yield pa.table(columns, schema=_TO_EMBED)


class _EmbedActor:
    def __init__(self, config: EmbedConfig) -> None:
        self._guard = Guard.of_actor("an encoder")
        self._encoder = SentenceEncoder(
            config.model,
            encode_tokens=config.encode_tokens,
            on_gpu=config.actor_gpus > 0,
            cpus=config.actor_cpus,
        )

    def __call__(self, batch: pa.Table) -> pa.Table:
        if not batch.num_rows:
            return _EMBEDDED.empty_table()
        texts, started = batch["text"].to_pylist(), time.time()
        found = self._guard.run(
            batch["uid"].to_pylist(),
            lambda places: self._encoder.encode([texts[at] for at in places]).rows(),
        )
        give_back_freed_memory()
        good = [row is not None and bool(np.isfinite(row.vector_D).all()) for row in found]
        vectors = [
            row.vector_D if row and ok else None for row, ok in zip(found, good, strict=True)
        ]
        reasons = [
            CRASHED if row is None else None if ok else NO_DIRECTION
            for row, ok in zip(found, good, strict=True)
        ]
        return pa.table(
            [
                batch["uid"],
                pa.array(vectors, pa.list_(pa.float32())),
                pa.array([row.truncated if row else None for row in found], pa.bool_()),
                pa.array(reasons, pa.string()),
                batch["attempts"],
                pa.array([started] * batch.num_rows),
                pa.array([time.time()] * batch.num_rows),
            ],
            schema=_EMBEDDED,
        )


def embed_spans(batch: pa.Table) -> list[Span]:
    """When actors worked on the rows of a batch."""
    times = batch.select(["started", "ended"]).to_pylist()
    return sorted({("embed", row["started"], row["ended"]) for row in times})


def _write_embeddings(batch: pa.Table, workspace: Workspace, encoder: str) -> pa.Table:
    if not batch.num_rows:
        return Manifest().to_table()
    rows = batch.append_column("encoder", pa.array([encoder] * batch.num_rows))
    made = pc.add(batch["attempts"], pa.scalar(1, pa.int32()))
    rows = rows.set_column(rows.schema.get_field_index("attempts"), "attempts", made)
    counts = Counter(reason or "embedded" for reason in batch["reason"].to_pylist())
    counts.update(rows=batch.num_rows, truncated=pc.sum(batch["truncated"]).as_py() or 0)
    files = write_by_bucket(workspace, "embeddings", rows)
    return Manifest(files, counts=counts, spans=embed_spans(batch)).to_table()


def vectors_to_arrow(vectors_ND: np.ndarray) -> pa.ListArray:
    """A list<float32> column of N vectors of D numbers, without a copy of the numbers."""
    rows, width = vectors_ND.shape
    offsets = pa.array(np.arange(0, (rows + 1) * width, width, dtype=np.int32))
    flat = pa.array(np.ascontiguousarray(vectors_ND, dtype=np.float32).reshape(-1))
    return pa.ListArray.from_arrays(offsets, flat)


def vectors_from_arrow(column: pa.ChunkedArray) -> np.ndarray:
    """A float32 (N, D) array from a list<float32> column without nulls."""
    if not len(column):
        return np.empty((0, 0), dtype=np.float32)
    flat = np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks])
    return flat.reshape(len(column), -1)
