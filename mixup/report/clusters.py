"""The clusters that a report shows: which ones, how much of their texts, and as what data.

A pool can have millions of clusters with megabytes in one row, and a page must open on a phone. So
the draw, each text, and the page's data are bounded, and the page says what it leaves out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from markupsafe import Markup

from mixup.records import Turn
from mixup.report.digest import VERDICTS, ClusterExample, Digest, SampleExample
from mixup.report.wording import sentence, visible, words

CLUSTERS_SHOWN = 500
TEXT_CHARS = 1_500
DATA_BYTES = 9_000_000  # of cluster data in a page, which stays below 15 MB with all else
VERDICT_LABELS = {
    "released": "Released",
    "accepted": "Accepted, not selected",
    "rejected": "Rejected",
    "not_distilled": "Not distilled",
}


def verdict_of(example: ClusterExample) -> str:
    """The verdict on a cluster; from its samples where the digest does not tell."""
    if example.verdict in VERDICTS:
        return example.verdict
    if not example.samples:
        return "not_distilled"
    return "accepted" if any(sample.accepted for sample in example.samples) else "rejected"


def best_reward(example: ClusterExample) -> float | None:
    """The combined reward of the best accepted sample, or of the best one if none is accepted."""
    accepted = [sample for sample in example.samples if sample.accepted]
    found = [s.combined for s in accepted or example.samples if s.combined is not None]
    return max(found, default=None)


def stratum(verdict: str, reasons: Iterable[str | None]) -> str:
    """The group from which a cluster is drawn: its verdict and, if rejected, its first reason."""
    reason = next(filter(None, reasons), None)
    return f"{verdict}:{reason}" if verdict == "rejected" and reason else verdict


def draw(strata: Mapping[str, Sequence[ClusterExample]], limit: int) -> list[ClusterExample]:
    """At most ``limit`` clusters, one of each stratum in turn, so that rare verdicts are there."""

    def place(name: str) -> tuple[int, str]:
        return VERDICTS.index(name.partition(":")[0]), name

    rounds = zip_longest(*(strata[name] for name in sorted(strata, key=place)))
    return [example for turn in rounds for example in turn if example is not None][:limit]


def cut_example(example: ClusterExample, limit: int = TEXT_CHARS) -> ClusterExample:
    """The cluster with each text cut to ``limit`` characters, and how many each one lost.

    Places are ``input:MEMBER``, ``text:SAMPLE``, ``thought:SAMPLE`` and ``turn:SAMPLE:TURN``. What
    was cut before is counted on.
    """
    cut = dict(example.cut)

    def short(text: str, place: str) -> str:
        if len(text) > limit:
            cut[place] = cut.get(place, 0) + len(text) - limit
        return text[:limit]

    def short_sample(at: int, sample: SampleExample) -> SampleExample:
        turns = (
            Turn(turn.role, short(turn.content, f"turn:{at}:{number}"))
            for number, turn in enumerate(sample.turns)
        )
        thought = sample.thought
        return replace(
            sample,
            text=short(sample.text, f"text:{at}"),
            thought=None if thought is None else short(thought, f"thought:{at}"),
            turns=tuple(turns),
        )

    inputs = tuple(short(text, f"input:{at}") for at, text in enumerate(example.inputs))
    samples = tuple(short_sample(at, sample) for at, sample in enumerate(example.samples))
    return replace(example, inputs=inputs, samples=samples, cut=cut)


@dataclass(frozen=True)
class ShownClusters:
    """What the page shows of the clusters.

    Attributes:
        examples: The clusters, texts cut.
        data: The same for the page's script, as JSON that is safe inside a script element.
        total: Clusters that there are.
        verdicts: Verdict to how many are shown and how many there are (None if not known).
        reasons: Reason to shown clusters with a sample that was rejected for it.
        tasks: Task to shown clusters.
    """

    examples: tuple[ClusterExample, ...]
    data: Markup
    total: int
    verdicts: dict[str, tuple[int, int | None]]
    reasons: dict[str, int]
    tasks: dict[str, int]


def shown_clusters(digest: Digest, data_bytes: int = DATA_BYTES) -> ShownClusters:
    """The clusters of a digest that fit in ``data_bytes`` of the page."""
    examples: list[ClusterExample] = []
    documents: list[str] = []
    room = data_bytes
    for example in digest.examples[:CLUSTERS_SHOWN]:
        short = cut_example(example)
        document = script_json(_document(short))
        room -= len(document.encode("utf-8"))
        if room < 0:
            break
        examples.append(short)
        documents.append(document)
    shown = [verdict_of(example) for example in examples]
    verdicts = {name: (shown.count(name), digest.clusters.get(name)) for name in VERDICTS}
    head = script_json({"labels": _labels(examples)})
    return ShownClusters(
        examples=tuple(examples),
        data=Markup(f'{head[:-1]},"clusters":[{",".join(documents)}]}}'),
        total=sum(digest.cluster_sizes.values()) or len(examples),
        verdicts={name: found for name, found in verdicts.items() if any(found)},
        reasons=_count(reason for example in examples for reason in _reasons_of(example)),
        tasks=_count(example.task for example in examples),
    )


def script_json(value: object) -> str:
    """JSON that neither ends a script element nor a line of a script, and encodes as UTF-8."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


_UNSAFE = re.compile("[<>&\u2028\u2029\ud800-\udfff]")


def _count(names: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in names:
        found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _reasons_of(example: ClusterExample) -> list[str]:
    return sorted({sample.reason for sample in example.samples if sample.reason})


def _labels(examples: Sequence[ClusterExample]) -> dict[str, Any]:
    reasons = {reason for example in examples for reason in _reasons_of(example)}
    return {
        "verdicts": VERDICT_LABELS,
        "short": {name: label.partition(",")[0] for name, label in VERDICT_LABELS.items()},
        "reasons": {visible(reason): sentence(words(reason)) for reason in sorted(reasons)},
    }


def _document(example: ClusterExample) -> dict[str, Any]:
    """A cluster as the page's script reads it; texts are [text, characters left out]."""

    def text(content: str, place: str) -> list[Any]:
        return [visible(content), example.cut.get(place, 0)]

    samples = [
        {
            "text": text(sample.text, f"text:{at}"),
            "thought": text(sample.thought, f"thought:{at}") if sample.thought else None,
            "turns": [
                [visible(turn.role), *text(turn.content, f"turn:{at}:{number}")]
                for number, turn in enumerate(sample.turns)
            ],
            "finish": visible(sample.finish) if sample.finish else None,
            "constrained": sample.constrained,
            "rewards": [[words(name), value] for name, value in _ordered(sample.rewards)],
            "combined": sample.combined,
            "accepted": sample.accepted,
            "reason": visible(sample.reason) if sample.reason else None,
        }
        for at, sample in enumerate(example.samples)
    ]
    return {
        "key": visible(example.cluster),
        "task": visible(example.task),
        "verdict": verdict_of(example),
        "cohesion": example.cohesion,
        "reward": best_reward(example),
        "members": [text(member, f"input:{at}") for at, member in enumerate(example.inputs)],
        "samples": samples,
    }


REWARD_ORDER = ("format", "alignment", "quality", "coverage", "combined")


def reward_order(names: Iterable[str]) -> list[str]:
    """Reward components in the order in which they are shown; unknown ones first."""
    known = {name: at for at, name in enumerate(REWARD_ORDER)}
    return sorted(names, key=lambda name: (known.get(name, -1), name))


def _ordered(rewards: Mapping[str, float | None]) -> list[tuple[str, float | None]]:
    return [(name, rewards[name]) for name in reward_order(rewards)]
