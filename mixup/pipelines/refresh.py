"""Refresh: a pool of instruction data becomes a released dataset.

    sources → ingest → embed → rate → decontaminate → curate → cluster
            → distill → reward → select → publish

Every stage computes what is missing in its tables, so running the job again resumes after a crash,
takes in new rows, and does nothing when there is nothing to do.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from mixup.actors.deaths import CRASHED
from mixup.actors.resources import check_demand
from mixup.actors.rewards import RewardPools
from mixup.lock import ensure_held
from mixup.pipelines.named_library import ensure_library
from mixup.pipelines.progress import Progress, cluster_of, started_run
from mixup.pipelines.rating import rate_records, rating_defects, rating_demands, rating_state
from mixup.pipelines.refresh_plan import (
    RELEASED,
    Plan,
    bucket_count,
    make_plan,
    pool_of,
    release_decides,
    up_to_date,
)
from mixup.rater_config import ReferenceRater
from mixup.refresh_config import RefreshConfig
from mixup.stages.curate import curate_and_cluster, curate_state
from mixup.stages.decontaminate import decontaminate, decontaminate_state, ensure_questions
from mixup.stages.distill import distill, distill_state
from mixup.stages.distill_engine import engine_demand
from mixup.stages.dropped import check_outcomes, check_quarantine
from mixup.stages.duplicate_pairs import duplicate_pairs
from mixup.stages.embed import NO_DIRECTION, embed, embed_demand, embed_state
from mixup.stages.fitted_cells import load_cells
from mixup.stages.ingest import ingest
from mixup.stages.library_folder import predictor_of
from mixup.stages.publish import (
    point_to,
    publish,
    selected,
    write_data,
)
from mixup.stages.recorded_files import known_files, unread_files
from mixup.stages.reference import current_fit, load_reference
from mixup.stages.reward import reward_missing, reward_state
from mixup.stages.run import RunContext, Stopwatch
from mixup.stages.scores import pool_scores
from mixup.stages.select import select
from mixup.stages.summary import (
    Release,
    digest_of,
    manifest_of,
    quarantine_reasons,
)
from mixup.stages.survey import SurveySettings
from mixup.tables import ensure_table, snapshot, version
from mixup.workspace import Workspace, ensure_workspace

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        release: The folder of the current release.
        is_new: Whether this run made it.
        manifest: Its manifest.
        seconds: The run's wall time.
    """

    release: str
    is_new: bool
    manifest: dict[str, Any]
    seconds: float


def refresh(config: RefreshConfig) -> Outcome:
    """Run the job.

    Raises:
        ConfigError: The config or the input is wrong; nothing has started.
        MixupError: The run failed; what it committed stays and the next run goes on from there.
    """
    watch = Stopwatch()
    plan = make_plan(config)
    buckets = bucket_count(plan.files, config.ingest.bucket_bytes)
    workspace = ensure_workspace(config.workspace, buckets=buckets)
    if (current := up_to_date(workspace, plan)) is not None:
        logger.info("nothing to do: release %s is up to date", current)
        return _outcome(workspace, current, is_new=False, seconds=watch.seconds)
    with started_run(workspace, config, pool_of(plan)) as context:
        ensure_questions(workspace, config.decontaminate, plan.evaluation)
        with cluster_of(context, config):
            _check_resources(plan)
            progress = _run_stages(context, plan)
            name = _release(_of_read_files(context), plan, progress, watch)
    return _outcome(workspace, name, is_new=True, seconds=watch.seconds)


def _check_resources(plan: Plan) -> None:
    config = plan.config
    check_demand([embed_demand(config.embed)])
    check_demand([engine_demand(config.distill), *RewardPools.demands(config.reward)])
    check_demand(rating_demands(config.rate))


