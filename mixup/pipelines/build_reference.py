"""Build-reference: rated rows become the library that the quality reward reads.

    rated files → ingest → embed → rate ┐
    a mixture   → (only read) ──────────┴→ library

Every stage computes what is missing in its tables, as in ``pipelines.refresh``.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from mixup.actors.deaths import CRASHED
from mixup.actors.resources import Demand, check_demand
from mixup.config import IngestConfig
from mixup.errors import MixupError
from mixup.ledger import StageCounts
from mixup.lock import ensure_held
from mixup.pipelines.progress import Progress, cluster_of, started_run
from mixup.pipelines.reference_plan import (
    ReferencePlan,
    library_decides,
    make_plan,
    pool_of,
    rating_state,
    up_to_date,
)
from mixup.rater_config import EngineJudge, JudgeRater
from mixup.reference_config import ReferenceConfig
from mixup.stages.dropped import check_outcomes, check_quarantine
from mixup.stages.embed import NO_DIRECTION, embed, embed_state
from mixup.stages.ingest import ingest
from mixup.stages.judge import judge_records
from mixup.stages.judge_engine import judge_demand
from mixup.stages.library import LibraryMade, make_library
from mixup.stages.library_folder import (
    FOLDER,
    FORMAT,
    KIND,
    point_to_library,
    stated_files,
)
from mixup.stages.library_rows import RatedSource
from mixup.stages.rate import BAD_RATING, rate
from mixup.stages.recorded_files import unread_files
from mixup.stages.run import RunContext, Stopwatch
from mixup.stages.summary import package_versions, quarantine_reasons, stage_record
from mixup.tables import ensure_table, read_files, snapshot
from mixup.text.judging import UNPARSABLE
from mixup.workspace import Workspace, ensure_workspace

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReferenceOutcome:
    """What a run came to.

    Attributes:
        library: The folder of the current library.
        is_new: Whether this run made it.
        manifest: Its manifest.
        seconds: The run's wall time.
    """

    library: str
    is_new: bool
    manifest: dict[str, Any]
    seconds: float


def build_reference(config: ReferenceConfig) -> ReferenceOutcome:
    """Run the job.

    Raises:
        ConfigError: The config or the input is wrong; nothing has started, or too little is rated.
        MixupError: The run failed; what it committed stays and the next run goes on from there.
    """
    watch = Stopwatch()
    plan = make_plan(config)
    workspace = ensure_workspace(config.workspace, buckets=plan.buckets)
    if (current := up_to_date(workspace, plan)) is not None:
        logger.info("nothing to do: library %s is up to date", current)
        return _outcome(workspace, current, is_new=False, seconds=watch.seconds)
    with started_run(workspace, config, pool_of(plan)) as context:
        with cluster_of(context, config):
            _check_resources(plan)
            progress = Progress()
            if config.ingest is not None:
                context = _rated_files(context, plan, config.ingest, progress)
            _publish(context, plan, progress, watch)
        return _outcome(workspace, context.run, is_new=True, seconds=watch.seconds)


def _check_resources(plan: ReferencePlan) -> None:
    embedding, rater = plan.config.embed, plan.config.rate
    if not plan.files:
        return
    check_demand([Demand("encoders", embedding.actors, embedding.actor_cpus, embedding.actor_gpus)])
    if isinstance(rater, JudgeRater) and isinstance(rater.engine, EngineJudge):
        check_demand([judge_demand(rater.engine)])


def _rated_files(
    context: RunContext, plan: ReferencePlan, config: IngestConfig, progress: Progress
) -> RunContext:
    """Read, embed and rate the rows of the files; the context with those that could be read."""
    workspace, limit = context.workspace, plan.config.max_dropped_share
    ensure_table(workspace, "files")
    ensure_table(workspace, "contamination")  # empty: nothing is looked for
    if unread := unread_files(workspace, plan.files):
        progress.run("ingest", None, lambda: ingest(context, config, unread))
    else:
        progress.skip("ingest")
    paths = snapshot(workspace, "files").paths
    read = set(read_files(workspace, "files", paths, ["fingerprint"])["fingerprint"].to_pylist())
    context = replace(context, pool=tuple(file for file in context.pool if file in read))
    check_quarantine(context, limit)
    progress.run(
        "embed",
        embed_state(context, plan.encoder),
        lambda: embed(context, plan.config.embed, plan.encoder),
    )
    progress.run("rate", rating_state(context, plan), lambda: _rate(context, plan))
    check_outcomes(
        workspace, "embeddings", ("encoder", plan.encoder), [NO_DIRECTION, CRASHED], limit
    )
    defects = UNPARSABLE if isinstance(plan.config.rate, JudgeRater) else [BAD_RATING]
    check_outcomes(workspace, "ratings", ("rater", plan.rater), defects, limit)
    return context


def _rate(context: RunContext, plan: ReferencePlan) -> StageCounts:
    config = plan.config.rate
    if isinstance(config, JudgeRater):
        return judge_records(context, config, plan.rater)
    return rate(context, config)


def _publish(
    context: RunContext, plan: ReferencePlan, progress: Progress, watch: Stopwatch
) -> None:
    """Write the library's folder and make it the current one."""
    workspace, name = context.workspace, context.run
    sources, decides = plan.sources(context), library_decides(context, plan)
    logger.info("library: started")
    with workspace.staged_folder(f"{FOLDER}/{name}") as staged:
        folder = staged.removeprefix(f"{workspace.filesystem()[1]}/")
        try:
            made = make_library(context, sources, plan.settings, plan.config.fit, folder)
        except FileNotFoundError as error:
            raise MixupError(
                f"a file went while it was read: {error}; if a run of build-mixture wrote to the "
                "mixture meanwhile, run this job again"
            ) from error
        progress.ran.append(made.counts)
        manifest = {
            **_manifest(plan, made, sources, progress, watch),
            "library": name,
            "quarantine": quarantine_reasons(
                workspace, snapshot(workspace, "quarantine"), context.pool
            ),
            "files": stated_files(workspace, folder),
        }
        workspace.write_json(f"{folder}/manifest.json", manifest)
    ensure_held(workspace, context.token)
    point_to_library(workspace, name, decides)
    logger.info("published library %s: %d rows", name, manifest["counts"]["rows"])
    summary = {"library": name, "stages": [stage_record(counts) for counts in progress.ran]}
    workspace.write_json(f"runs/{context.run}/summary.json", {**summary, "ended": time.time()})


