"""Train-sft: a base model learns to answer as examples do.

    MIXTURE, a release or files → tokenize → workers of Ray Train, under DeepSpeed → export

Examples are tokenized once, into a table keyed by their content. A training is known by a key of
all that decides its weights; its checkpoints lie under that key. So the same command goes on from
the last checkpoint of a run that was killed, and has nothing to do once the model is there.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mixup.actors.resources import check_place, cluster
from mixup.errors import ConfigError, MixupError, TrainingError
from mixup.lock import acquire
from mixup.pipelines.sft_export import export
from mixup.pipelines.sft_plan import SftPlan, make_plan, up_to_date
from mixup.pipelines.training_line import TrainingLine
from mixup.stages.run import RunContext, Stopwatch
from mixup.stages.tokenize import KEPT, TokenSet, tokenize
from mixup.stages.vacuum import clean_up
from mixup.training.checkpoints import CheckpointRecord, check_resumable
from mixup.training.export import MODELS, description_of
from mixup.training.launch import Launch, run_workers
from mixup.training.metrics import check_plugins
from mixup.training.models import check_base
from mixup.training.sft import SftWork, train_worker
from mixup.training_config import SftConfig
from mixup.workspace import Workspace, ensure_workspace

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SftOutcome:
    """What a run came to.

    Attributes:
        model: The model's folder.
        is_new: Whether this run made it.
        description: What it was made of.
        seconds: The run's wall time.
    """

    model: str
    is_new: bool
    description: Mapping[str, Any]
    seconds: float


def train_sft(config: SftConfig) -> SftOutcome:
    """Run the job.

    Raises:
        ConfigError: The config or the input is wrong; nothing has started.
        MixupError: The run failed; its last checkpoint stays, and the next run goes on from there.
    """
    watch = Stopwatch()
    workspace = ensure_workspace(config.workspace, buckets=1)
    plan = make_plan(config)
    if up_to_date(workspace, plan):
        logger.info("nothing to do: model %s is up to date", config.name)
        return _outcome(workspace, config.name, is_new=False, seconds=watch.seconds)
    check_plugins(config.metrics.to)
    if "tensorboard" in config.metrics.to and not workspace.is_local:
        raise ConfigError(
            "metrics.to names tensorboard, whose files an object store does not take; leave it out "
            "(metrics.jsonl is written always), or name mlflow or wandb"
        )
    check_base(plan.base, template=config.examples.template, window=config.examples.window)
    run = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
    with acquire(workspace, run) as lease:
        context = RunContext(
            workspace,
            run,
            lease.token,
            commit_interval_s=config.commit_interval_s,
            stall_timeout_s=config.stall_timeout_s,
        )
        workspace.write_json(f"runs/{run}/config.json", config.model_dump(mode="json"))
        logger.info("run %s in %s", run, workspace.uri)
        clean_up(context, lease)
        with cluster(config.ray):
            check_place(workspace, shared=config.workspace_shared)
            is_new = _run(context, plan, watch)
    return _outcome(workspace, config.name, is_new=is_new, seconds=watch.seconds)


def _run(context: RunContext, plan: SftPlan, watch: Stopwatch) -> bool:
    """Tokenize, train and export; whether a new model came of it."""
    config, workspace = plan.config, context.workspace
    tokens = tokenize(context, [plan.source], plan.encoding)
    _check_dropped(tokens, config.max_dropped_share)
    held_out = None
    if plan.held_out is not None:
        held_out = tokenize(context, [plan.held_out], plan.encoding)
    training = plan.key(tokens, held_out)
    key = plan.model_key(training)
    described = description_of(workspace, config.name)
    if described is not None and described["key"] == key:
        return False
    if described is not None and not config.overwrite:
        raise ConfigError(
            f"{MODELS}/{config.name} holds a model that was trained otherwise (key "
            f"{described['key'][:12]}, now {key[:12]}); choose another name, or overwrite=true"
        )
    work = SftWork(
        config=config,
        workspace=workspace,
        run=context.run,
        token=context.token,
        base=plan.base,
        training=f"{config.name}-{training[:12]}",
        tokens=tokens.name,
        held_out=None if held_out is None else held_out.name,
    )
    final = _train(context, work)
    export(context, plan, work, key, tokens, final)
    record = {"model": config.name, "key": key, "seconds": watch.seconds, "ended": time.time()}
    workspace.write_json(f"runs/{context.run}/summary.json", record)
    return True


def _check_dropped(tokens: TokenSet, limit: float) -> None:
    """Check the share of rows that were left out.

    Raises:
        MixupError: If it is above the limit.
    """
    left, kept = tokens.left_out, tokens.counts.get(KEPT, 0)
    if sum(left.values()) > limit * (kept + sum(left.values())):
        named = ", ".join(f"{reason} {count}" for reason, count in sorted(left.items()))
        raise MixupError(
            f"{sum(left.values())} of {kept + sum(left.values())} examples are left out ({named}), "
            f"more than max_dropped_share={limit}; the table `tokens` has the place of each: mend "
            "the data, raise examples.window if they are too long, or raise the limit"
        )


def _train(context: RunContext, work: SftWork) -> CheckpointRecord:
    """Train to the end, from wherever the last run stopped; the last checkpoint."""
    config, store = work.config, work.store
    last, (batches, _) = store.last(), work.plan()
    if last is not None:
        check_resumable(
            last,
            plan=batches.fingerprint,
            world=config.workers.count,
            stage=config.zero.stage,
        )
        if last.is_final:
            logger.info("train: nothing to do, all %d steps are done", last.steps)
            return last
    workspace, run = context.workspace, context.run
    workspace.write_json(f"runs/{run}/training.json", {"folder": store.folder})
    start = last.step if last else 0
    logger.info(
        "train: started at step %d of %d; %d worker(s), ZeRO-%d; %d tokens an epoch",
        *(start, batches.steps, config.workers.count, config.zero.stage, batches.tokens),
    )
    launch = Launch(work.training, f"{workspace.uri}/runs/{run}/ray", config.workers)
    with TrainingLine(
        workspace, store.folder, start, batches.steps, config.stall_timeout_s
    ) as line:
        run_workers(train_worker, {"work": work}, launch, line.look)
    final = store.last()
    if final is None or not final.is_final:
        raise TrainingError(f"the workers ended without the last checkpoint of {store.folder}")
    logger.info("train: done, %d steps", final.steps)
    return final


def _outcome(workspace: Workspace, name: str, *, is_new: bool, seconds: float) -> SftOutcome:
    described = description_of(workspace, name) or {}
    return SftOutcome(f"{workspace.uri}/{MODELS}/{name}", is_new, described, seconds)
