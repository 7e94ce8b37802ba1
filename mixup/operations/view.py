"""A workspace as the operations read it: few files, nothing written, no model loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow.compute as pc
from pydantic import ValidationError

from mixup.actors.reward_settings import RewardSettings
from mixup.operations.releases import lineage_rows, memberships, releases_of
from mixup.quality.scores import FALLBACK_VOTES
from mixup.rater_config import JudgeRater
from mixup.records import bucket_of
from mixup.refresh_config import RefreshConfig
from mixup.stages.decontaminate import has_questions
from mixup.stages.publish import current_release
from mixup.stages.rate import rater_revision
from mixup.stages.verdicts import Judge
from mixup.tables import Snapshot, read_files, scan_files, snapshot
from mixup.workspace import Workspace

_TABLES = (
    "files",
    "occurrences",
    "records",
    "ratings",
    "contamination",
    "curation",
    "clusters",
    "samples",
    "rewards",
)
_OTHERS = ("quarantine", "segments", "targets", "mixture", "leaks")
"""Tables that a trace reads and no release is made from."""


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
        tables = {table: snapshot(workspace, table) for table in (*_TABLES, *_OTHERS)}
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
        votes = self.manifest.get("scores", {}).get("effective_votes")
        if votes is None:  # of before it was fitted
            stated = self.config.curate.effective_votes
            votes = FALLBACK_VOTES if stated == "auto" else stated
        reference = models.get("reference")
        settings = RewardSettings.of(self.config, models["encoder"], reference, votes)
        known = self.questions is not None and has_questions(self.workspace, self.questions)
        return Judge.of(self.config.reward, settings, self.questions if known else None)

    @cached_property
    def releases(self) -> list[str]:
        """The releases that are there, the newest first."""
        return releases_of(self.workspace)

    def released(self, column: str, value: str) -> list[dict[str, Any]]:
        """The lineage of the current release with a value; empty without a release.

        Raises:
            TableError: If the release lacks its lineage.
        """
        if self.release is None:
            return []
        return lineage_rows(self.workspace, self.release, column, value)

    def memberships(self, column: str, value: str) -> list[dict[str, Any]]:
        """The rows of all releases with a value in their lineage."""
        return memberships(self.workspace, self.releases, column, value)

    @property
    def questions(self) -> str | None:
        """The revision of the evaluation questions that the release was checked against."""
        return self.manifest.get("contamination", {}).get("questions")

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
