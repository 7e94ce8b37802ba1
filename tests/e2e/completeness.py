"""Whether a workspace that went through kills holds what an undisturbed run makes."""

from __future__ import annotations

from collections import Counter

import pyarrow.parquet as pq
from conftest import Job

from mixup.records import TABLES


def keys_of(job: Job, name: str) -> Counter[tuple]:
    """How often each key of a table occurs."""
    table = job.table(name).select(list(TABLES[name].key))
    return Counter(tuple(row.values()) for row in table.to_pylist())


def texts_of(job: Job) -> dict[str, str | None]:
    """The text of each sample."""
    return {row["sample"]: row["text"] for row in job.table("samples").to_pylist()}


def released_ids(job: Job) -> Counter[str]:
    """How often each row is in the current release."""
    return Counter(pq.read_table(job.release() / "data", columns=["id"])["id"].to_pylist())


def check_complete(job: Job, whole: Job) -> None:
    """The tables and the release are those of an undisturbed run, and the ledger sums."""
    for name in whole.tables():
        keys = keys_of(job, name)
        doubled = [key for key, count in keys.items() if count > 1]
        assert not doubled, f"{name}: {len(doubled)} keys occur twice, such as {doubled[0]}"
        expected = keys_of(whole, name)
        other = len(expected - keys), len(keys - expected)
        assert other == (0, 0), f"{name}: {other[0]} keys are missing, {other[1]} too many"
    scores = Counter(job.table("rewards")["sample"].to_pylist())
    texts = Counter({key: 4 for key, text in texts_of(job).items() if text is not None})
    assert scores == texts, f"rewards: {len(scores)} samples are scored, {len(texts)} have a text"
    manifest = job.manifest()
    fates, expected = manifest["fates"], whole.manifest()["fates"]
    assert fates == expected, f"fates: {fates} instead of {expected}"
    assert sum(fates.values()) == manifest["counts"]["occurrences"], "the fates do not sum"
    for stage in manifest["stages"]:
        assert sum(stage["parts"].values()) == stage["rows_in"], f"{stage} does not sum"
    assert released_ids(job) == released_ids(whole), "the release holds other rows"
