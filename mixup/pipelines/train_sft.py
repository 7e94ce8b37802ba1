"""Train-sft: a base model learns to answer as examples do.

    MIXTURE, a release or files → tokenize → workers of Ray Train, under DeepSpeed → export

Examples are tokenized once, into a table keyed by their content. A training is known by a key of
all that decides its weights; its checkpoints lie under that key. So the same command goes on from
the last checkpoint of a run that was killed, and has nothing to do once the model is there.
"""

from __future__ import annotations

import logging
from typing import Any

from mixup.pipelines.model_export import Trained, export
from mixup.pipelines.progress import cluster_of, started_run
from mixup.pipelines.sft_plan import SftPlan, make_plan, up_to_date
from mixup.pipelines.training_line import TrainingLine
from mixup.pipelines.training_run import (
    TrainingOutcome,
    check_dropped,
    final_checkpoint,
    is_made,
    last_checkpoint,
    note_model,
    outcome,
)
from mixup.stages.run import RunContext, Stopwatch
from mixup.stages.token_sets import KEPT, TokenSet
from mixup.stages.tokenize import tokenize
from mixup.training.checkpoints import CheckpointRecord
from mixup.training.launch import Launch, run_workers
from mixup.training.metrics import check_plugins, read_metrics
from mixup.training.models import check_base
from mixup.training.sft import SftWork, train_worker
from mixup.training_config import SftConfig
from mixup.workspace import ensure_workspace

logger = logging.getLogger(__name__)


def train_sft(config: SftConfig) -> TrainingOutcome:
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
        return outcome(workspace, config.name, watch, is_new=False)
    check_plugins(config.metrics.to, workspace)
    check_base(plan.base, template=config.examples.template, window=config.examples.window)
    with started_run(workspace, config) as context, cluster_of(context, config):
        is_new = _run(context, plan, watch)
    return outcome(workspace, config.name, watch, is_new=is_new)


def _run(context: RunContext, plan: SftPlan, watch: Stopwatch) -> bool:
    """Tokenize, train and export; whether a new model came of it."""
    config, workspace = plan.config, context.workspace
    tokens = tokenize(context, [plan.source], plan.encoding)
    check_dropped(
        "examples",
        tokens.left_out,
        tokens.counts.get(KEPT, 0),
        config.max_dropped_share,
        remedy="the table `tokens` has the place of each: mend the data, raise examples.window if "
        "they are too long",
    )
    held_out = None
    if plan.held_out is not None:
        held_out = tokenize(context, [plan.held_out], plan.encoding)
    training = plan.key(tokens, held_out)
    key = plan.model_key(training)
    if is_made(workspace, config.name, key, overwrite=config.overwrite):
        return False
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
    encoding = plan.encoding
    trained = Trained(config, config.name, key, "sft", plan.base, encoding, work.store, final)
    export(context, trained, lambda chosen: _described(work, tokens, chosen))
    note_model(context, config.name, key, watch)
    return True


def _train(context: RunContext, work: SftWork) -> CheckpointRecord:
    """Train to the end, from wherever the last run stopped; the last checkpoint."""
    config, store = work.config, work.store
    batches, _ = work.plan()
    last = last_checkpoint(store, config, batches.fingerprint)
    if last is not None and last.is_final:
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
    return final_checkpoint(store)


def _described(work: SftWork, tokens: TokenSet, chosen: CheckpointRecord) -> dict[str, Any]:
    """What is said of the model's data and losses."""
    lines = read_metrics(work.workspace, work.store.folder)
    losses = [row["loss"] for row in lines if row["kind"] == "train"]
    return {
        "data": ", ".join(work.config.examples.paths) or "the table mixture",
        "data_revision": tokens.revision,
        "examples": tokens.rows,
        "tokens": tokens.tokens,
        "learned_tokens": tokens.learned,
        "left_out": tokens.left_out,
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "held_out_loss": chosen.loss,
        "held_out_losses": [row["loss"] for row in lines if row["kind"] == "held_out"],
    }
