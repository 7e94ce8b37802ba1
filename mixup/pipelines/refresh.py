"""Refresh: a pool of instruction data becomes a released dataset.

    sources → ingest → embed → rate → curate → cluster → distill → reward → select → publish

Every stage computes what is missing in its tables, so running the job again resumes after a crash,
takes in new rows, and does nothing when there is nothing to do.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow.compute as pc

from mixup.actors.resources import Demand, check_demand, check_place, cluster
from mixup.actors.rewards import RewardPools, RewardSettings, Votes
from mixup.config import (
    EngineJudge,
    JudgeRater,
    Rater,
    ReferenceRater,
    RefreshConfig,
    Similarity,
)
from mixup.errors import ConfigError, MixupError
from mixup.ledger import StageCounts
from mixup.lock import acquire, ensure_held
from mixup.models.encoder import similarity_of
from mixup.models.folders import model_revision
from mixup.records import content_key
from mixup.report.digest import ModelUsed
from mixup.stages.cell import CellSettings
from mixup.stages.curate import curate_and_cluster, curate_state
from mixup.stages.decontaminate import (
    decontaminate,
    decontaminate_state,
    ensure_questions,
    evaluation_files,
    questions_revision,
)
from mixup.stages.distill import Distiller, distill, distill_state, engine_demand
from mixup.stages.embed import NO_DIRECTION, embed, embed_state
from mixup.stages.ingest import ingest, pool_counts, unread_files
from mixup.stages.judge import check_judge, judge_records, judge_revision, judge_state
from mixup.stages.judge_engine import judge_demand
from mixup.stages.publish import (
    current_release,
    point_to,
    publish,
    selected,
    write_data,
)
from mixup.stages.rate import BAD_RATING, rate, rate_state, rater_revision
from mixup.stages.reference import (
    build_from_files,
    current_reference,
    load_reference,
    reference_revision,
)
from mixup.stages.reward import reward_missing, reward_state
from mixup.stages.run import RunContext, StageState, Stopwatch
from mixup.stages.select import select
from mixup.stages.sources import SourceFile, find_files
from mixup.stages.summary import (
    Release,
    digest_of,
    manifest_of,
    quarantine_reasons,
    stage_record,
)
from mixup.stages.survey import SURVEYED, SurveySettings
from mixup.stages.vacuum import clean_up
from mixup.stages.verdicts import Judge
from mixup.tables import ensure_table, read_files, scan_files, snapshot, version
from mixup.text.judging import UNPARSABLE
from mixup.text.prompts import answer_pattern
from mixup.text.tasks import TASKS
from mixup.workspace import Workspace, ensure_workspace

logger = logging.getLogger(__name__)

_RELEASED = (*SURVEYED, "records", "files", "quarantine")
_MOST_BUCKETS = 256


@dataclass(frozen=True)
class Plan:
    """Everything that is decided before a run starts.

    Attributes:
        config: The job's config.
        files: The pool's input files.
        library: Rated files to compare with; empty to use the pool's own ratings.
        similarity: The encoder's thresholds.
        encoder: The encoder's revision.
        rater: The rater's revision.
        distiller: The distiller, its revision and settings.
        evaluation: Files of evaluation questions that may not get into a release.
    """

    config: RefreshConfig
    files: Sequence[SourceFile]
    library: Sequence[SourceFile]
    similarity: Similarity
    encoder: str
    rater: str
    distiller: Distiller
    evaluation: Sequence[SourceFile] = ()

    @property
    def questions(self) -> str | None:
        """The revision of the index of evaluation questions; None where none are looked for."""
        return questions_revision(self.config.decontaminate, self.evaluation)

    def cells(self) -> CellSettings:
        """What decides scores and clusters."""
        key = content_key([file.fingerprint for file in self.library]) if self.library else None
        return CellSettings.of(
            self.config,
            self.similarity,
            encoder=self.encoder,
            rater=self.rater,
            library=key,
            questions=self.questions,
        )

    def library_revision(self, workspace: Workspace) -> str | None:
        """The revision of the reference library that these settings decide, if there is one."""
        return reference_revision(workspace, self.cells().scoring())

    def rewards(self, workspace: Workspace) -> RewardSettings:
        """What decides rewards, with the workspace's present reference library."""
        return RewardSettings.of(self.config, self.encoder, self.library_revision(workspace))

    def judge(self, workspace: Workspace) -> Judge:
        """The rules for samples."""
        return Judge.of(self.config.reward, self.rewards(workspace), self.questions)

    def models(self, workspace: Workspace) -> list[ModelUsed]:
        """The models that take part, the reference library among them."""
        library = self.library_revision(workspace)
        found = [
            ModelUsed("encoder", self.config.embed.model, self.encoder),
            ModelUsed("distiller", self.config.distill.model, self.distiller.revision),
        ]
        rate = self.config.rate
        if isinstance(rate, JudgeRater):  # its revision is that of model, rubric and sampling
            found.append(ModelUsed("judge", rate.engine.model, self.rater))
        return found + ([ModelUsed("reference", "rated library", library)] if library else [])


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


