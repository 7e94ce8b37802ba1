"""Survey: one pass over the buckets that counts fates and finds the best candidates.

A bucket's survey holds counts and at most ``limit`` candidates of each part, so that what the
driver merges is bounded by the size of the release, not of the pool.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixup.ledger import FATE_DUPLICATE, left_out
from mixup.records import Turn, content_key, uid_of
from mixup.report.clusters import cut_example, stratum
from mixup.report.digest import UNIT_BINS, ClusterExample, ContaminationHit, SampleExample
from mixup.rewards.format import format_score
from mixup.selection.acceptance import CONTAMINATED
from mixup.selection.licences import allowed
from mixup.selection.mixing import Ranked, TopRanked
from mixup.stages.decontaminate import contamination_of
from mixup.stages.pool import pool_occurrences
from mixup.stages.survey_scores import ScoreSurvey, survey_scores
from mixup.stages.verdicts import Judge, Judgment, Verdict
from mixup.tables import Snapshot, read_files
from mixup.workspace import Workspace

SURVEYED = (
    "occurrences",
    "ratings",
    "contamination",
    "places",
    "curation",
    "clusters",
    "samples",
    "rewards",
)
EXAMPLES_OF_A_STRATUM = 250  # two strata fill a report
MOST_HITS = 200
DISTILLED = "distilled"
_Value = TypeVar("_Value")

CLUSTER_ACCEPTED = "cluster_accepted"
CLUSTER_REJECTED = "cluster_rejected"
CLUSTER_NOT_DISTILLED = "cluster_not_distilled"


@dataclass
class Survey:
    """What the survey of some buckets found; adds up.

    Attributes:
        counts: Counts by name; those of fates are in occurrences, see ``survey_bucket``.
        sources: Occurrences by (source, licence).
        ratings: Records by observed rating.
        bins: Histograms on [0, 1] by name, ``UNIT_BINS`` counts each.
        cluster_sizes: Clusters by members.
        rejects: Samples by reason.
        licences: Licence by candidate key, of the candidates only.
        originals: The best original candidates.
        distilled: The best distilled candidates, by cluster.
        pairs: The content uid of each distilled candidate, to find equal ones.
        members: How many members each distilled candidate merges.
        qualities: The quality of each distilled candidate.
        examples: Clusters to show, texts cut: a seeded draw of each stratum (see
            ``mixup.report.clusters``) with its ranks, lowest first.
        contaminated: Records left out for an evaluation question, by benchmark.
        hits: Such records, and samples rejected for one: a seeded draw.
        scores: What curation says of ratings, cells and near-duplicates.
    """

    limit: int
    counts: Counter[str] = field(default_factory=Counter)
    sources: Counter[tuple[str, str]] = field(default_factory=Counter)
    ratings: Counter[int] = field(default_factory=Counter)
    bins: dict[str, np.ndarray] = field(default_factory=dict)
    cluster_sizes: Counter[int] = field(default_factory=Counter)
    rejects: Counter[str] = field(default_factory=Counter)
    originals: Ranked | None = None
    distilled: Ranked | None = None
    pairs: dict[str, str] = field(default_factory=dict)
    members: dict[str, int] = field(default_factory=dict)
    qualities: dict[str, float] = field(default_factory=dict)
    examples: dict[str, list[tuple[str, ClusterExample]]] = field(default_factory=dict)
    contaminated: Counter[str] = field(default_factory=Counter)
    hits: list[ContaminationHit] = field(default_factory=list)
    scores: ScoreSurvey = field(default_factory=ScoreSurvey)

    def merge(self, other: Survey) -> None:
        """Take in the survey of other buckets."""
        self.counts.update(other.counts)
        self.sources.update(other.sources)
        self.ratings.update(other.ratings)
        self.cluster_sizes.update(other.cluster_sizes)
        self.rejects.update(other.rejects)
        for name, bins in other.bins.items():
            self.bins[name] = self.bins.get(name, np.zeros(UNIT_BINS, np.int64)) + bins
        self.originals = _best(self.limit, self.originals, other.originals)
        self.distilled = _best(self.limit, self.distilled, other.distilled)
        chosen = set(self.distilled.keys) if self.distilled else set()
        self.pairs = _chosen(chosen, self.pairs, other.pairs)
        self.members = _chosen(chosen, self.members, other.members)
        self.qualities = _chosen(chosen, self.qualities, other.qualities)
        for name, found in other.examples.items():
            both = [*self.examples.get(name, []), *found]
            self.examples[name] = sorted(both, key=_rank)[:EXAMPLES_OF_A_STRATUM]
        self.contaminated.update(other.contaminated)
        self.add_hits(other.hits)
        self.scores.merge(other.scores)

    def add_hits(self, hits: Sequence[ContaminationHit]) -> None:
        """Take in contaminated rows or samples, as a draw that depends on their keys only."""
        ordered = sorted([*self.hits, *hits], key=lambda hit: content_key("hit", hit.key))
        self.hits = ordered[:MOST_HITS]


def _chosen(
    keys: Set[str], first: Mapping[str, _Value], second: Mapping[str, _Value]
) -> dict[str, _Value]:
    """The entries of both under the chosen keys; the second's win."""
    return {key: value for key, value in {**first, **second}.items() if key in keys}


