"""Trace: what became of a record, and what a cluster, a sample or a release row was made from.

A key's leading characters say in which bucket its row lies, so a trace reads the files of a few
buckets. Only a sample's key does not (samples lie with their cluster): those are looked for last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow.compute as pc

from mixup.errors import ConfigError
from mixup.ledger import FATE_MERGED, FATE_ORIGINAL, left_out
from mixup.operations.view import View, occurrences_of
from mixup.records import KEY_BYTES, bucket_of
from mixup.stages.survey import CLUSTER_NOT_DISTILLED, CLUSTER_REJECTED, record_fate
from mixup.stages.verdicts import Verdict
from mixup.tables import scan_files
from mixup.workspace import Workspace

MIN_PREFIX = 6
_KEY_CHARS = 2 * KEY_BYTES
_SHOWN_KEYS = 5


def trace(workspace: Workspace, key: str) -> dict[str, Any]:
    """Follow a key in both directions.

    Args:
        workspace: The workspace.
        key: The key of a record, cluster, sample or release row, or at least ``MIN_PREFIX`` leading
            characters of one.

    Returns:
        JSON data: ``kind`` (record, cluster, sample or row), ``key``, ``release``, ``moved_on``
        (whether the tables are newer than the release), and what the kind has.

    Raises:
        ConfigError: If nothing has the key, or several things do.
    """
    view = View.of(workspace)
    kind, full = _resolve(view, key)
    parts = {
        "record": _record,
        "cluster": _cluster,
        "sample": _sample,
        "row": _row,
    }[kind](view, full)
    moved_on = view.release is not None and view.has_moved_on
    return {"kind": kind, "key": full, "release": view.release, "moved_on": moved_on, **parts}


def _resolve(view: View, key: str) -> tuple[str, str]:
    """The kind and the whole key that a prefix stands for."""
    prefix = key.strip().lower()
    if not MIN_PREFIX <= len(prefix) <= _KEY_CHARS or set(prefix) - set("0123456789abcdef"):
        raise ConfigError(
            f"{key!r} is no key: expected {MIN_PREFIX} to {_KEY_CHARS} hexadecimal characters"
        )
    found: dict[str, str] = {}
    for kind, keys in _candidates(view, prefix):
        for full in keys:
            found.setdefault(full, kind)
        if found and len(prefix) == _KEY_CHARS:
            break
    if not found:
        raise ConfigError(
            f"nothing in {view.workspace.uri} has the key {prefix}: no record, cluster, sample "
            "or release row"
        )
    if len(found) > 1:
        shown = ", ".join(f"{kind} {full}" for full, kind in list(found.items())[:_SHOWN_KEYS])
        raise ConfigError(f"{prefix} is ambiguous, {len(found)} keys begin so: {shown}; type more")
    ((full, kind),) = found.items()
    return kind, full


def _candidates(view: View, prefix: str) -> Iterator[tuple[str, list[str]]]:
    """Whole keys that begin so, by kind, the cheapest to find first."""
    for kind, table, column in (("record", "records", "uid"), ("cluster", "clusters", "cluster")):
        yield kind, _beginning(view, table, column, _near(view, table, prefix), prefix)
    rows = view.lineage["id"]
    yield "row", sorted(set(rows.filter(pc.starts_with(rows, prefix)).to_pylist()))
    yield "sample", _beginning(view, "samples", "sample", view.tables["samples"].paths, prefix)


def _near(view: View, table: str, prefix: str) -> list[str]:
    """The files of the buckets that keys with a prefix can lie in."""
    first, last = (
        bucket_of(prefix.ljust(_KEY_CHARS, fill), view.workspace.buckets) for fill in "0f"
    )
    found = view.tables[table]
    return [path for bucket in range(first, last + 1) for path in found.in_bucket(bucket)]


def _beginning(view: View, table: str, column: str, paths: Sequence[str], prefix: str) -> list[str]:
    keys: set[str] = set()
    for part in scan_files(view.workspace, table, paths, [column]):
        found = part[column].filter(pc.starts_with(part[column], prefix))
        keys.update(found.to_pylist())
    return sorted(keys)


def _record(view: View, uid: str) -> dict[str, Any]:
    record = view.rows("records", "uid", uid)[0]
    curation = next(iter(view.rows("curation", "uid", uid)), None)
    cluster = _judged(view, curation["cluster"]) if curation and curation["cluster"] else None
    return {
        "task": record["task"],
        "language": record["language"],
        "tokens": record["tokens"],
        "turns": record["turns"],
        "occurrences": occurrences_of(view, uid),
        "rating": _rating(view, uid),
        "curation": curation,
        "fate": _fate(view, uid, curation, cluster),
        "cluster": None
        if cluster is None
        else {name: cluster[name] for name in ("cluster", "task", "cohesion", "fate")},
    }


def _rating(view: View, uid: str) -> dict[str, Any] | None:
    """The record's rating outcome under the release's rater, else under any."""
    rows = view.rows("ratings", "uid", uid)
    rows.sort(key=lambda row: row["rater"] != view.rater)
    names = ("rating", "overall", "source", "reason", "rater")
    return {name: rows[0][name] for name in names} if rows else None


def _fate(
    view: View,
    uid: str,
    curation: Mapping[str, Any] | None,
    cluster: Mapping[str, Any] | None,
) -> dict[str, Any] | None:
    """The record's fate in the current release and the row it is in; None without a release."""
    if view.release is None:
        return None
    rows = view.lineage.filter(pc.equal(view.lineage["member"], uid)).to_pylist()
    if rows:
        fate = FATE_ORIGINAL if rows[0]["kind"] == "original" else FATE_MERGED
        return {"fate": fate, "row": rows[0]["id"]}
    if cluster is not None:
        return cluster["fate"]
    if curation is None:
        return {"fate": left_out("not_in_pool"), "row": None}
    licences = None if view.config is None else view.config.select.licences
    fate = record_fate(curation, licences) or left_out("original_not_selected")
    return {"fate": fate, "row": None}


