"""Refresh: a pool of instruction data becomes a released dataset.

    sources → ingest → embed → rate → decontaminate → curate → cluster
            → distill → reward → select → publish

Every stage computes what is missing in its tables, so running the job again resumes after a crash,
takes in new rows, and does nothing when there is nothing to do.
"""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from mixup.actors.deaths import CRASHED
from mixup.actors.resources import Demand, check_demand, check_place, cluster
from mixup.actors.rewards import RewardPools, Votes
from mixup.config import (
    EngineJudge,
    JudgeRater,
    ReferenceRater,
    RefreshConfig,
)
from mixup.ledger import StageCounts
from mixup.lock import acquire, ensure_held
from mixup.pipelines.progress import Progress
from mixup.pipelines.refresh_plan import (
    RELEASED,
    Plan,
    bucket_count,
    make_plan,
    pool_of,
    rating_state,
    release_decides,
    up_to_date,
)
from mixup.stages.curate import curate_and_cluster, curate_state
from mixup.stages.decontaminate import (
    decontaminate,
    decontaminate_state,
    ensure_questions,
)
from mixup.stages.distill import distill, distill_state, engine_demand
from mixup.stages.dropped import check_outcomes, check_quarantine
from mixup.stages.duplicate_pairs import duplicate_pairs
from mixup.stages.embed import NO_DIRECTION, embed, embed_state
from mixup.stages.fitted_cells import load_cells
from mixup.stages.ingest import ingest, unread_files
from mixup.stages.judge import judge_records
from mixup.stages.judge_engine import judge_demand
from mixup.stages.publish import (
    point_to,
    publish,
    selected,
    write_data,
)
from mixup.stages.rate import BAD_RATING, rate
from mixup.stages.reference import current_fit, current_reference, load_reference
from mixup.stages.reference_files import build_from_files
from mixup.stages.reward import reward_missing, reward_state
from mixup.stages.run import RunContext, Stopwatch
from mixup.stages.scores import pool_scores
from mixup.stages.select import select
from mixup.stages.summary import (
    Release,
    digest_of,
    manifest_of,
    quarantine_reasons,
    stage_record,
)
from mixup.stages.survey import SurveySettings
from mixup.stages.vacuum import clean_up
from mixup.tables import ensure_table, read_files, snapshot, version
from mixup.text.judging import UNPARSABLE
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
    run = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
    with acquire(workspace, run) as lease:
        context = RunContext(
            workspace,
            run,
            lease.token,
            pool_of(plan),
            config.commit_interval_s,
            config.stall_timeout_s,
        )
        workspace.write_json(f"runs/{run}/config.json", config.model_dump(mode="json"))
        logger.info("run %s in %s", run, workspace.uri)
        clean_up(context, lease)
        ensure_questions(workspace, config.decontaminate, plan.evaluation)
        with cluster(config.ray):
            check_place(workspace, shared=config.workspace_shared)
            _check_resources(plan)
            progress = _run_stages(context, plan)
            name = _release(_of_read_files(context), plan, progress, watch)
    return _outcome(workspace, name, is_new=True, seconds=watch.seconds)


def _check_resources(plan: Plan) -> None:
    embed_config, reward = plan.config.embed, plan.config.reward
    check_demand(
        [Demand("encoders", embed_config.actors, embed_config.actor_cpus, embed_config.actor_gpus)]
    )
    check_demand([engine_demand(plan.config.distill), *RewardPools.demands(reward)])
    rate = plan.config.rate
    if isinstance(rate, JudgeRater) and isinstance(rate.engine, EngineJudge):
        check_demand([judge_demand(rate.engine)])


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
    progress.run("rate", rating_state(context, plan), lambda: _rate(context, plan))
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
    defects = UNPARSABLE if isinstance(config.rate, JudgeRater) else [BAD_RATING]
    check_outcomes(workspace, "ratings", ("rater", plan.rater), defects, limit)
    _ensure_library(context, plan)
    cells = plan.cells()
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


def _rate(context: RunContext, plan: Plan) -> StageCounts:
    config = plan.config.rate
    if isinstance(config, JudgeRater):
        return judge_records(context, config, plan.rater)
    return rate(context, config)


def _of_read_files(context: RunContext) -> RunContext:
    """The context with the files of the pool that were read to the end.

    A file that could not be reached has a quarantine row that says so, is left out of this run
    whole, and is tried again by the next.
    """
    known = read_files(
        context.workspace, "files", snapshot(context.workspace, "files").paths, ["fingerprint"]
    )
    read = set(known["fingerprint"].to_pylist())
    return replace(context, pool=tuple(file for file in context.pool if file in read))


def _ensure_library(context: RunContext, plan: Plan) -> None:
    """Build the reference library from rated files where the config names some."""
    import ray

    config, decides = plan.config, plan.cells().scoring()
    if not plan.library or not isinstance(config.rate, ReferenceRater):
        return
    if current_reference(context.workspace, decides) is not None:
        return
    logger.info("building the reference library from %d file(s)", len(plan.library))
    task = ray.remote(num_cpus=config.embed.actor_cpus, num_gpus=config.embed.actor_gpus)(
        build_from_files
    )
    arguments = (context.workspace, plan.library, config.rate, config.embed, plan.cells())
    ray.get(task.remote(*arguments))


def _start_rewards(workspace: Workspace, plan: Plan) -> RewardPools:
    settings = plan.rewards(workspace)
    votes = None
    if settings.library is not None:
        found = load_reference(workspace, settings.library)
        votes = Votes(found.vectors_LD, found.ratings_L, found.transition)
    return RewardPools.start(plan.config.reward, plan.config.embed, settings, votes)


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
    summary = {"release": name, "stages": [stage_record(counts) for counts in progress.ran]}
    workspace.write_json(f"runs/{context.run}/summary.json", {**summary, "ended": time.time()})
    return name


def _outcome(workspace: Workspace, name: str, *, is_new: bool, seconds: float) -> Outcome:
    manifest = workspace.read_json(f"releases/{name}/manifest.json")
    return Outcome(f"{workspace.uri}/releases/{name}", is_new, manifest, seconds)
