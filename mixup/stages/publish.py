"""Publish: a selection → a release folder that a person can use as it is.

The folder is written under a temporary name and made the current release by one pointer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from blake3 import blake3

from mixup.records import TURNS, bucket_of, content_key
from mixup.report.card import dataset_card
from mixup.report.digest import ClusterExample, Digest, to_json
from mixup.report.page import render_page
from mixup.selection.mixing import seeded_order
from mixup.stages.pool import pool_occurrences
from mixup.stages.select import Selection
from mixup.stages.survey import EXAMPLES_OF_A_STRATUM, example_of, example_rank
from mixup.stages.verdicts import Judge
from mixup.tables import Snapshot, read_files
from mixup.workspace import Workspace

POINTER = "releases/current.json"
_SHARD_ROWS = 100_000

COLUMNS: Mapping[str, str] = {
    "id": "Key of the row: the record's for an original, the cluster's for a distilled one.",
    "kind": "`original`: kept as it came; `distilled`: written by the distiller from a cluster.",
    "messages": "The conversation: role and content of each turn.",
    "task": "qa, mcq, tfq, cs, para, or chat for several turns.",
    "source": "The sources of the row, or of the cluster's members, sorted.",
    "licence": "The licence, or the union of the members' licences joined by AND.",
    "quality": "Originals: P(rating >= threshold); distilled: the quality reward.",
}
_DATA = pa.schema(
    [
        ("id", pa.string()),
        ("kind", pa.string()),
        ("messages", TURNS),
        ("task", pa.string()),
        ("source", pa.list_(pa.string())),
        ("licence", pa.string()),
        ("quality", pa.float32()),
    ]
)
_LINEAGE = pa.schema(
    [
        ("id", pa.string()),
        ("kind", pa.string()),
        ("sample", pa.string()),
        ("member", pa.string()),
        ("file", pa.string()),
        ("path", pa.string()),
        ("offset", pa.int64()),
        ("source", pa.string()),
        ("licence", pa.string()),
    ]
)


@dataclass(frozen=True)
class ReleaseFiles:
    """What a release's data came to.

    Attributes:
        hashes: File name to blake3-128 hash.
        licences: Rows by licence.
        rows: Rows written.
        examples: Released clusters to show, a seeded draw.
    """

    hashes: dict[str, str]
    licences: dict[str, int]
    rows: int
    examples: tuple[ClusterExample, ...] = ()


def write_data(
    workspace: Workspace,
    tables: Mapping[str, Snapshot],
    pool: Sequence[str],
    selection: tuple[list[str], list[str], dict[str, float]],
    judge: Judge,
    seed: int,
    folder: str,
) -> ReleaseFiles:
    """Write a release's data and lineage into a folder; runs in a worker.

    Memory is bounded by the size of the release.
    """
    originals, distilled, quality = selection
    shown = set(sorted(distilled, key=example_rank)[:EXAMPLES_OF_A_STRATUM])
    clusters, examples = _distilled_rows(workspace, tables, set(distilled), judge, shown)
    members = {uid for row in clusters.values() for uid in row["members"]} | set(originals)
    places = _places(workspace, tables, pool, members)
    rows = _original_rows(workspace, tables, originals, places)
    rows += [_distilled_row(key, clusters[key], places) for key in distilled]
    for row in rows:
        row["quality"] = quality[row["id"]]
    order = seeded_order([row["id"] for row in rows], seed)
    data = pa.Table.from_pylist([rows[place] for place in order], schema=_DATA)
    lineage = _lineage(originals, clusters, places)
    filesystem, _ = workspace.filesystem()
    filesystem.create_dir(f"{folder}/data", recursive=True)
    hashes = {"lineage.parquet": _write(workspace, f"{folder}/lineage.parquet", lineage)}
    shards = max(1, -(-data.num_rows // _SHARD_ROWS))
    for shard in range(shards):
        name = f"data/train-{shard:05d}-of-{shards:05d}.parquet"
        part = data.slice(shard * _SHARD_ROWS, _SHARD_ROWS)
        hashes[name] = _write(workspace, f"{folder}/{name}", part)
    counted = pc.value_counts(data["licence"]).to_pylist()
    licences = {found["values"]: found["counts"] for found in counted}
    return ReleaseFiles(hashes, licences, data.num_rows, examples)


def _distilled_rows(
    workspace: Workspace,
    tables: Mapping[str, Snapshot],
    keys: set[str],
    judge: Judge,
    shown: set[str],
) -> tuple[dict[str, dict[str, Any]], tuple[ClusterExample, ...]]:
    """The chosen clusters, each with its best sample, and those of them that the report shows."""
    found = {}
    examples = []
    for bucket in sorted({bucket_of(key, workspace.buckets) for key in keys}):
        for judgment in judge.judge(workspace, tables, bucket):
            key = judgment.cluster["cluster"]
            if key in keys and judgment.best is not None:
                found[key] = {**judgment.cluster, "best": judgment.best.sample}
                if key in shown:
                    examples.append(example_of(judgment, "released"))
    return found, tuple(sorted(examples, key=lambda example: example_rank(example.cluster)))


def _places(
    workspace: Workspace, tables: Mapping[str, Snapshot], pool: Sequence[str], uids: set[str]
) -> dict[str, list[dict[str, Any]]]:
    """Where each record occurs in the pool: file, path, offset, source and licence."""
    columns = ["fingerprint", "path"]
    files = read_files(workspace, "files", tables["files"].paths, columns).to_pylist()
    path_of = {row["fingerprint"]: row["path"] for row in files}
    wanted = pa.array(sorted(uids), pa.string())
    found: dict[str, list[dict[str, Any]]] = {}
    for bucket in sorted({bucket_of(uid, workspace.buckets) for uid in uids}):
        rows = pool_occurrences(workspace, tables["occurrences"], bucket, pool)
        rows = rows.filter(pc.is_in(rows["uid"], value_set=wanted))
        for row in rows.to_pylist():
            found.setdefault(row["uid"], []).append({**row, "path": path_of[row["file"]]})
    for places in found.values():
        places.sort(key=lambda row: (row["path"], row["offset"]))
    return found


def _original_rows(
    workspace: Workspace,
    tables: Mapping[str, Snapshot],
    uids: Sequence[str],
    places: Mapping[str, list[dict[str, Any]]],
) -> list[dict[str, Any]]:
    wanted = pa.array(sorted(uids), pa.string())
    rows = []
    for bucket in sorted({bucket_of(uid, workspace.buckets) for uid in uids}):
        paths = {name: tables[name].in_bucket(bucket) for name in ("records", "curation")}
        licences = read_files(workspace, "curation", paths["curation"], ["uid", "licence"])
        licence_of = dict(
            zip(licences["uid"].to_pylist(), licences["licence"].to_pylist(), strict=True)
        )
        found = read_files(workspace, "records", paths["records"], ["uid", "turns", "task"])
        for row in found.filter(pc.is_in(found["uid"], value_set=wanted)).to_pylist():
            uid = row["uid"]
            rows.append(
                {
                    "id": uid,
                    "kind": "original",
                    "messages": row["turns"],
                    "task": row["task"],
                    "source": sorted({place["source"] for place in places[uid]}),
                    "licence": licence_of[uid],
                }
            )
    return rows


def _distilled_row(
    key: str, cluster: Mapping[str, Any], places: Mapping[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    sources = {place["source"] for uid in cluster["members"] for place in places[uid]}
    return {
        "id": key,
        "kind": "distilled",
        "messages": cluster["best"]["turns"],
        "task": cluster["task"],
        "source": sorted(sources),
        "licence": cluster["licence"],
    }


def _lineage(
    originals: Sequence[str],
    clusters: Mapping[str, Mapping[str, Any]],
    places: Mapping[str, list[dict[str, Any]]],
) -> pa.Table:
    """One row for each occurrence that a release row comes from."""
    origins = [(uid, "original", None, [uid]) for uid in originals]
    origins += [
        (key, "distilled", row["best"]["sample"], row["members"]) for key, row in clusters.items()
    ]
    rows = [
        {"id": key, "kind": kind, "sample": sample, "member": uid, **place}
        for key, kind, sample, members in origins
        for uid in members
        for place in places[uid]
    ]
    table = pa.Table.from_pylist(rows, schema=_LINEAGE)
    return table.sort_by([(name, "ascending") for name in ("id", "member", "path", "offset")])


def _write(workspace: Workspace, path: str, table: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content = sink.getvalue()
    filesystem, _ = workspace.filesystem()
    with filesystem.open_output_stream(path) as stream:
        stream.write(content)
    return blake3(content.to_pybytes()).hexdigest(length=16)


def publish(
    workspace: Workspace,
    name: str,
    folder: str,
    manifest: Mapping[str, Any],
    digest: Digest,
) -> None:
    """Write the documents of a release beside its data.

    Args:
        workspace: The workspace.
        name: The release's name.
        folder: The folder that holds its data.
        manifest: The manifest, JSON data.
        digest: What the report and the card show.
    """
    filesystem, _ = workspace.filesystem()
    texts = {
        "manifest.json": json.dumps(manifest, indent=2, ensure_ascii=False, sort_keys=True),
        "digest.json": to_json(digest),
        "report.html": render_page(digest),
        "README.md": dataset_card(digest, COLUMNS),
    }
    for file, text in texts.items():
        with filesystem.open_output_stream(f"{folder}/{file}") as stream:
            stream.write(text.encode("utf-8", "replace"))


def point_to(workspace: Workspace, name: str, state: object) -> None:
    """Make a release the current one.

    Args:
        workspace: The workspace.
        name: The release's name.
        state: What it was made from, to tell when it is out of date.
    """
    workspace.write_json(POINTER, {"release": name, "state": content_key(state)})


def current_release(workspace: Workspace) -> tuple[str, str] | None:
    """The name of the current release and the key of what it was made from."""
    pointer = workspace.read_json(POINTER)
    return None if pointer is None else (pointer["release"], pointer["state"])


def selected(selection: Selection) -> tuple[list[str], list[str], dict[str, float]]:
    """The part of a selection that ``write_data`` needs, without the survey."""
    return selection.originals, selection.distilled, dict(selection.quality)
