"""A workspace as the operations read it: few files, nothing written, no model loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs
from pydantic import ValidationError

from mixup.actors.rewards import RewardSettings
from mixup.config import JudgeRater, RefreshConfig
from mixup.errors import TableError
from mixup.records import bucket_of
from mixup.stages.publish import current_release
from mixup.stages.rate import rater_revision
from mixup.stages.verdicts import Judge
from mixup.tables import Snapshot, read_files, scan_files, snapshot
from mixup.workspace import Workspace

_READ_BYTES = 1 << 20
_LINEAGE = ["id", "kind", "sample", "member"]
_TABLES = (
    "files",
    "occurrences",
    "records",
    "ratings",
    "curation",
    "clusters",
    "samples",
    "rewards",
)


@dataclass(frozen=True)
class View:
    """A workspace as it stands, and its current release.

    Attributes:
        workspace: The workspace.
        tables: A snapshot of each table that a trace reads.
        release: The current release's name, or None.
        manifest: Its manifest; empty without one.
    """

    workspace: Workspace
    tables: Mapping[str, Snapshot]
    release: str | None
    manifest: Mapping[str, Any]

    @classmethod
    def of(cls, workspace: Workspace) -> View:
        """The workspace now."""
        current = current_release(workspace)
        name = None if current is None else current[0]
        manifest = workspace.read_json(f"releases/{name}/manifest.json") if name else None
        tables = {table: snapshot(workspace, table) for table in _TABLES}
        return cls(workspace, tables, name, manifest or {})

    def bucket(self, table: str, key: str) -> tuple[str, ...]:
        """The files of a table that may hold a key."""
        return self.tables[table].in_bucket(bucket_of(key, self.workspace.buckets))

    def rows(
        self, table: str, column: str, key: str, *, placed_by: str | None = None
    ) -> list[dict[str, Any]]:
        """The rows with a key; ``placed_by`` is the key that decides the bucket, if another."""
        paths = self.bucket(table, placed_by or key)
        parts = scan_files(self.workspace, table, paths)
        return [
            row for part in parts for row in part.filter(pc.equal(part[column], key)).to_pylist()
        ]

    @cached_property
    def config(self) -> RefreshConfig | None:
        """The release's config, or None where there is none that this version reads."""
        try:
            return RefreshConfig.model_validate(self.manifest["config"])
        except (KeyError, ValidationError):
            return None

    @cached_property
    def models(self) -> dict[str, str]:
        """The revisions that the release states, by role."""
        return {m["role"]: m["revision"] for m in self.manifest.get("models", ())}

    @cached_property
    def rater(self) -> str | None:
        """The revision of the release's rater; a judge's is stated, since no model is read here."""
        if self.config is None or isinstance(self.config.rate, JudgeRater):
            return self.models.get("judge")
        return rater_revision(self.config.rate)

    @cached_property
    def judge(self) -> Judge | None:
        """The release's rules for samples, made from its config and the revisions it states."""
        models = self.models
        if self.config is None or "encoder" not in models:
            return None
        settings = RewardSettings.of(self.config, models["encoder"], models.get("reference"))
        return Judge.of(self.config.reward, settings)

    @cached_property
    def lineage(self) -> pa.Table:
        """The release's lineage; bounded by the size of the release.

        Raises:
            TableError: If the release lacks it.
        """
        if self.release is None:
            return pa.table({name: pa.array([], pa.string()) for name in _LINEAGE})
        filesystem, _ = self.workspace.filesystem()
        path = self.workspace.path(f"releases/{self.release}/lineage.parquet")
        try:
            return pq.read_table(path, columns=_LINEAGE, filesystem=filesystem)
        except FileNotFoundError as error:
            raise TableError(f"{path} is missing, so no fate can be told") from error

    @cached_property
    def files(self) -> dict[str, dict[str, Any]]:
        """The input files by fingerprint."""
        rows = read_files(self.workspace, "files", self.tables["files"].paths)
        return {row["fingerprint"]: row for row in rows.to_pylist()}

    @property
    def has_moved_on(self) -> bool:
        """Whether a table has changed since the release was made from it."""
        made_from = self.manifest.get("tables", {})
        return any(self.tables[name].version != made_from.get(name) for name in _TABLES)


def occurrences_of(view: View, uid: str) -> list[dict[str, Any]]:
    """Where a record occurs: path, offset, line or row, source and licence."""
    found = []
    for row in view.rows("occurrences", "uid", uid):
        file = view.files.get(row["file"], {})
        place = {"path": file.get("path"), "offset": row["offset"], **_place(file, row["offset"])}
        found.append({**place, "source": row["source"], "licence": row["licence"]})
    return sorted(found, key=lambda place: (place["path"] or "", place["offset"]))


def _place(file: Mapping[str, Any], offset: int) -> dict[str, int]:
    """The row of a Parquet or Arrow file, or the line of a local plain JSONL file, from 1."""
    path = file.get("path", "")
    if path.endswith((".parquet", ".arrow")):
        return {"row": offset}
    if not path.endswith((".jsonl", ".ndjson")) or "://" in path:
        return {}
    line = _line_number(path, offset, size=file["size"])
    return {} if line is None else {"line": line}


def _line_number(path: str, offset: int, *, size: int) -> int | None:
    """The line that starts at a byte offset; None if the file is gone or is not of that size."""
    filesystem = fs.LocalFileSystem()
    if filesystem.get_file_info(path).size != size:
        return None
    line = 1
    with filesystem.open_input_stream(path, compression=None) as stream:
        while offset > 0 and (data := stream.read(min(offset, _READ_BYTES))):
            line += data.count(b"\n")
            offset -= len(data)
    return line