def _cluster(view: View, key: str) -> dict[str, Any]:
    found = _judged(view, key)
    if found is None:
        raise ConfigError(f"cluster {key} of {view.workspace.uri} has been dissolved")
    texts = zip(found["members"], found["inputs"], strict=True)
    members = [
        {"uid": uid, "text": text, "occurrences": occurrences_of(view, uid)} for uid, text in texts
    ]
    names = ("cluster", "task", "cohesion", "tokens", "licence", "fate")
    return {
        **{name: found[name] for name in names},
        "members": members,
        "samples": found["samples"],
    }


def _sample(view: View, key: str) -> dict[str, Any]:
    parts = scan_files(
        view.workspace, "samples", view.tables["samples"].paths, ["sample", "cluster"]
    )
    owner = next(
        row["cluster"]
        for part in parts
        for row in part.filter(pc.equal(part["sample"], key)).to_pylist()
    )
    found = _cluster(view, owner)
    found["samples"] = [sample for sample in found["samples"] if sample["sample"] == key]
    return found


def _row(view: View, key: str) -> dict[str, Any]:
    """A release row whose record or cluster the tables no longer hold."""
    rows = view.lineage.filter(pc.equal(view.lineage["id"], key)).to_pylist()
    uids = sorted({row["member"] for row in rows})
    members = [{"uid": uid, "occurrences": occurrences_of(view, uid)} for uid in uids]
    return {"row_kind": rows[0]["kind"], "sample": rows[0]["sample"], "members": members}


def _judged(view: View, key: str) -> dict[str, Any] | None:
    """A cluster with its samples, their rewards and verdicts, and its fate; None if dissolved."""
    cluster = view.rows("clusters", "cluster", key)
    if not cluster:
        return None
    samples = _verdicts(view, key)
    return {**cluster[0], "samples": samples, "fate": _cluster_fate(view, key, samples)}


def _verdicts(view: View, cluster: str) -> list[dict[str, Any]]:
    """The samples of a cluster; without a release there are no rules, so no verdicts."""
    if view.judge is None:
        rows = view.rows("samples", "cluster", cluster)
        return [_sample_row(row) for row in sorted(rows, key=lambda row: row["index"])]
    bucket = bucket_of(cluster, view.workspace.buckets)
    judgments = view.judge.judge(view.workspace, view.tables, bucket)
    found = next(item for item in judgments if item.cluster["cluster"] == cluster)
    released = set(view.lineage["sample"].to_pylist())
    return [
        {
            **_sample_row(verdict.sample),
            **_judgment(verdict),
            "released": verdict.sample["sample"] in released,
        }
        for verdict in found.verdicts
    ]


def _sample_row(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("sample", "index", "constrained", "text", "thought", "turns", "finish", "tokens")
    unjudged = {"rewards": {}, "combined": None, "accepted": None, "reason": row["reason"]}
    return {**{name: row[name] for name in names}, **unjudged, "released": False}


def _judgment(verdict: Verdict) -> dict[str, Any]:
    return {
        "rewards": dict(verdict.values),
        "combined": verdict.combined.value,
        "accepted": verdict.is_accepted,
        "reason": verdict.reason,
    }


def _cluster_fate(
    view: View, key: str, samples: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """The fate that a cluster's members share in the current release."""
    if view.release is None:
        return None
    if pc.any(pc.equal(view.lineage["id"], key)).as_py():
        return {"fate": FATE_MERGED, "row": key}
    state = "cluster_not_selected"
    if not samples:
        state = CLUSTER_NOT_DISTILLED
    elif not any(sample["accepted"] for sample in samples):
        state = CLUSTER_REJECTED
    return {"fate": left_out(state), "row": None}
