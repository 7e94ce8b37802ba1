"""A small pool made by hand: rows with known vectors, written as the stages before would."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from mixup.actors.reward_settings import RewardSettings
from mixup.commits import Committer, write_by_bucket, write_file
from mixup.config import IngestConfig, Similarity
from mixup.errors import RecordError
from mixup.lock import acquire
from mixup.quality.transition import compress
from mixup.rater_config import ReferenceRater
from mixup.records import TABLES, Turn, content_key, estimated_tokens, uid_of
from mixup.refresh_config import ClusterConfig, CurateConfig, RewardConfig
from mixup.stages.cell import CellSettings
from mixup.stages.curate import curate_cells
from mixup.stages.manifests import Manifest, Stall
from mixup.stages.rate import rater_revision
from mixup.stages.run import RunContext, Runner
from mixup.stages.sources import SourceFile
from mixup.stages.verdicts import Judge
from mixup.tables import Snapshot, read_files, row_count, snapshot
from mixup.text.parse import parse_distilled
from mixup.workspace import Workspace, ensure_workspace

ENCODER = "encoder-1"
RATER = ReferenceRater()
INGEST = IngestConfig(paths=["x"])
SIMILARITY = Similarity(
    near_duplicate=0.95, cluster_floor=0.6, alignment_low=0.35, alignment_high=0.75
)
_DIRECTIONS = 64
_FIRST_NIGHT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Row:
    """A record with its vector, rating and occurrence.

    Rows of one topic have a cosine of 0.8 with each other unless they share their variant; then
    one is a near-duplicate of the other (0.99).
    """

    name: str
    topic: int
    variant: int
    overall: float | None = None
    licence: str = "CC0-1.0"
    file: str = "file-1"
    near: bool = False
    task: str = "qa"
    tokens: int | None = None
    embedded: bool = True

    @property
    def turns(self) -> list[Turn]:
        return [Turn("user", f"question {self.name}"), Turn("assistant", f"answer {self.name}")]

    @property
    def uid(self) -> str:
        return uid_of(self.turns)

    @property
    def vector(self) -> np.ndarray:
        vector = np.zeros(_DIRECTIONS, np.float32)
        vector[self.topic] = 1.0
        vector[20 + self.variant] = 0.5
        if self.near:
            vector[19] = 0.1
        return vector / np.linalg.norm(vector)


def make_workspace(path: object, buckets: int = 1) -> Workspace:
    return ensure_workspace(str(path), buckets=buckets)


def settings(**changed) -> CellSettings:
    given = {
        "curate": CurateConfig(predictor="neighbors", min_rated=4, neighbors=3),
        "cluster": ClusterConfig(max_size=3),
        "similarity": SIMILARITY,
        "encoder": ENCODER,
        "rater": rater_revision(RATER),
        "only_rated": False,
        "licences": None,
    }
    return CellSettings(**{**given, **changed})


def source(path: str) -> SourceFile:
    return SourceFile(path, "jsonl", "", 10, "t")


def commit(workspace: Workspace, manifest: Manifest) -> None:
    names = {file.table for file in manifest.files} | set(manifest.removed)
    writer = Committer(workspace, token=1, run="r", tables=sorted(names), interval_s=60.0)
    writer.add(manifest.files, manifest.removed)
    writer.commit()


def in_process(
    function: Callable[..., Any], shared: object, arguments: Sequence[tuple], stall: Stall
) -> Iterator[Any]:
    """The runner of tests: no cluster, one call after another."""
    return (function(shared, *rest) for rest in arguments)


def curate(
    workspace: Workspace,
    pool: Sequence[str] = ("file-1",),
    made: CellSettings | None = None,
    *,
    regroup: bool = False,
    runner: Runner = in_process,
    run: str = "r",
) -> Counter[str]:
    """Curate and cluster the pool; the counts."""
    with acquire(workspace, run) as lease:
        context = RunContext(
            workspace, run, lease.token, tuple(pool), commit_interval_s=0.0, runner=runner
        )
        return curate_cells(context, made or settings(), regroup=regroup)


def snapshots(workspace: Workspace) -> dict[str, Snapshot]:
    return {name: snapshot(workspace, name) for name in TABLES if name != "quarantine"}


def rows_of(workspace: Workspace, name: str) -> list[dict]:
    return read_files(workspace, name, snapshot(workspace, name).paths).to_pylist()


def add(workspace: Workspace, rows: Sequence[Row]) -> None:
    """Write rows into files, occurrences, records, embeddings and ratings, each uid once."""
    known = {row["uid"] for row in rows_of(workspace, "records")}
    held = {row["fingerprint"] for row in rows_of(workspace, "files")}
    count = row_count(workspace, "occurrences")
    fresh = list({row.uid: row for row in reversed(rows) if row.uid not in known}.values())
    tables = {
        "occurrences": [_occurrence(row, count + place) for place, row in enumerate(rows)],
        "records": [_record(row) for row in fresh],
        "embeddings": [_embedding(row) for row in fresh],
        "ratings": [_rating(row) for row in fresh],
    }
    writer = Committer(workspace, token=1, run="r", tables=[*tables, "files"], interval_s=60.0)
    for name, made in tables.items():
        table = pa.Table.from_pylist(made, schema=TABLES[name].file_schema)
        writer.add(write_by_bucket(workspace, name, table))
    files = sorted({row.file for row in rows} - held)
    if files:
        made = [_file(file, len(held) + place) for place, file in enumerate(files)]
        table = pa.Table.from_pylist(made, schema=TABLES["files"].file_schema)
        writer.add([write_file(workspace, "files", table, None)])
    writer.commit()


def _file(name: str, night: int) -> dict:
    at = _FIRST_NIGHT + timedelta(days=night)
    return {"fingerprint": name, "path": f"/{name}.jsonl", "size": 1, "ingested_at": at, "rows": 1}


def _occurrence(row: Row, offset: int) -> dict:
    return {
        "file": row.file,
        "offset": offset,
        "uid": row.uid,
        "source": f"source-{row.file}",
        "licence": row.licence,
        "extra": json.dumps({} if row.overall is None else {"rating": row.overall}),
    }


def _record(row: Row) -> dict:
    tokens = sum(estimated_tokens(turn.content) for turn in row.turns)
    return {
        "uid": row.uid,
        "task": row.task,
        "turns": [turn._asdict() for turn in row.turns],
        "tokens": tokens if row.tokens is None else row.tokens,
    }


def _embedding(row: Row) -> dict:
    return {
        "uid": row.uid,
        "encoder": ENCODER,
        "vector": row.vector.tolist() if row.embedded else None,
        "truncated": False,
        "reason": None if row.embedded else "no_direction",
        "attempts": 1,
    }


def _rating(row: Row) -> dict:
    return {
        "uid": row.uid,
        "rater": rater_revision(RATER),
        "overall": row.overall,
        "rating": None if row.overall is None else compress(row.overall),
        "source": None if row.overall is None else "column",
        "reason": "unrated" if row.overall is None else None,
        "attempts": 1,
    }


# --- samples and rewards -------------------------------------------------------------------------

REWARDS = RewardSettings(
    mode="soft",
    similarity=SIMILARITY,
    threshold=4,
    neighbors=16,
    effective_votes=4.0,
    encoder=ENCODER,
    library="library-1",
)
JUDGE = Judge.of(RewardConfig(), REWARDS)
GOOD_SCORES = {"quality": 0.9, "alignment": 0.8, "format": 1.0, "coverage": 0.7}


@dataclass(frozen=True)
class Sample:
    """A sample of a cluster as the distiller and the reward actors leave it."""

    cluster: str
    index: int = 0
    text: str | None = None
    scores: Mapping[str, float | None] = field(default_factory=lambda: dict(GOOD_SCORES))
    constrained: bool = False
    finish: str = "stop"

    @property
    def key(self) -> str:
        return content_key("sample", self.cluster, self.index)

    @property
    def output(self) -> str:
        return self.text or distilled_text(f"merged {self.cluster[:6]} {self.index}")


def distilled_text(subject: str) -> str:
    return (
        f"<think>\nThe items say the same of {subject}.\n</think>\n\n"
        f"<answer>\nQ: What is the question of {subject}?\n"
        f"A: All that the answers of {subject} say.\n</answer>"
    )


def add_samples(workspace: Workspace, samples: Sequence[Sample]) -> None:
    made = {
        "samples": [_sample(sample) for sample in samples],
        "rewards": [
            {
                "sample": sample.key,
                "cluster": sample.cluster,
                "component": name,
                "revision": REWARDS.revision(name),
                "value": value,
                "reason": None if value is not None else "no_direction",
                "attempts": 1,
            }
            for sample in samples
            for name, value in sample.scores.items()
        ],
    }
    writer = Committer(workspace, token=1, run="r", tables=list(made), interval_s=60.0)
    for name, rows in made.items():
        table = pa.Table.from_pylist(rows, schema=TABLES[name].file_schema)
        writer.add(write_by_bucket(workspace, name, table))
    writer.commit()


def _sample(sample: Sample) -> dict:
    row = {
        "sample": sample.key,
        "cluster": sample.cluster,
        "index": sample.index,
        "distiller": "distiller-1",
        "constrained": sample.constrained,
        "text": sample.output,
        "logprob": -1.0,
        "tokens": 20,
        "finish": sample.finish,
        "attempts": 1,
    }
    try:
        found = parse_distilled(sample.output, "qa")
    except RecordError as error:
        return {**row, "reason": error.reason}
    turns = [turn._asdict() for turn in found.turns]
    return {**row, "thought": found.thought, "turns": turns}
