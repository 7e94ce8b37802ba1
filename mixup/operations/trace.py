"""Trace: what became of a record, and what a cluster, a sample or a release row was made from.

Forwards, to the fate in the current release and to the rows of all releases; backwards, to members
and the places of the input files they stand at. Also from a place of an input file. What the tables
no longer hold is told from the lineage of the releases.

"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.compute as pc

from mixup.errors import ConfigError
from mixup.ledger import FATE_MERGED, FATE_ORIGINAL, left_out
from mixup.operations.keys import resolve
from mixup.operations.pairs import mixture_fate, pair_of
from mixup.operations.places import at_place, occurrence, occurrences_of, place_of
from mixup.operations.releases import lineage_rows, release_row
from mixup.operations.view import View
from mixup.records import bucket_of
from mixup.stages.survey import CLUSTER_NOT_DISTILLED, CLUSTER_REJECTED, record_fate
from mixup.stages.verdicts import Verdict
from mixup.tables import scan_files
from mixup.workspace import Workspace


def trace(workspace: Workspace, key: str) -> dict[str, Any]:
    """Follow a key in both directions.

    Args:
        workspace: The workspace.
        key: The key of a record, cluster, sample, release row or pair of a mixture, or at least 6
            leading characters of one; or a place of an input file, ``path:NUMBER`` (see
            ``at_place``).

    Returns:
        JSON data: ``kind`` (record, cluster, sample, row, pair or quarantine), ``key``,
        ``release``, ``moved_on`` (whether the tables are newer than the release), ``releases`` (in
        which releases it is a row or part of one), and what the kind has.

    Raises:
        ConfigError: If nothing has the key, or several things do.
    """
    view = View.of(workspace)
    about = {"release": view.release, "moved_on": view.release is not None and view.has_moved_on}
    if place := place_of(key):
        found = at_place(view, *place)
        if "uid" not in found:
            return {"kind": "quarantine", "key": key, **about, "releases": [], **found}
        parts = _record(view, found["uid"])
        return {"kind": "record", "key": found["uid"], **about, **parts, "place": found["place"]}
    kind, full = resolve(view, key)
    parts = {
        "record": _record,
        "cluster": _cluster,
        "sample": _sample,
        "row": _row,
        "pair": pair_of,
    }[kind](view, full)
    return {"kind": kind, "key": full, **about, **parts}


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
        "contamination": _contamination(view, uid),
        "curation": curation,
        "fate": _fate(view, uid, curation, cluster),
        "releases": view.memberships("member", uid),
        "mixture": mixture_fate(view, uid),
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


def _contamination(view: View, uid: str) -> dict[str, Any] | None:
    """The record's outcome under the release's evaluation questions, else under any.

    ``kind`` is null where it holds none of them; None where it was not compared with any.
    """
    rows = view.rows("contamination", "uid", uid)
    rows.sort(key=lambda row: row["questions"] != view.questions)
    return {name: rows[0][name] for name in rows[0] if name != "uid"} if rows else None


def _fate(
    view: View,
    uid: str,
    curation: Mapping[str, Any] | None,
    cluster: Mapping[str, Any] | None,
) -> dict[str, Any] | None:
    """The record's fate in the current release and the row it is in; None without a release."""
    if view.release is None:
        return None
    if rows := view.released("member", uid):
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
        {
            "uid": uid,
            "text": text,
            "rating": _rating(view, uid),
            "occurrences": occurrences_of(view, uid),
        }
        for uid, text in texts
    ]
    names = ("cluster", "task", "cohesion", "tokens", "licence", "fate")
    return {
        **{name: found[name] for name in names},
        "members": members,
        "samples": found["samples"],
        "releases": view.memberships("id", key),
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
    return {**found, "releases": view.memberships("sample", key)}


def _row(view: View, key: str) -> dict[str, Any]:
    """A row of a release whose record or cluster the tables no longer hold.

    The newest release that has it is the witness: its lineage for members and places, its data for
    the text. What the tables still hold of its sample and members is added.
    """
    made = view.memberships("id", key)
    witness, sample = made[0]["release"], made[0]["sample"]
    rows = lineage_rows(view.workspace, witness, "id", key)
    data = release_row(view.workspace, witness, key)
    names = ("messages", "task", "source", "licence", "quality")
    return {
        "row_kind": made[0]["kind"],
        "witness": witness,
        "sample": sample,
        "samples": _samples_left(view, key, sample),
        "row": None if data is None else {name: data.get(name) for name in names},
        "members": [
            {
                "uid": uid,
                "rating": _rating(view, uid),
                "occurrences": _witnessed(view, [row for row in rows if row["member"] == uid]),
            }
            for uid in sorted({row["member"] for row in rows})
        ],
        "releases": made,
    }


def _witnessed(view: View, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The places that a lineage names; one of an older mixup may name none."""
    placed = [row for row in rows if row.get("path")]
    return [occurrence(view.files.get(row["file"], {}), row) for row in placed] or [
        place for uid in {row["member"] for row in rows} for place in occurrences_of(view, uid)
    ]


def _samples_left(view: View, cluster: str, sample: str | None) -> list[dict[str, Any]]:
    """The sample of a row whose cluster is dissolved, if it is there, with its rewards."""
    if sample is None:
        return []
    held = [row for row in view.rows("samples", "cluster", cluster) if row["sample"] == sample]
    rewards = view.rows("rewards", "sample", sample, placed_by=cluster)
    values = {row["component"]: row["value"] for row in rewards}
    return [{**_sample_row(row), "rewards": values, "released": True} for row in held]


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
    released = {row["sample"] for row in view.released("id", cluster)}
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
    unjudged["contamination"] = None
    return {**{name: row[name] for name in names}, **unjudged, "released": False}


def _judgment(verdict: Verdict) -> dict[str, Any]:
    return {
        "rewards": dict(verdict.values),
        "combined": verdict.combined.value,
        "accepted": verdict.is_accepted,
        "reason": verdict.reason,
        "contamination": None if verdict.contamination is None else vars(verdict.contamination),
    }


def _cluster_fate(
    view: View, key: str, samples: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """The fate that a cluster's members share in the current release."""
    if view.release is None:
        return None
    if view.released("id", key):
        return {"fate": FATE_MERGED, "row": key}
    state = "cluster_not_selected"
    if not samples:
        state = CLUSTER_NOT_DISTILLED
    elif not any(sample["accepted"] for sample in samples):
        state = CLUSTER_REJECTED
    return {"fate": left_out(state), "row": None}
