"""Verdicts: clusters, samples and rewards of one bucket, put together and judged.

Nothing of this is stored: the combined reward and the best sample are derived, so other weights or
rules need no new samples.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from mixup.actors.reward_settings import RewardSettings
from mixup.records import Turn
from mixup.refresh_config import RewardConfig
from mixup.rewards.defects import copied_input, ends_open, lost_content, repetition
from mixup.rewards.rubric import COMPONENTS, Combined, Rubric, combine
from mixup.selection.acceptance import CONTAMINATED, AcceptanceRules, Facts, rejection
from mixup.selection.decontaminate import Match, QuestionIndex
from mixup.stages.decontaminate import load_questions
from mixup.tables import Snapshot, read_files
from mixup.text.parse import extract_answer
from mixup.workspace import Workspace

_FEWEST_COPIED_WORDS = 8


@dataclass(frozen=True)
class Verdict:
    """A sample with its scores and whether it may enter a release.

    Attributes:
        sample: The row of the samples table.
        values: Component to value; None where it could not be computed.
        combined: The combined reward and its parts.
        reason: Why it is rejected; None when it is accepted.
        contamination: The evaluation question that it holds. Looked for only in samples that pass
            everything else.
    """

    sample: Mapping[str, Any]
    values: Mapping[str, float | None]
    combined: Combined
    reason: str | None
    contamination: Match | None = None

    @property
    def is_accepted(self) -> bool:
        """Whether the sample may enter a release."""
        return self.reason is None


@dataclass(frozen=True)
class Judgment:
    """A cluster and the verdicts on its samples, in the order of their index."""

    cluster: Mapping[str, Any]
    verdicts: tuple[Verdict, ...]

    @property
    def best(self) -> Verdict | None:
        """The accepted sample with the largest reward; ties go to the lower index."""
        accepted = [verdict for verdict in self.verdicts if verdict.is_accepted]
        return max(accepted, key=lambda v: v.combined.value or 0.0, default=None)


@dataclass(frozen=True)
class Judge:
    """The rules: weights, acceptance, and the revisions of rewards that count.

    ``questions`` is the revision of the index of evaluation questions; None: none are looked for.
    """

    rubric: Rubric
    rules: AcceptanceRules
    revisions: Mapping[str, str]
    questions: str | None = None

    @classmethod
    def of(
        cls, config: RewardConfig, settings: RewardSettings, questions: str | None = None
    ) -> Judge:
        """The rules of a config, with the revision of the index of evaluation questions."""
        rules = AcceptanceRules(
            min_quality=config.min_quality,
            min_alignment=config.min_alignment,
            min_coverage=config.min_coverage,
            min_combined=config.min_combined,
            max_copied=config.max_copied,
            max_repetition=config.max_repetition,
            max_lost=config.max_lost,
        )
        revisions = {name: settings.revision(name) for name in COMPONENTS}
        return cls(Rubric(config.weights, config.task_weights), rules, revisions, questions)

    def decides(self) -> list[Any]:
        """JSON data of the rules."""
        weights = {task: dict(found) for task, found in self.rubric.task_weights.items()}
        rules = [dict(self.rubric.weights), weights, vars(self.rules), dict(self.revisions)]
        return [*rules, self.questions] if self.questions else rules

    def judge(
        self, workspace: Workspace, tables: Mapping[str, Snapshot], bucket: int | None
    ) -> list[Judgment]:
        """The judgments of all clusters of one bucket, by cluster key."""
        parts = {
            name: read_files(workspace, name, tables[name].in_bucket(bucket))
            for name in ("clusters", "samples", "rewards")
        }
        current = pc.is_in(parts["rewards"]["revision"], value_set=_values(self.revisions))
        values: dict[str, dict[str, float | None]] = defaultdict(dict)
        for row in parts["rewards"].filter(current).to_pylist():
            values[row["sample"]][row["component"]] = row["value"]
        samples: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in parts["samples"].to_pylist():
            samples[row["cluster"]].append(row)
        index = load_questions(workspace, self.questions) if self.questions else None
        return [
            Judgment(
                cluster, tuple(self._verdicts(cluster, samples[cluster["cluster"]], values, index))
            )
            for cluster in sorted(parts["clusters"].to_pylist(), key=lambda row: row["cluster"])
        ]

    def _verdicts(
        self,
        cluster: Mapping[str, Any],
        samples: list[dict[str, Any]],
        values: Mapping[str, Mapping[str, float | None]],
        index: QuestionIndex | None,
    ) -> list[Verdict]:
        weights = self.rubric.for_task(cluster["task"])
        found = []
        for sample in sorted(samples, key=lambda row: (row["index"], row["sample"])):
            scores = dict(values.get(sample["sample"], {}))
            combined = combine(scores, weights)
            facts = _facts(cluster, sample, scores, combined)
            reason, match = rejection(facts, self.rules), None
            if reason is None and index is not None:
                match = index.find([turn["content"] for turn in sample["turns"] or ()])
                reason = CONTAMINATED if match else None
            found.append(Verdict(sample, scores, combined, reason, match))
        return found


def _facts(
    cluster: Mapping[str, Any],
    sample: Mapping[str, Any],
    scores: Mapping[str, float | None],
    combined: Combined,
) -> Facts:
    """What the acceptance rules ask of a sample."""
    inputs = cluster["inputs"]
    answer = extract_answer(sample["text"] or "") or ""
    turns = [Turn(**turn) for turn in sample["turns"] or ()]
    # A copied reply below a new question is a copy; a short one (True, an option) must be in there.
    reply = turns[-1].content if turns else ""
    copies = [answer, reply] if len(reply.split()) >= _FEWEST_COPIED_WORDS else [answer]
    open_field = bool(turns and sample["constrained"] and ends_open(turns, cluster["task"]))
    return Facts(
        reason=sample["reason"],
        is_cut=sample["finish"] == "length" or open_field,
        values=scores,
        combined=combined,
        copied=max(copied_input(text, inputs) for text in copies),
        repetition=repetition(answer),
        lost=lost_content(answer, inputs),
    )


def _values(revisions: Mapping[str, str]) -> Any:
    import pyarrow as pa

    return pa.array(list(revisions.values()))
