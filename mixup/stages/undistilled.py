"""Which samples a distiller has yet to make, of which clusters, and what it is asked for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mixup.cover import uncovered
from mixup.models.chat import PROMPT_TOO_LONG, render_chat
from mixup.records import content_key
from mixup.refresh_config import DistillConfig
from mixup.stages.verdicts import Judge
from mixup.tables import Snapshot, read_files
from mixup.text.prompts import build_messages, prompt_revision
from mixup.workspace import Workspace

WANTED = pa.schema(
    [
        ("sample", pa.string()),
        ("cluster", pa.string()),
        ("task", pa.string()),
        ("inputs", pa.list_(pa.string())),
        ("index", pa.int32()),
        ("constrained", pa.bool_()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("reason", pa.string()),
        ("attempts", pa.int32()),
    ]
)
"""A sample that is wanted, with its prompt."""


@dataclass(frozen=True)
class Distiller:
    """The distiller of a run and how it samples.

    Attributes:
        config: The settings.
        revision: The model's revision.
        seed: The run's seed.
    """

    config: DistillConfig
    revision: str
    seed: int

    def is_constrained(self, index: int) -> bool:
        """Whether the sample of an index is generated under the task's pattern."""
        return self.config.structured == "all" or (
            self.config.structured == "all_but_first" and index > 0
        )

    def sample_key(self, cluster: str, index: int) -> str:
        """The key of a sample: all that its text depends on. Raising n only adds keys."""
        return content_key("sample", cluster, index, self.is_constrained(index), self.decides())

    def decides(self) -> list[Any]:
        """JSON data that decides the text of every sample."""
        config = self.config
        sampling = [config.temperature, config.top_p, config.max_tokens, config.context_tokens]
        return [self.revision, prompt_revision(), sampling, self.seed]

    def prompt_budget(self) -> int:
        """The longest prompt in tokens."""
        return self.config.context_tokens - self.config.max_tokens


@dataclass(frozen=True)
class Undistilled:
    """Where the clusters are of which samples are wanted.

    Attributes:
        workspace: The workspace.
        tables: Snapshots of ``clusters``, ``samples`` and ``rewards``.
        distiller: Who makes the samples.
        judge: The rules for them.
        scope: The keys of the clusters that are distilled; None: all.
    """

    workspace: Workspace
    tables: Mapping[str, Snapshot]
    distiller: Distiller
    judge: Judge
    scope: Sequence[str] | None

    def samples(self, bucket: int) -> list[dict[str, Any]]:
        """The missing samples of one bucket, without prompts; runs in a worker.

        Those of the most cohesive clusters come first.
        """
        wanted = self._asked_of(bucket)
        paths = self.tables["samples"].in_bucket(bucket)
        held = read_files(self.workspace, "samples", paths, ["sample", "reason", "attempts"])
        keys = pa.table({"sample": pa.array([row["sample"] for row in wanted], pa.string())})
        missing = uncovered(keys, held, "sample")
        attempts = dict(
            zip(missing["sample"].to_pylist(), missing["attempts"].to_pylist(), strict=True)
        )
        return [
            {**row, "attempts": attempts[row["sample"]]}
            for row in wanted
            if row["sample"] in attempts
        ]

    def with_prompt(self, row: dict[str, Any]) -> dict[str, Any]:
        """A missing sample with its prompt, or with the reason why there can be none."""
        prompt_ids = render_prompt(self.distiller.config.model, row["inputs"], row["task"])
        if len(prompt_ids) > self.distiller.prompt_budget():
            return {**row, "prompt_ids": [], "reason": PROMPT_TOO_LONG}
        return {**row, "prompt_ids": prompt_ids}

    def _asked_of(self, bucket: int) -> list[dict[str, Any]]:
        """All samples that the bucket's clusters are to have, made before or not."""
        distiller = self.distiller
        judgments = self.judge.judge(self.workspace, self.tables, bucket)
        if self.scope is not None:
            inside = set(self.scope)
            judgments = [found for found in judgments if found.cluster["cluster"] in inside]
        if distiller.config.keep == "accepted":
            judgments = [found for found in judgments if found.best is None]
        judgments.sort(key=lambda found: -found.cluster["cohesion"])
        return [
            {
                "sample": distiller.sample_key(found.cluster["cluster"], index),
                "cluster": found.cluster["cluster"],
                "task": found.cluster["task"],
                "inputs": found.cluster["inputs"],
                "index": index,
                "constrained": distiller.is_constrained(index),
            }
            for found in judgments
            for index in range(distiller.config.samples)
        ]


def clusters_in_scope(workspace: Workspace, clusters: Snapshot, limit: int) -> list[str]:
    """The keys of at most ``limit`` clusters: of each task in turn the most cohesive one left."""
    rows = read_files(workspace, "clusters", clusters.paths, ["cluster", "task", "cohesion"])
    ranked: dict[str, list[tuple[float, str]]] = {}
    for row in rows.to_pylist():
        ranked.setdefault(row["task"], []).append((-row["cohesion"], row["cluster"]))
    turns = [
        (place, task, key)
        for task, found in ranked.items()
        for place, (_, key) in enumerate(sorted(found))
    ]
    return [key for _, _, key in sorted(turns)[:limit]]


def render_prompt(model: str, inputs: Sequence[str], task: str) -> list[int]:
    """The token ids of a cluster's prompt in the model's chat template."""
    return render_chat(model, build_messages(inputs, task))
