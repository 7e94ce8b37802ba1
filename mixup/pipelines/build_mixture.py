"""Build-mixture: raw text and a rated pool become the training set of the distiller.

    raw text → segment → near → teach → collect ┐
    pool     → ingest ──────────────────────────┴→ embed → rate → decontaminate
                                                            → mix → leaks → publish

An item that a teacher makes of a segment becomes a record, so that from there on text and pool are
one table. Every stage computes what is missing in its tables, as in ``pipelines.refresh``.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from mixup.actors.deaths import CRASHED
from mixup.actors.resources import check_demand
from mixup.errors import MixupError
from mixup.ledger import StageCounts
from mixup.lock import ensure_held
from mixup.mixture.segments import ARTICLE_REASONS
from mixup.mixture_config import EngineTeacher, MixtureConfig, RulesTeacher
from mixup.pipelines.mixture_documents import Documents, digest_of, manifest_of, write_documents
from mixup.pipelines.mixture_plan import (
    PUBLISHED,
    MixturePlan,
    make_plan,
    mixture_decides,
    up_to_date,
)
from mixup.pipelines.progress import Progress, cluster_of, started_run
from mixup.pipelines.rating import rate_records, rating_defects, rating_demands, rating_state
from mixup.stages.candidates import Teaching, teach_state
from mixup.stages.collect import collect, collect_state
from mixup.stages.decontaminate import decontaminate, decontaminate_state, ensure_questions
from mixup.stages.dropped import check_outcomes, check_quarantine
from mixup.stages.embed import NO_DIRECTION, embed, embed_demand, embed_state
from mixup.stages.ingest import ingest
from mixup.stages.leaks import leaks_state, note_leaks
from mixup.stages.mix import mix, mix_state
from mixup.stages.mixture_survey import MixtureSurvey, Surveyed, survey_bucket
from mixup.stages.near_segments import mark_near, near_state
from mixup.stages.publish_mixture import (
    FOLDER,
    Export,
    export_part,
    parts_of_export,
    point_to_mixture,
)
from mixup.stages.recorded_files import known_files, pool_counts, unread_files
from mixup.stages.run import RunContext, StageState, Stopwatch
from mixup.stages.segment import segment_files
from mixup.stages.summary import quarantine_reasons
from mixup.stages.teach import teach_by_model
from mixup.stages.teach_engine import teacher_demand
from mixup.stages.teach_rules import teach_by_rules
from mixup.tables import ensure_table, snapshot
from mixup.text.answers import UNREADABLE
from mixup.workspace import Workspace, ensure_workspace

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MixtureOutcome:
    """What a run came to.

    Attributes:
        mixture: The folder of the current mixture.
        is_new: Whether this run made it.
        manifest: Its manifest.
        seconds: The run's wall time.
    """

    mixture: str
    is_new: bool
    manifest: dict[str, Any]
    seconds: float


def build_mixture(config: MixtureConfig) -> MixtureOutcome:
    """Run the job.

    Raises:
        ConfigError: The config or the input is wrong; nothing has started.
        MixupError: The run failed; what it committed stays and the next run goes on from there.
    """
    watch = Stopwatch()
    plan = make_plan(config)
    workspace = ensure_workspace(config.workspace, buckets=plan.buckets)
    if (current := up_to_date(workspace, plan)) is not None:
        logger.info("nothing to do: mixture %s is up to date", current)
        return _outcome(workspace, current, is_new=False, seconds=watch.seconds)
    with started_run(workspace, config) as context:
        ensure_questions(workspace, config.decontaminate, plan.evaluation)
        with cluster_of(context, config):
            _check_resources(plan)
            progress = Progress()
            context = _read_inputs(context, plan, progress)
            _run_stages(context, plan, progress)
            name = _publish(context, plan, progress, watch)
    return _outcome(workspace, name, is_new=True, seconds=watch.seconds)


def _check_resources(plan: MixturePlan) -> None:
    config = plan.config
    check_demand([embed_demand(config.embed)])
    check_demand(rating_demands(config.rate))
    if plan.texts and isinstance(config.teacher, EngineTeacher):
        check_demand([teacher_demand(config.teacher)])


def _read_inputs(context: RunContext, plan: MixturePlan, progress: Progress) -> RunContext:
    """Read the pool and the text, and make items of the text; the context with the whole pool."""
    config, workspace = plan.config, context.workspace
    ensure_table(workspace, "files")
    unread = unread_files(workspace, plan.files)
    if unread and config.ingest is not None:
        ingest_config = config.ingest
        progress.run("ingest", None, lambda: ingest(context, ingest_config, unread))
    elif plan.files:
        progress.skip("ingest")
    texts = unread_files(workspace, plan.texts)
    if texts:
        progress.run("segment", None, lambda: segment_files(context, config.text, texts))
    elif plan.texts:
        progress.skip("segment")
    read = known_files(workspace)
    rows = [file.fingerprint for file in plan.files if file.fingerprint in read]
    check_quarantine(replace(context, pool=tuple(rows)), config.max_dropped_share)
    if plan.texts:
        _check_articles(workspace, plan, config.max_dropped_share)
        _teach(context, plan, progress)
    for name in ("candidates", "contamination"):
        ensure_table(workspace, name)  # empty where there is no text, or nothing is looked for
    return replace(context, pool=plan.pool(known_files(workspace)))


def _check_articles(workspace: Workspace, plan: MixturePlan, limit: float) -> None:
    """Check the share of articles with a defect; too short a one, or a table, is none.

    Raises:
        MixupError: If it is above the limit.
    """
    files = [file.fingerprint for file in plan.texts]
    articles, _ = pool_counts(workspace, files)
    found = quarantine_reasons(workspace, snapshot(workspace, "quarantine"), files)
    defects = {name: n for name, n in found.items() if name not in ARTICLE_REASONS}
    if sum(defects.values()) > limit * max(articles, 1):
        named = ", ".join(f"{reason} {count}" for reason, count in sorted(defects.items()))
        raise MixupError(
            f"{sum(defects.values())} of {articles} articles have a defect ({named}), more than "
            f"max_dropped_share={limit}; mend the input or the config (text.field), or raise it"
        )


def _teach(context: RunContext, plan: MixturePlan, progress: Progress) -> None:
    workspace = context.workspace
    for name in ("segments", "candidates"):
        ensure_table(workspace, name)
    threshold, files = plan.config.text.near_duplicate, plan.text_files(known_files(workspace))
    near = near_state(context, threshold, files)
    progress.run("near", near, lambda: mark_near(context, near, threshold, files))
    work = plan.teaching(workspace, known_files(workspace))
    state = teach_state(context, work)
    progress.run("teach", state, lambda: _make_items(context, plan, state, work))
    work = plan.teaching(workspace, known_files(workspace))
    texts = [file for file in plan.texts if file.fingerprint in work.files]
    collecting = collect_state(context, plan.teacher, work.files)
    progress.run("collect", collecting, lambda: collect(context, collecting, work, texts))


def _make_items(
    context: RunContext, plan: MixturePlan, state: StageState, work: Teaching
) -> StageCounts:
    teacher = plan.config.teacher
    if isinstance(teacher, RulesTeacher):
        return teach_by_rules(context, state, work)
    return teach_by_model(context, state, work, teacher)


def _run_stages(context: RunContext, plan: MixturePlan, progress: Progress) -> None:
    """Run what pool and text have in common, each stage that is not current, in order."""
    config, workspace, limit = plan.config, context.workspace, plan.config.max_dropped_share
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
    if (questions := plan.questions) is not None:
        progress.run(
            "decontaminate",
            decontaminate_state(context, questions),
            lambda: decontaminate(context, questions),
        )
    if plan.texts and not isinstance(config.teacher, RulesTeacher):
        check_outcomes(workspace, "candidates", ("teacher", plan.teacher), UNREADABLE, limit)
    vectors = ("encoder", plan.encoder)
    check_outcomes(workspace, "embeddings", vectors, [NO_DIRECTION, CRASHED], limit)
    defects = rating_defects(config.rate)
    check_outcomes(workspace, "ratings", ("rater", plan.rater), defects, limit)
    settings = plan.settings
    progress.run("mix", mix_state(context, settings), lambda: mix(context, settings))
    near = config.splits.near_duplicate
    leaks = leaks_state(context, near)
    progress.run("leaks", leaks, lambda: note_leaks(context, leaks, near))


def _publish(context: RunContext, plan: MixturePlan, progress: Progress, watch: Stopwatch) -> str:
    """Write the mixture's folder and make it the current one; its name."""
    workspace, name = context.workspace, context.run
    decides = mixture_decides(context, plan)
    tables = {table: snapshot(workspace, table) for table in (*PUBLISHED, "candidates")}
    logger.info("publish: started")
    survey = _survey(context, plan, Surveyed(workspace, tables, plan.teacher, plan.config.tasks))
    inputs = [file.fingerprint for file in (*plan.files, *plan.texts)]
    with workspace.staged_folder(f"{FOLDER}/{name}") as folder:
        export = Export(workspace, tables["mixture"], tables["leaks"], folder)
        parts = [(part,) for part in parts_of_export()]
        files = {
            file: found
            for part in context.each(export_part, export, parts)
            for file, found in part.items()
        }
        documents = Documents(
            name=name,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            config=plan.config,
            models=plan.models(),
            inputs=context.pool,
            rater=plan.rater,
            tables={table: found.version for table, found in tables.items()},
            survey=survey,
            files=files,
            articles=pool_counts(workspace, [file.fingerprint for file in plan.texts])[0],
            quarantine=quarantine_reasons(workspace, snapshot(workspace, "quarantine"), inputs),
            stages=progress.ran,
            skipped=progress.skipped,
            seconds=watch.seconds,
        )
        write_documents(workspace, folder, manifest_of(documents), digest_of(documents))
    ensure_held(workspace, context.token)
    point_to_mixture(workspace, name, decides)
    logger.info("published mixture %s: %d pairs", name, survey.pairs.total())
    progress.note_end(context, mixture=name)
    return name


def _survey(context: RunContext, plan: MixturePlan, shared: Surveyed) -> MixtureSurvey:
    survey = MixtureSurvey()
    buckets = [(bucket,) for bucket in range(context.workspace.buckets)]
    for found in context.each(survey_bucket, shared, buckets):
        survey.add(found)
    return survey


def _outcome(workspace: Workspace, name: str, *, is_new: bool, seconds: float) -> MixtureOutcome:
    manifest = workspace.read_json(f"{FOLDER}/{name}/manifest.json")
    return MixtureOutcome(f"{workspace.uri}/{FOLDER}/{name}", is_new, manifest, seconds)