def _run_stages(context: RunContext, plan: Plan) -> Progress:
    """Run each stage that is not current, in order."""
    config, workspace, progress = plan.config, context.workspace, Progress()
    unread = unread_files(workspace, plan.files)
    if unread:
        progress.run("ingest", None, lambda: ingest(context, config.ingest, unread))
    else:
        progress.skip("ingest")
    context = _of_read_files(context)
    check_quarantine(context, config.max_dropped_share)
    progress.run(
        "embed",
        embed_state(context, plan.encoder),
        lambda: embed(context, config.embed, plan.encoder),
    )
    progress.run(
        "rate",
        rating_state(context, config.rate, plan.rater),
        lambda: rate_records(context, config.rate, plan.rater),
    )
    ensure_table(workspace, "contamination")  # empty where nothing is looked for
    if (questions := plan.questions) is not None:
        progress.run(
            "decontaminate",
            decontaminate_state(context, questions),
            lambda: decontaminate(context, questions),
        )
    limit = config.max_dropped_share
    check_outcomes(
        workspace, "embeddings", ("encoder", plan.encoder), [NO_DIRECTION, CRASHED], limit
    )
    defects = rating_defects(config.rate)
    check_outcomes(workspace, "ratings", ("rater", plan.rater), defects, limit)
    cells = plan.cells()
    if isinstance(config.rate, ReferenceRater):
        ensure_library(workspace, plan.library, config.rate, config.embed, cells)
    progress.run_all(
        "curate", curate_state(context, cells), lambda: curate_and_cluster(context, cells)
    )
    judge = plan.judge(workspace)
    rewards, distilled = (
        reward_state(context, judge),
        distill_state(context, plan.distiller, judge),
    )
    if rewards.is_current and distilled.is_current:
        progress.skip("distill")
        return progress
    pools = _start_rewards(workspace, plan)
    if not rewards.is_current and version(workspace, "samples") >= 0:
        logger.info(
            "reward: %d scores of earlier samples made", reward_missing(context, judge, pools)
        )
    progress.run(
        "distill", distilled, lambda: distill(context, plan.distiller, judge, config.reward, pools)
    )
    return progress


def _of_read_files(context: RunContext) -> RunContext:
    """The context with the files of the pool that were read to the end."""
    known = known_files(context.workspace)
    return replace(context, pool=tuple(file for file in context.pool if file in known))


def _start_rewards(workspace: Workspace, plan: Plan) -> RewardPools:
    settings = plan.rewards(workspace)
    predictor = None
    if settings.library is not None:
        reference = load_reference(workspace, settings.library)
        predictor = predictor_of(reference, settings.predictor)
    return RewardPools.start(plan.config.reward, plan.config.embed, settings, predictor)


def _release(context: RunContext, plan: Plan, progress: Progress, watch: Stopwatch) -> str:
    """Select, write and publish a release; its name."""
    import ray

    workspace, config = context.workspace, plan.config
    decides = release_decides(workspace, plan)
    read = set(context.pool)
    unreached = [file.path for file in plan.files if file.fingerprint not in read]
    for path in unreached:
        logger.warning("%s could not be reached; it is left out of this release", path)
    tables = {name: snapshot(workspace, name) for name in RELEASED}
    judge = plan.judge(workspace)
    licences = config.select.licences
    settings = SurveySettings(
        judge=judge,
        rater=plan.rater,
        licences=None if licences is None else tuple(licences),
        limit=config.select.size,
        threshold=config.curate.threshold,
    )
    quarantine = quarantine_reasons(workspace, tables["quarantine"], context.pool)
    logger.info("select: started")
    chosen = select(context, tables, config.select, settings, quarantine.total())
    progress.ran.append(chosen.counts)
    name = context.run
    with workspace.staged_folder(f"releases/{name}") as folder:
        task = ray.remote(num_cpus=0.1)(write_data)
        arguments = (workspace, tables, context.pool, selected(chosen), judge, config.seed, folder)
        show, drawn = ray.remote(num_cpus=0.1)(duplicate_pairs), chosen.survey.scores.pairs
        fit = current_fit(workspace, plan.cells().scoring())
        release = Release(
            name=name,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            config=config,
            tables=tables,
            models=plan.models(workspace),
            selection=chosen,
            files=ray.get(task.remote(*arguments)),
            stages=progress.ran,
            skipped=progress.skipped,
            quarantine=quarantine,
            unreached=unreached,
            questions=plan.questions,
            noise=fit.noise if fit else None,
            scores=pool_scores(fit, plan.cells()),
            cells=load_cells(workspace, plan.cells()),
            pairs=ray.get(show.remote(workspace, tables, context.pool, drawn)),
            seconds=watch.seconds,
        )
        publish(workspace, name, folder, manifest_of(context, release), digest_of(context, release))
    ensure_held(workspace, context.token)
    point_to(workspace, name, decides)
    logger.info("published release %s", name)
    progress.note_end(context, release=name)
    return name


def _outcome(workspace: Workspace, name: str, *, is_new: bool, seconds: float) -> Outcome:
    manifest = workspace.read_json(f"releases/{name}/manifest.json")
    return Outcome(f"{workspace.uri}/releases/{name}", is_new, manifest, seconds)