def _best(limit: int, first: Ranked | None, second: Ranked | None) -> Ranked | None:
    top = TopRanked(limit)
    for part in (first, second):
        if part is not None and part.keys:
            top.add(part.keys, part.quality_N, part.long_tail_N)
    return top.result()


def _rank(ranked: tuple[str, ClusterExample]) -> str:
    return ranked[0]


def example_rank(cluster: str) -> str:
    """What decides whether a cluster is shown: it depends on the cluster's key only."""
    return content_key("example", cluster)


def _draw(survey: Survey, judgment: Judgment, verdict: str) -> None:
    """Keep a cluster to show if its rank is among the lowest of its stratum."""
    rank = example_rank(judgment.cluster["cluster"])
    reasons = [found.reason for found in judgment.verdicts]
    drawn = survey.examples.setdefault(stratum(verdict, reasons), [])
    if len(drawn) < EXAMPLES_OF_A_STRATUM or rank < drawn[-1][0]:
        insort(drawn, (rank, example_of(judgment, verdict)), key=_rank)
        del drawn[EXAMPLES_OF_A_STRATUM:]


@dataclass(frozen=True)
class SurveySettings:
    """What the survey needs to know.

    Attributes:
        judge: The rules for samples.
        rater: The rater's revision.
        licences: Allowed licences, or None for all.
        limit: Candidates wanted of each part.
        threshold: Lowest rating that counts as high.
    """

    judge: Judge
    rater: str
    licences: tuple[str, ...] | None
    limit: int
    threshold: int = 4


def survey_bucket(
    workspace: Workspace,
    tables: Mapping[str, Snapshot],
    bucket: int,
    pool: Sequence[str],
    settings: SurveySettings,
) -> Survey:
    """Survey one bucket; runs in a worker.

    The counts are fates of occurrences but for those of originals and clusters, which are decided
    only when the candidates of all buckets are ranked: ``original_candidates``, ``members:STATE``
    by the state of the members' cluster, and ``clustered`` records, which must equal the members.
    """
    survey = Survey(settings.limit)
    _survey_records(survey, workspace, tables, bucket, pool, settings)
    judgments = settings.judge.judge(workspace, tables, bucket)
    for judgment in judgments:
        _survey_cluster(survey, judgment)
    survey.distilled = _distilled_candidates(judgments, settings.limit)
    survey.merge(Survey(settings.limit))  # lets go of what is known of other clusters
    return survey


