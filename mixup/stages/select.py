"""Select: the best distilled pairs and the best originals, and the fate of everything else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from mixup.errors import MixupError
from mixup.ledger import (
    FATE_DUPLICATE,
    FATE_MERGED,
    FATE_ORIGINAL,
    FATE_QUARANTINED,
    StageCounts,
    check_fates,
    left_out,
)
from mixup.refresh_config import SelectConfig
from mixup.selection.mixing import MixSizes, mix
from mixup.stages.cover import TASK_CPUS
from mixup.stages.manifests import run_tasks
from mixup.stages.run import RunContext, Stopwatch
from mixup.stages.survey import SURVEYED, Survey, SurveySettings, survey_bucket
from mixup.tables import Snapshot

_IN_FLIGHT = 8


@dataclass(frozen=True)
class Selection:
    """What goes into a release.

    Attributes:
        originals: Record uids, best first.
        distilled: Cluster keys, best first.
        quality: Quality of each selected row, by its key.
        sizes: What was wanted and what there was.
        fates: Occurrences by fate.
        survey: Counts and examples of the whole pool.
        counts: The stage's counts.
    """

    originals: list[str]
    distilled: list[str]
    quality: Mapping[str, float]
    sizes: MixSizes
    fates: dict[str, int]
    survey: Survey
    counts: StageCounts


def survey_pool(
    context: RunContext, tables: Mapping[str, Snapshot], settings: SurveySettings
) -> Survey:
    """The survey of all buckets, merged as their tasks end."""
    import ray

    task = ray.remote(num_cpus=TASK_CPUS)(survey_bucket)
    survey = Survey(settings.limit)
    buckets = sorted({bucket for name in SURVEYED for bucket in tables[name].buckets})
    calls = [(context.workspace, tables, bucket, context.pool, settings) for bucket in buckets]
    for found in run_tasks(task, calls, in_flight=_IN_FLIGHT):
        survey.merge(found)
    return survey


def select(
    context: RunContext,
    tables: Mapping[str, Snapshot],
    config: SelectConfig,
    settings: SurveySettings,
    quarantined: int,
) -> Selection:
    """Choose the rows of a release and account for every occurrence of the pool.

    Args:
        context: The run.
        tables: The versions that the release is made from.
        config: Size, share and licences.
        settings: What the survey needs.
        quarantined: Quarantined occurrences of the pool's files.

    Raises:
        LedgerError: If an occurrence has no fate or several.
        MixupError: If the release falls short and the config says ``fail``.
    """
    watch = Stopwatch()
    survey = survey_pool(context, tables, settings)
    originals = survey.originals.keys if survey.originals else []
    distilled = _distinct(survey, set(originals))
    sizes = _sizes(config, len(distilled), len(originals))
    originals, distilled = originals[: sizes.originals], distilled[: sizes.distilled]
    fates = _fates(survey, originals, distilled, quarantined)
    check_fates(fates, survey.counts["occurrences"] + quarantined)
    there = survey.counts["original_candidates"] + survey.counts["accepted"]
    counts = StageCounts(
        stage="select",
        unit="candidates",
        rows_in=there,
        parts={
            "originals": len(originals),
            "distilled": len(distilled),
            "not_selected": there - len(originals) - len(distilled),
        },
        seconds=watch.seconds,
    ).check()
    quality = {key: survey.qualities[key] for key in distilled}
    if survey.originals:
        ranked = zip(survey.originals.keys, survey.originals.quality_N.tolist(), strict=True)
        quality.update(list(ranked)[: len(originals)])
    return Selection(originals, distilled, quality, sizes, fates, survey, counts.log())


def _sizes(config: SelectConfig, distilled: int, originals: int) -> MixSizes:
    """How many of so many candidates are selected.

    Raises:
        MixupError: If there are none, or too few and the config says ``fail``.
    """
    sizes = mix(
        distilled,
        originals,
        size=config.size,
        distilled_share=config.distilled_share,
        policy=config.shortfall,
    )
    if config.shortfall == "fail" and sizes.short:
        raise MixupError(
            f"the release falls short by {sizes.short} of {config.size} rows: {distilled} "
            f"distilled and {originals} original candidates; lower select.size or set "
            "select.shortfall to shrink or fill"
        )
    if not sizes.distilled + sizes.originals:
        raise MixupError(
            "no row is good enough for a release: no original reaches curate.keep_at and no sample "
            "is accepted; the current release, if any, stays"
        )
    return sizes


def _distinct(survey: Survey, originals: set[str]) -> list[str]:
    """The distilled candidates whose pair is neither an original's nor a better candidate's."""
    seen = set(originals)
    found = []
    for key in survey.distilled.keys if survey.distilled else []:
        if survey.pairs[key] not in seen:
            seen.add(survey.pairs[key])
            found.append(key)
    return found


def _fates(
    survey: Survey, originals: list[str], distilled: list[str], quarantined: int
) -> dict[str, int]:
    """Occurrences by fate. A member of a cluster shares the cluster's fate.

    Raises:
        LedgerError: If the clustered records are not exactly the clusters' members.
    """
    counts = survey.counts
    members = {
        name.partition(":")[2]: count
        for name, count in counts.items()
        if name.startswith("members:")
    }
    check_fates(members, counts["clustered"])
    merged = sum(survey.members[key] for key in distilled)
    fates = Counter(
        {
            FATE_ORIGINAL: len(originals),
            FATE_MERGED: merged,
            FATE_DUPLICATE: counts[FATE_DUPLICATE],
            FATE_QUARANTINED: quarantined,
            left_out("original_not_selected"): counts["original_candidates"] - len(originals),
            left_out("cluster_not_selected"): members.pop("cluster_accepted", 0) - merged,
        }
    )
    fates.update({left_out(state): count for state, count in members.items()})
    fates.update({name: n for name, n in counts.items() if name.startswith(left_out(""))})
    kept = (FATE_ORIGINAL, FATE_MERGED, FATE_DUPLICATE, FATE_QUARANTINED)
    return {name: count for name, count in fates.items() if count or name in kept}
