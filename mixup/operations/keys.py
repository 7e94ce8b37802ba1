"""Keys as people type them: what a whole key, or its first characters, stands for.

A key's leading characters say in which bucket its row lies, so the files of a few buckets are read.
Only a sample's key does not (samples lie with their cluster): those are looked for last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow.compute as pc

from mixup.errors import ConfigError
from mixup.operations.releases import ids_beginning
from mixup.operations.view import View
from mixup.records import KEY_BYTES, bucket_of
from mixup.tables import scan_files

MIN_PREFIX = 6
_KEY_CHARS = 2 * KEY_BYTES
_SHOWN_KEYS = 5
_TABLES = (
    ("record", "records", "uid"),
    ("cluster", "clusters", "cluster"),
    ("pair", "mixture", "pair"),
)
"""The tables whose keys say in which bucket they lie, by the kind of thing that they hold."""


def resolve(view: View, key: str) -> tuple[str, str]:
    """The kind and the whole key that a prefix stands for."""
    prefix = key.strip().lower()
    if not MIN_PREFIX <= len(prefix) <= _KEY_CHARS or set(prefix) - set("0123456789abcdef"):
        raise ConfigError(
            f"{key!r} is no key: expected {MIN_PREFIX} to {_KEY_CHARS} hexadecimal characters, or "
            "a place such as pool/file.jsonl:12"
        )
    found: dict[str, str] = {}
    for kind, keys in _candidates(view, prefix):
        for full in keys:
            found.setdefault(full, kind)
        if found and len(prefix) == _KEY_CHARS:
            break
    if not found:
        raise ConfigError(
            f"nothing in {view.workspace.uri} has the key {prefix}: no record, cluster, pair or "
            f"sample of its tables, and no row of its {len(view.releases)} release(s)"
        )
    if len(found) > 1:
        shown = ", ".join(f"{kind} {full}" for full, kind in list(found.items())[:_SHOWN_KEYS])
        raise ConfigError(f"{prefix} is ambiguous, {len(found)} keys begin so: {shown}; type more")
    ((full, kind),) = found.items()
    return kind, full


def _candidates(view: View, prefix: str) -> Iterator[tuple[str, list[str]]]:
    """Whole keys that begin so, by kind, the cheapest to find first."""
    for kind, table, column in _TABLES:
        yield kind, _beginning(view, table, column, _near(view, table, prefix), prefix)
    for release in view.releases:
        yield "row", sorted(ids_beginning(view.workspace, release, prefix))
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