def _survey_records(
    survey: Survey,
    workspace: Workspace,
    tables: Mapping[str, Snapshot],
    bucket: int,
    pool: Sequence[str],
    settings: SurveySettings,
) -> None:
    occurrences = pool_occurrences(workspace, tables["occurrences"], bucket, pool)
    places = zip(occurrences["source"].to_pylist(), occurrences["licence"].to_pylist(), strict=True)
    survey.sources.update(places)
    uids = set(occurrences["uid"].to_pylist())
    survey.counts["records"] += len(uids)
    survey.counts["occurrences"] += occurrences.num_rows
    survey.counts[FATE_DUPLICATE] += occurrences.num_rows - len(uids)
    ratings = read_files(workspace, "ratings", tables["ratings"].in_bucket(bucket))
    ratings = ratings.filter(pc.equal(ratings["rater"], settings.rater))
    for uid, rating in zip(ratings["uid"].to_pylist(), ratings["rating"].to_pylist(), strict=True):
        if rating is not None and uid in uids:
            survey.ratings[rating] += 1
    curation = read_files(workspace, "curation", tables["curation"].in_bucket(bucket))
    places = read_files(workspace, "places", tables["places"].in_bucket(bucket), ["uid", "visits"])
    survey.scores = survey_scores(curation, ratings, places, settings.threshold)
    if settings.judge.questions is not None:
        found = contamination_of(
            workspace, tables["contamination"], bucket, settings.judge.questions, only_hits=True
        )
        _survey_contamination(survey, found, curation, occurrences)
    known = np.array([q for q in curation["quality"].to_pylist() if q is not None])
    survey.bins["quality_pool"] = unit_bins(known)
    far = np.array(curation["long_tail"].to_pylist(), np.float64)  # null becomes NaN
    survey.bins["long_tail_pool"] = unit_bins(far[np.isfinite(far)])
    keys: list[str] = []
    for row in curation.to_pylist():
        fate = record_fate(row, settings.licences)
        survey.counts[fate or "original_candidates"] += 1
        if fate is None:
            keys.append(row["uid"])
    chosen = curation.filter(pc.is_in(curation["uid"], value_set=pa.array(keys, pa.string())))
    top = TopRanked(settings.limit)
    if chosen.num_rows:
        long_tail = chosen["long_tail"].to_numpy()
        top.add(chosen["uid"].to_pylist(), chosen["quality"].to_numpy(), long_tail)
    survey.originals = top.result()


def _survey_contamination(
    survey: Survey, found: pa.Table, curation: pa.Table, occurrences: pa.Table
) -> None:
    """Count and show the pool's records that are left out for an evaluation question."""
    left = curation.filter(pc.equal(curation["tier"], CONTAMINATED))["uid"].to_pylist()
    rows = found.filter(pc.is_in(found["uid"], value_set=pa.array(left, pa.string()))).to_pylist()
    survey.contaminated.update(row["benchmark"] for row in rows)
    places = zip(occurrences["uid"].to_pylist(), occurrences["source"].to_pylist(), strict=True)
    sources: dict[str, set[str]] = {}
    for uid, source in places:
        sources.setdefault(uid, set()).add(source)
    names = ("kind", "benchmark", "question", "place", "matched")
    survey.add_hits(
        [
            ContaminationHit(
                key=row["uid"],
                source=", ".join(sorted(sources[row["uid"]])),
                **{name: row[name] for name in names},
            )
            for row in rows
        ]
    )


def record_fate(row: Mapping[str, Any], licences: Sequence[str] | None) -> str | None:
    """The fate of a record that no ranking decides; None for a candidate original.

    Args:
        row: Its row in the curation table.
        licences: Allowed licences, or None for all.
    """
    if row["tier"] == "duplicate":
        return left_out("near_duplicate")
    if row["cluster"] is not None:
        return "clustered"
    if row["tier"] != "high":
        return left_out(row["reason"])
    return None if allowed(row["licence"], licences) else left_out("licence")


