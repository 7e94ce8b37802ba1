"""Small inputs of a mixture: rows of a pool and articles, and the stages run in this process."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from made_pool import ENCODER, SIMILARITY, in_process
from made_pool import settings as cell_settings

from mixup.commits import Committer, write_by_bucket, write_file
from mixup.lock import acquire
from mixup.mixture.degraded import VariantSettings
from mixup.mixture.fusion_groups import FusionSettings
from mixup.mixture.splits import SplitShares
from mixup.mixture_config import TextConfig
from mixup.quality.transition import compress
from mixup.records import TABLES, Turn, content_key, estimated_tokens, uid_of
from mixup.refresh_config import CurateConfig
from mixup.stages.candidates import Teaching, teach_state
from mixup.stages.collect import collect, collect_state, items_file
from mixup.stages.mix import mix_cells
from mixup.stages.mix_rows import MixSettings
from mixup.stages.near_segments import mark_near, near_state
from mixup.stages.run import RunContext, Runner
from mixup.stages.segment import segment_files
from mixup.stages.sources import TEXTS, SourceFile, find_files
from mixup.stages.teach_rules import rules_teacher, teach_by_rules
from mixup.tables import read_files, snapshot
from mixup.workspace import Workspace

TASKS = ("qa", "mcq", "tfq", "cs", "para")
PLACES = ("Ayr", "Oban", "Wick", "Thurso", "Nairn", "Elgin", "Banff", "Crail", "Leith", "Troon")
RATER = cell_settings().rater
TEXT = TextConfig()


def article(name: str, number: int) -> dict[str, Any]:
    """An article of about ten plain sentences, whose facts differ by name and number."""
    year = 1700 + number
    text = (
        f"{name} is a town on the coast of the north, and it has about {number + 2},400 people. "
        f"A harbour was built there in {year} by the engineer Thomas Reid. "
        f"The old bridge of {name} has {number + 3} arches and was never rebuilt. "
        f"Its school was opened in {year + 40} and teaches {number + 120} children today.\n"
        f"The market of {name} is held on the first Monday of each month. "
        f"Farmers from the valley bring wool, oats and cheese to it. "
        f"In {year + 90} a fire destroyed {number + 11} houses near the harbour. "
        f"The town council built them again within two years, with walls of stone. "
        f"Visitors come in summer because the beach is long and the water is clear. "
        f"A railway has reached the town since {year + 150}."
    )
    return {"title": name, "text": text, "source": "made", "licence": "CC0-1.0"}


def write_articles(path: Path, count: int, *, start: int = 0) -> None:
    with path.open("w") as file:
        for n in range(start, start + count):
            file.write(f"{json.dumps(article(f'{PLACES[n % 10]} {n // 10}', n))}\n")


@dataclass(frozen=True)
class PoolRow:
    """A row of a pool: a question with an answer of some sentences, and its place in space.

    Rows of one topic have a cosine of 0.8 unless they share their variant; then one is a
    near-duplicate of the other.
    """

    name: str
    topic: int
    variant: int
    overall: float | None = 9.0
    licence: str = "CC0-1.0"
    file: str = "file-1"
    near: bool = False
    embedded: bool = True

    @property
    def turns(self) -> list[Turn]:
        number = sum(map(ord, self.name))
        return [
            Turn("user", f"What is known of the town of {self.name}?"),
            Turn(
                "assistant",
                f"The town of {self.name} lies on the coast and has {number} people. Its harbour "
                f"was built in {1500 + number % 400} by Thomas Reid. The bridge has "
                f"{3 + number % 9} arches. It was never rebuilt after the great flood.",
            ),
        ]

    @property
    def uid(self) -> str:
        return uid_of(self.turns)

    @property
    def vector(self) -> np.ndarray:
        vector = np.zeros(64, np.float32)
        vector[self.topic], vector[20 + self.variant] = 1.0, 0.5
        if self.near:
            vector[19] = 0.1
        return vector / np.linalg.norm(vector)


def add_pool(workspace: Workspace, rows: Sequence[PoolRow]) -> None:
    """Write rows into the tables as ingest, embed and rate would."""
    held = {row["uid"] for row in rows_of(workspace, "records")}
    known = {row["fingerprint"] for row in rows_of(workspace, "files")}
    fresh = list({row.uid: row for row in reversed(rows) if row.uid not in held}.values())
    tables = {
        "records": [
            {
                "uid": row.uid,
                "task": "qa",
                "turns": [turn._asdict() for turn in row.turns],
                "tokens": sum(estimated_tokens(turn.content) for turn in row.turns),
            }
            for row in fresh
        ],
        "occurrences": [
            {"file": row.file, "offset": at, "uid": row.uid, "licence": row.licence, "extra": "{}"}
            for at, row in enumerate(rows, len(rows_of(workspace, "occurrences")))
        ],
        "embeddings": [
            {
                "uid": row.uid,
                "encoder": ENCODER,
                "vector": row.vector.tolist() if row.embedded else None,
                "reason": None if row.embedded else "no_direction",
                "attempts": 1,
            }
            for row in fresh
        ],
        "ratings": [_rating(row) for row in fresh],
    }
    writer = Committer(workspace, token=1, run="r", tables=[*tables, "files"], interval_s=60.0)
    for name, made in tables.items():
        table = pa.Table.from_pylist(made, schema=TABLES[name].file_schema)
        writer.add(write_by_bucket(workspace, name, table))
    files = [{"fingerprint": f, "path": f"/{f}"} for f in {row.file for row in rows} - known]
    if files:
        table = pa.Table.from_pylist(files, schema=TABLES["files"].file_schema)
        writer.add([write_file(workspace, "files", table, None)])
    writer.commit()


def _rating(row: PoolRow) -> dict[str, Any]:
    return {
        "uid": row.uid,
        "rater": RATER,
        "overall": row.overall,
        "rating": None if row.overall is None else compress(row.overall),
        "source": None if row.overall is None else "column",
        "reason": "unrated" if row.overall is None else None,
        "attempts": 1,
    }


def rows_of(workspace: Workspace, name: str) -> list[dict[str, Any]]:
    return read_files(workspace, name, snapshot(workspace, name).paths).to_pylist()


def mix_settings(cell_rows: int = 4000, **changed: Any) -> MixSettings:
    cells = cell_settings(curate=CurateConfig(cell_rows=cell_rows))
    given: dict[str, Any] = {
        "cells": cells,
        "tasks": TASKS,
        "seed": 0,
        "variants": VariantSettings(),
        "fusion": FusionSettings(share=0.5, floor=0.6, ceiling=0.95, most=3),
        "shares": SplitShares(),
        "thought_share": 0.5,
        "neighbors": 4,
        "neighbor_floor": 0.6,
        "near_duplicate": SIMILARITY.near_duplicate,
        "licences": None,
        "classes": {},
        "items": frozenset(),
        "rated_by": "column",
        "teacher": "teacher",
    }
    return MixSettings(**{**given, **changed})


def mix(
    workspace: Workspace,
    settings: MixSettings,
    pool: Sequence[str] = ("file-1",),
    *,
    runner: Runner = in_process,
    run: str = "r",
) -> Counter[str]:
    """Make the pairs; the counts."""
    with acquire(workspace, run) as lease:
        context = RunContext(
            workspace, run, lease.token, tuple(pool), commit_interval_s=0.0, runner=runner
        )
        return mix_cells(context, settings)


def text_files(*paths: Path) -> list[SourceFile]:
    return find_files([str(path) for path in paths], TEXTS)


def cut(
    workspace: Workspace,
    files: Sequence[SourceFile],
    *,
    config: TextConfig = TEXT,
    runner: Runner = in_process,
    run: str = "r",
) -> dict[str, Any]:
    """Segments, items and records of some files; the counts of the stages."""
    teacher = rules_teacher(0)
    with acquire(workspace, run) as lease:
        context = RunContext(workspace, run, lease.token, commit_interval_s=0.0, runner=runner)
        segmented = segment_files(context, config, files)
        fingerprints = [file.fingerprint for file in files]
        near = mark_near(context, near_state(context, 0.8, fingerprints), 0.8, fingerprints)
        work = teaching(workspace, fingerprints, teacher)
        taught = teach_by_rules(context, teach_state(context, work), work)
        work = teaching(workspace, fingerprints, teacher)
        state = collect_state(context, teacher, fingerprints)
        collected = collect(context, state, work, files)
    return {"segment": segmented, "near": near, "teach": taught, "collect": collected}


def teaching(workspace: Workspace, files: Sequence[str], teacher: str) -> Teaching:
    return Teaching(
        workspace=workspace,
        tables={name: snapshot(workspace, name) for name in ("segments", "candidates")},
        files=files,
        tasks=TASKS,
        teacher=teacher,
        seed=0,
        licences=None,
    )


def item_files(files: Sequence[SourceFile]) -> list[str]:
    return [items_file(file.fingerprint, rules_teacher(0)) for file in files]


def embed_items(workspace: Workspace) -> None:
    """Give every record without one a vector that its content decides."""
    held = {row["uid"] for row in rows_of(workspace, "embeddings")}
    made = []
    for row in rows_of(workspace, "records"):
        if row["uid"] in held:
            continue
        draw = np.random.default_rng(int(content_key(row["uid"])[:8], 16))
        vector = draw.normal(size=64).astype(np.float32)
        vector /= np.linalg.norm(vector)
        made.append(
            {"uid": row["uid"], "encoder": ENCODER, "vector": vector.tolist(), "attempts": 1}
        )
    table = pa.Table.from_pylist(made, schema=TABLES["embeddings"].file_schema)
    writer = Committer(workspace, token=1, run="r", tables=["embeddings"], interval_s=60.0)
    writer.add(write_by_bucket(workspace, "embeddings", table))
    writer.commit()