def _manifest(
    plan: ReferencePlan,
    made: LibraryMade,
    sources: list[RatedSource],
    progress: Progress,
    watch: Stopwatch,
) -> dict[str, Any]:
    """The manifest: what went in, what came out, and everything needed to make it again."""
    parts = made.counts.parts
    return {
        "kind": KIND,
        "format": FORMAT,
        "revision": made.revision,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "encoder": {
            "model": plan.config.embed.model,
            "revision": plan.encoder,
            "dimension": made.dimension,
        },
        "counts": {"rows": parts["in_library"], "rows_in": made.counts.rows_in},
        "fates": {name: count for name, count in parts.items() if count},
        "tasks": dict(made.tasks),
        "effective_votes": made.effective_votes,
        "sources": [
            {
                "workspace": source.workspace.uri,
                "rater": source.settings.rater,
                "files": len(source.pool),
                "tables": source.versions(),
            }
            for source in sources
        ],
        "config": plan.config.model_dump(mode="json"),
        "config_fingerprint": plan.config.fingerprint(),
        "versions": package_versions(),
        "stages": [stage_record(counts) for counts in progress.ran],
        "skipped": list(progress.skipped),
        "seconds": {counts.stage: counts.seconds for counts in progress.ran}
        | {"total": watch.seconds},
    }


def _outcome(workspace: Workspace, name: str, *, is_new: bool, seconds: float) -> ReferenceOutcome:
    manifest = workspace.read_json(f"{FOLDER}/{name}/manifest.json")
    return ReferenceOutcome(f"{workspace.uri}/{FOLDER}/{name}", is_new, manifest, seconds)