def _survey_cluster(survey: Survey, judgment: Judgment) -> None:
    cluster, best = judgment.cluster, judgment.best
    size = len(cluster["members"])
    state = CLUSTER_ACCEPTED if best else CLUSTER_REJECTED
    if not judgment.verdicts:
        state = CLUSTER_NOT_DISTILLED
    survey.counts[state] += 1
    survey.counts[f"members:{state}"] += size
    survey.cluster_sizes[size] += 1
    _add_bins(survey, "cohesion", [cluster["cohesion"]])
    for verdict in judgment.verdicts:
        _survey_sample(survey, cluster["task"], verdict)
    if best is not None:
        key = cluster["cluster"]
        survey.pairs[key] = uid_of([Turn(**turn) for turn in best.sample["turns"]])
        survey.members[key] = size
        survey.qualities[key] = best.values.get("quality") or 0.0
        survey.counts["accepted"] += 1
    _draw(survey, judgment, state.removeprefix("cluster_"))


def _distilled_candidates(judgments: Sequence[Judgment], limit: int) -> Ranked:
    """The best distilled candidates: by combined reward, then by the members' long-tail score."""
    found = [(judgment.cluster, judgment.best) for judgment in judgments]
    accepted = [(cluster, best) for cluster, best in found if best is not None]
    top = TopRanked(limit)
    if accepted:
        top.add(
            [cluster["cluster"] for cluster, _ in accepted],
            np.array([best.combined.value for _, best in accepted], np.float64),
            np.array([cluster["long_tail"] for cluster, _ in accepted], np.float64),
        )
    return top.result()


def _survey_sample(survey: Survey, task: str, verdict: Verdict) -> None:
    sample = verdict.sample
    survey.counts["samples"] += 1
    if verdict.reason is not None:
        survey.rejects[verdict.reason] += 1
    if match := verdict.contamination:
        hit = ContaminationHit(key=sample["sample"], source=DISTILLED, **vars(match))
        survey.add_hits([hit])
    for name, value in {**verdict.values, "combined": verdict.combined.value}.items():
        if value is None:
            survey.counts[f"missing:{name}"] += 1
        else:
            _add_bins(survey, f"reward:{name}", [value])
    if sample["text"] is not None:
        kind = "constrained" if sample["constrained"] else "unconstrained"
        survey.counts[f"{kind}:total"] += 1
        complies = format_score(sample["text"], task, mode="soft") == 1.0
        survey.counts[f"{kind}:ok"] += complies


def _add_bins(survey: Survey, name: str, values: Sequence[float]) -> None:
    bins = unit_bins(np.array([value for value in values if value is not None]))
    survey.bins[name] = survey.bins.get(name, np.zeros(UNIT_BINS, np.int64)) + bins


def unit_bins(values_N: np.ndarray) -> np.ndarray:
    """Counts of values in ``UNIT_BINS`` equal bins on [0, 1]; values outside go to the end bins."""
    clipped = np.clip(values_N.astype(np.float64), 0.0, 1.0)
    places = np.minimum((clipped * UNIT_BINS).astype(np.int64), UNIT_BINS - 1)
    return np.bincount(places, minlength=UNIT_BINS)


def example_of(judgment: Judgment, verdict: str) -> ClusterExample:
    """A judged cluster as the report shows it, with its texts cut."""
    cluster = judgment.cluster
    return cut_example(
        ClusterExample(
            cluster=cluster["cluster"],
            task=cluster["task"],
            cohesion=cluster["cohesion"],
            inputs=tuple(cluster["inputs"]),
            samples=tuple(_sample(found) for found in judgment.verdicts),
            verdict=verdict,
        )
    )


def _sample(verdict: Verdict) -> SampleExample:
    return SampleExample(
        text=verdict.sample["text"] or "",
        thought=verdict.sample["thought"],
        turns=tuple(Turn(**turn) for turn in verdict.sample["turns"] or ()),
        finish=verdict.sample["finish"],
        constrained=bool(verdict.sample["constrained"]),
        rewards=dict(verdict.values),
        combined=verdict.combined.value,
        accepted=verdict.is_accepted,
        reason=verdict.reason,
    )
