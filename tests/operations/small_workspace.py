"""A small workspace with one release, written through the committer and without Ray or a model."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mixup.actors.reward_settings import RewardSettings
from mixup.commits import Committer, write_by_bucket
from mixup.lock import acquire
from mixup.models.encoder import similarity_of
from mixup.rater_config import ReferenceRater
from mixup.records import TABLES, Turn, content_key, uid_of
from mixup.refresh_config import RefreshConfig
from mixup.report.digest import Counts, Digest, ModelUsed, to_json
from mixup.rewards.rubric import COMPONENTS
from mixup.stages.publish import point_to
from mixup.stages.rate import rater_revision
from mixup.tables import version
from mixup.workspace import Workspace, ensure_workspace

RUN = "20260102T030405-abcdef"
RELEASE = f"2026-01-02-{RUN}"
EARLIER = "2026-01-01-20260101T030405-abcdef"
GONE = "f" * 32
"""The id of a release row whose cluster has been dissolved since."""
BAD_LINE = b'{"instruction": "cut \xff\x1b'
ESCAPE = "\x1b[2Jgone\u202e"

TEXTS = {
    "good": "Why is the sky blue?",
    "near": "Why is the sky blue??",
    "lone": f"What is a {ESCAPE}?",
    "one": "What do plants eat?",
    "two": "What is the food of plants?",
    "three": "Is iron heavy?",
    "four": "Is iron a heavy metal?",
    "new": "Who wrote this?",
}
TURNS = {
    name: (Turn("user", text), Turn("assistant", f"Because {name}."))
    for name, text in TEXTS.items()
}
UID = {name: uid_of(turns) for name, turns in TURNS.items()}
MEMBERS = {"kept": ["one", "two"], "refused": ["three", "four"]}
CLUSTER = {
    name: content_key("cluster", sorted(UID[m] for m in found)) for name, found in MEMBERS.items()
}
SAMPLE = {name: content_key("sample", name) for name in ("broken", "best", "poor")}
PAIR = "Q: What feeds a plant?\nA: Light and water do."
ANSWER = f"<think>\nMerge.\n</think>\n\n<answer>\n{PAIR}\n</answer>"


@dataclass(frozen=True)
class Small:
    """The workspace and the files that its rows came from."""

    workspace: Workspace
    jsonl: Path
    offsets: list[int]


def make(folder: Path) -> Small:
    """Make the workspace in a folder."""
    jsonl = folder / "pool.jsonl"
    lines = [json.dumps({"instruction": TEXTS[name]}) + "\n" for name in ("good", "lone", "good")]
    jsonl.write_bytes("".join(lines).encode() + BAD_LINE)
    offsets = [sum(map(len, lines[:at])) for at in range(3)]
    workspace = ensure_workspace(str(folder / "workspace"), buckets=4)
    config = RefreshConfig.model_validate(
        {
            "workspace": workspace.uri,
            "ingest": {"paths": [str(jsonl)]},
            "embed": {"model": "bundled:minilm"},
        }
    )
    with acquire(workspace, RUN) as lease:
        committer = Committer(workspace, token=lease.token, run=RUN, tables=tuple(TABLES))
        for name, rows in _rows(config, jsonl, offsets).items():
            schema = TABLES[name].file_schema
            full = [{**dict.fromkeys(schema.names), **row} for row in rows]
            committer.add(write_by_bucket(workspace, name, pa.Table.from_pylist(full, schema)))
        committer.commit()
    _release(workspace, config)
    return Small(workspace, jsonl, offsets)


def _rows(config: RefreshConfig, jsonl: Path, offsets: list[int]) -> dict[str, list[dict]]:
    place = {"source": "s", "licence": "CC0-1.0", "extra": "{}"}
    members = [(cluster, name) for cluster, names in MEMBERS.items() for name in names]
    low = {"tier": "low", "quality": 0.1, "long_tail": 0.2, "licence": "CC0-1.0"}
    return {
        "files": [
            {"fingerprint": "j", "path": str(jsonl), "size": jsonl.stat().st_size, "rows": 3},
            {"fingerprint": "p", "path": "/pool/rows.parquet", "size": 10, "rows": 5},
        ],
        "occurrences": [
            {"file": "j", "offset": offsets[0], "uid": UID["good"], **place},
            {"file": "j", "offset": offsets[1], "uid": UID["lone"], **place},
            {"file": "j", "offset": offsets[2], "uid": UID["good"], **place},
            *(
                {"file": "p", "offset": at, "uid": UID[name], **place}
                for at, name in enumerate(("near", "one", "two", "three", "four", "new"))
            ),
        ],
        "records": [
            {
                "uid": UID[name],
                "task": "qa",
                "turns": [turn._asdict() for turn in TURNS[name]],
                "tokens": 9,
            }
            for name in TEXTS
        ],
        "quarantine": [
            {
                "file": "j",
                "path": str(jsonl),
                "offset": jsonl.stat().st_size - len(BAD_LINE),
                "reason": "not_utf8",
                "detail": "not_utf8: at byte 20",
                "raw": BAD_LINE,
            }
        ],
        "contamination": [
            {
                "uid": UID["lone"],
                "questions": "q",
                "kind": "exact",
                "benchmark": "exam",
                "question": TEXTS["lone"],
                "place": "/exam.jsonl:0",
                "matched": "what is a 2jgone",
            },
            {"uid": UID["good"], "questions": "q"},
        ],
        "ratings": [
            {
                "uid": UID["good"],
                "rater": rater_revision(ReferenceRater()),
                "overall": 9.0,
                "rating": 5,
                "source": "column",
            },
            {"uid": UID["lone"], "rater": rater_revision(ReferenceRater()), "reason": "unrated"},
        ],
        "curation": [
            {"uid": UID["good"], **low, "tier": "high", "quality": 0.9},
            {"uid": UID["near"], **low, "tier": "duplicate", "duplicate_of": UID["good"]},
            {"uid": UID["lone"], **low, "reason": "singleton"},
            *({"uid": UID[name], **low, "cluster": CLUSTER[cluster]} for cluster, name in members),
        ],
        "clusters": [
            {
                "cluster": CLUSTER[cluster],
                "task": "qa",
                "members": [UID[name] for name in names],
                "inputs": [TEXTS[name] for name in names],
                "cohesion": 0.8,
                "long_tail": 0.2,
                "tokens": 18,
                "licence": "CC0-1.0",
            }
            for cluster, names in MEMBERS.items()
        ],
        "samples": [
            _sample("broken", "kept", 0, text="Sure!", reason="no_answer_block"),
            _sample("best", "kept", 1, text=ANSWER),
            _sample("poor", "refused", 0, text=ANSWER),
        ],
        "rewards": _rewards(config),
    }


def _sample(name: str, cluster: str, index: int, **more: str) -> dict:
    about = {"distiller": "d", "constrained": index > 0, "finish": "stop", "tokens": 20}
    return {"sample": SAMPLE[name], "cluster": CLUSTER[cluster], "index": index, **about, **more}


def _rewards(config: RefreshConfig) -> list[dict]:
    settings = RewardSettings(
        mode=config.reward.mode,
        similarity=similarity_of(config.embed.model, config.embed.similarity),
        threshold=config.curate.threshold,
        neighbors=config.curate.neighbors,
        effective_votes=4.0,
        encoder="e",
        library=None,
    )
    values = {"best": ("kept", 0.9), "poor": ("refused", 0.1)}
    return [
        {
            "sample": SAMPLE[name],
            "cluster": CLUSTER[cluster],
            "component": component,
            "revision": settings.revision(component),
            "value": value,
        }
        for name, (cluster, value) in values.items()
        for component in COMPONENTS
    ]


def _release(workspace: Workspace, config: RefreshConfig) -> None:
    counts = Counts(9, 8, 2, 1, 1, 5, 5)
    digest = Digest(RELEASE, "2026-01-02T03:05:00+00:00", RUN, "f", counts, {"original": 9})
    folder = f"releases/{RELEASE}"
    rows = [
        _lineage(UID["good"], "good", kind="original"),
        *(_lineage(CLUSTER["kept"], name, sample=SAMPLE["best"]) for name in MEMBERS["kept"]),
        _lineage(GONE, "one", sample="e" * 32),
    ]
    workspace.write_json(
        f"{folder}/manifest.json",
        {
            "config": config.model_dump(mode="json"),
            "counts": {**asdict(counts), "clusters": 2},
            "created_at": digest.created_at,
            "models": [asdict(ModelUsed("encoder", "bundled:minilm", "e"))],
            "tables": {name: version(workspace, name) for name in TABLES},
        },
    )
    workspace.write_bytes(f"{folder}/digest.json", to_json(digest).encode())
    _write(workspace, f"{folder}/lineage.parquet", rows)
    _earlier(workspace)
    point_to(workspace, RELEASE, "state")
    ended = datetime(2026, 1, 2, 3, 5, tzinfo=UTC).timestamp()
    workspace.write_json(f"runs/{RUN}/summary.json", {"release": RELEASE, "ended": ended})


_FROM = {"source": "s", "licence": "CC0-1.0"}


def _lineage(key: str, member: str, kind: str = "distilled", sample: str | None = None) -> dict:
    place = {"file": "p", "path": "/pool/rows.parquet", "offset": 1}
    return {"id": key, "kind": kind, "sample": sample, "member": UID[member], **place, **_FROM}


def _earlier(workspace: Workspace) -> None:
    """A release before the current one: its row is of a cluster that the tables do not hold."""
    folder = f"releases/{EARLIER}"
    row = {"id": "d" * 32, "kind": "distilled", "task": "qa", "source": ["s"], "quality": 0.5}
    turns = [{"role": "user", "content": "Gone?"}, {"role": "assistant", "content": "Yes"}]
    data = [{**row, "messages": turns, "licence": "MIT"}]
    workspace.write_json(f"{folder}/manifest.json", {})
    _write(workspace, f"{folder}/data/train-00000-of-00001.parquet", data)
    gone = {"file": "x", "path": "/old/pool.jsonl", "offset": 70, **_FROM}
    _write(
        workspace,
        f"{folder}/lineage.parquet",
        [{**_lineage("d" * 32, name, sample="c" * 32), **gone} for name in ("one", "three")],
    )


def _write(workspace: Workspace, path: str, rows: list[dict]) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    workspace.write_bytes(path, sink.getvalue().to_pybytes())