@dataclass
class _Progress:
    """The stages that ran and those that had nothing to do."""

    ran: list[StageCounts] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def refresh(config: RefreshConfig) -> Outcome:
    """Run the job.

    Raises:
        ConfigError: The config or the input is wrong; nothing has started.
        MixupError: The run failed; what it committed stays and the next run goes on from there.
    """
    watch = Stopwatch()
    plan = make_plan(config)
    buckets = _buckets(plan.files, config.ingest.bucket_bytes)
    workspace = ensure_workspace(config.workspace, buckets=buckets)
    if (current := _up_to_date(workspace, plan)) is not None:
        logger.info("nothing to do: release %s is up to date", current)
        return _outcome(workspace, current, is_new=False, seconds=watch.seconds)
    run = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
    with acquire(workspace, run) as lease:
        context = RunContext(
            workspace,
            run,
            lease.token,
            _pool(plan),
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


def make_plan(config: RefreshConfig) -> Plan:
    """Find the files and models that a config names.

    Raises:
        ConfigError: If one of them is missing.
    """
    if config.distill.structured != "none":
        for task in TASKS:  # refuses a max_tokens that leaves no room
            answer_pattern(task, max_tokens=config.distill.max_tokens)
    for task in config.reward.task_weights:
        if task not in TASKS:
            known = ", ".join(TASKS)
            raise ConfigError(f"reward.task_weights: unknown task {task!r}; known: {known}")
    if isinstance(config.rate, JudgeRater):
        check_judge(config.rate)
    rules = content_key(config.ingest.licence, config.ingest.max_row_bytes)
    library = config.rate.library if isinstance(config.rate, ReferenceRater) else []
    return Plan(
        config=config,
        files=[replace(file, rules=rules) for file in find_files(config.ingest.paths)],
        library=find_files(library),
        similarity=similarity_of(config.embed.model, config.embed.similarity),
        encoder=model_revision(config.embed.model),
        rater=_rater(config.rate),
        distiller=Distiller(config.distill, model_revision(config.distill.model), config.seed),
        evaluation=evaluation_files(config.decontaminate),
    )


def _rater(rate: Rater) -> str:
    return judge_revision(rate) if isinstance(rate, JudgeRater) else rater_revision(rate)


def _buckets(files: Sequence[SourceFile], bucket_bytes: int) -> int:
    size = sum(max(file.size, 0) for file in files)
    return max(1, min(_MOST_BUCKETS, -(-size // bucket_bytes)))


def _pool(plan: Plan) -> tuple[str, ...]:
    return tuple(sorted(file.fingerprint for file in plan.files))


def _check_resources(plan: Plan) -> None:
    embed_config, reward = plan.config.embed, plan.config.reward
    check_demand(
        [Demand("encoders", embed_config.actors, embed_config.actor_cpus, embed_config.actor_gpus)]
    )
    check_demand([engine_demand(plan.config.distill), *RewardPools.demands(reward)])
    rate = plan.config.rate
    if isinstance(rate, JudgeRater) and isinstance(rate.engine, EngineJudge):
        check_demand([judge_demand(rate.engine)])


def _run_stages(context: RunContext, plan: Plan) -> _Progress:
    """Run each stage that is not current, in order."""
    config, workspace, progress = plan.config, context.workspace, _Progress()

    def run(
        state: StageState | None, stage: Callable[[], Sequence[StageCounts]], name: str
    ) -> None:
        if state is not None and state.is_current:
            logger.info("%s: nothing to do", name)
            progress.skipped.append(name)
            return
        logger.info("%s: started", name)
        progress.ran.extend(stage())

    unread = unread_files(workspace, plan.files)
    if unread:
        run(None, lambda: [ingest(context, config.ingest, unread)], "ingest")
    else:
        logger.info("ingest: nothing to do")
        progress.skipped.append("ingest")
    context = _of_read_files(context)
    _check_quarantine(context, config.max_dropped_share)
    run(
        embed_state(context, plan.encoder),
        lambda: [embed(context, config.embed, plan.encoder)],
        "embed",
    )
    run(_rate_state(context, plan), lambda: [_rate(context, plan)], "rate")
    ensure_table(workspace, "contamination")  # empty where nothing is looked for
    if (questions := plan.questions) is not None:
        run(
            decontaminate_state(context, questions),
            lambda: [decontaminate(context, questions)],
            "decontaminate",
        )
    limit = config.max_dropped_share
    _check_outcomes(workspace, "embeddings", ("encoder", plan.encoder), [NO_DIRECTION], limit)
    defects = UNPARSABLE if isinstance(config.rate, JudgeRater) else [BAD_RATING]
    _check_outcomes(workspace, "ratings", ("rater", plan.rater), defects, limit)
    _ensure_library(context, plan)
    cells = plan.cells()
    run(curate_state(context, cells), lambda: curate_and_cluster(context, cells), "curate")
    judge = plan.judge(workspace)
    rewards, distilled = (
        reward_state(context, judge),
        distill_state(context, plan.distiller, judge),
    )
    if rewards.is_current and distilled.is_current:
        progress.skipped.append("distill")
        logger.info("distill: nothing to do")
        return progress
    pools = _start_rewards(workspace, plan)
    if not rewards.is_current and version(workspace, "samples") >= 0:
        logger.info(
            "reward: %d scores of earlier samples made", reward_missing(context, judge, pools)
        )
    run(
        distilled,
        lambda: [distill(context, plan.distiller, judge, config.reward, pools)],
        "distill",
    )
    return progress


def _rate_state(context: RunContext, plan: Plan) -> StageState:
    rate = plan.config.rate
    if isinstance(rate, JudgeRater):
        return judge_state(context, rate, plan.rater)
    return rate_state(context, rate)


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


def _check_quarantine(context: RunContext, limit: float) -> None:
    """Check the share of quarantined rows over the whole pool, whichever run read its files.

    Raises:
        MixupError: If it is above the limit.
    """
    rows, quarantined = pool_counts(context.workspace, context.pool)
    if quarantined > limit * max(rows, 1):
        raise MixupError(
            f"{quarantined} of the pool's {rows} rows are in the quarantine, more than "
            f"max_dropped_share={limit}; look at the quarantine table, mend the input or raise it"
        )


def _check_outcomes(
    workspace: Workspace,
    table: str,
    revision: tuple[str, str],
    reasons: Sequence[str],
    limit: float,
) -> None:
    """Check the share of outcomes with a defect, whichever run made them.

    Args:
        workspace: The workspace.
        table: The table of the outcomes.
        revision: The column that tells whose outcomes they are, and its value today.
        reasons: The reasons that are defects.
        limit: The largest share.

    Raises:
        MixupError: If the share is larger.
    """
    column, value = revision
    rows, found = 0, Counter[str]()
    for part in scan_files(workspace, table, snapshot(workspace, table).paths, [column, "reason"]):
        mine = part.filter(pc.equal(part[column], value))
        rows += mine.num_rows
        found.update(mine["reason"].to_pylist())
    bad = {reason: found[reason] for reason in reasons if found[reason]}
    if sum(bad.values()) > limit * max(rows, 1):
        named = ", ".join(f"{reason} {count}" for reason, count in bad.items())
        raise MixupError(
            f"{sum(bad.values())} of {rows} rows of table {table} have a defect ({named}), more "
            f"than max_dropped_share={limit}; mend the input or the config, or raise it"
        )


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
    arguments = (context.workspace, plan.library, config.rate, config.embed, config.curate, decides)
    ray.get(task.remote(*arguments))


def _start_rewards(workspace: Workspace, plan: Plan) -> RewardPools:
    settings = plan.rewards(workspace)
    votes = None
    if settings.library is not None:
        found = load_reference(workspace, settings.library)
        votes = Votes(found.vectors_LD, found.ratings_L, found.transition)
    return RewardPools.start(plan.config.reward, plan.config.embed, settings, votes)


def _release_decides(workspace: Workspace, plan: Plan) -> list[Any]:
    """JSON data of all that a release is made from."""
    return [
        plan.config.select.model_dump(mode="json"),
        plan.judge(workspace).decides(),
        plan.config.seed,
        plan.distiller.config.max_clusters,
        _pool(plan),
        {name: version(workspace, name) for name in _RELEASED},
    ]


def _up_to_date(workspace: Workspace, plan: Plan) -> str | None:
    """The current release's name when no stage has anything to do, decided without Ray."""
    current = current_release(workspace)
    if current is None or unread_files(workspace, plan.files):
        return None
    context = RunContext(workspace, "", -1, _pool(plan))
    judge = plan.judge(workspace)
    states = (
        embed_state(context, plan.encoder),
        _rate_state(context, plan),
        curate_state(context, plan.cells()),
        reward_state(context, judge),
        distill_state(context, plan.distiller, judge),
    )
    if plan.questions is not None:
        states = (*states, decontaminate_state(context, plan.questions))
    fresh = current[1] == content_key(_release_decides(workspace, plan))
    return current[0] if fresh and all(state.is_current for state in states) else None


def _release(context: RunContext, plan: Plan, progress: _Progress, watch: Stopwatch) -> str:
    """Select, write and publish a release; its name."""
    import ray

    workspace, config = context.workspace, plan.config
    decides = _release_decides(workspace, plan)
    read = set(context.pool)
    unreached = [file.path for file in plan.files if file.fingerprint not in read]
    for path in unreached:
        logger.warning("%s could not be reached; it is left out of this release", path)
    tables = {name: snapshot(workspace, name) for name in _RELEASED}
    judge = plan.judge(workspace)
    licences = config.select.licences
    settings = SurveySettings(
        judge=judge,
        rater=plan.rater,
        licences=None if licences is None else tuple(licences),
        limit=config.select.size,
    )
    quarantine = quarantine_reasons(workspace, tables["quarantine"], context.pool)
    logger.info("select: started")
    chosen = select(context, tables, config.select, settings, quarantine.total())
    progress.ran.append(chosen.counts)
    name = context.run
    with workspace.staged_folder(f"releases/{name}") as folder:
        task = ray.remote(num_cpus=0.1)(write_data)
        arguments = (workspace, tables, context.pool, selected(chosen), judge, config.seed, folder)
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
