"""What a fine-tuning ends with: a checkpoint as a model's folder, and what is said of it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from mixup import __version__
from mixup.lock import ensure_held
from mixup.models.tokenizing import example_tokenizer
from mixup.pipelines.sft_plan import SftPlan
from mixup.stages.run import RunContext
from mixup.stages.tokenize import TokenSet
from mixup.training.checkpoints import WEIGHTS, CheckpointRecord
from mixup.training.export import MODELS, Export, card, publish_model
from mixup.training.metrics import read_metrics
from mixup.training.sft import SftWork

logger = logging.getLogger(__name__)


def export(
    context: RunContext,
    plan: SftPlan,
    work: SftWork,
    key: str,
    tokens: TokenSet,
    final: CheckpointRecord,
) -> None:
    """Write the model's folder, in a task of one CPU.

    Args:
        context: The run.
        plan: What was decided before it started.
        work: What the workers were given.
        key: The model's key.
        tokens: What was learned.
        final: The last checkpoint.

    Raises:
        TableError: If the lock has passed to another run.
    """
    import ray

    config, chosen = plan.config, final
    if config.export.choose == "best":
        chosen = work.store.best() or final
    logger.info("export: started, from step %d", chosen.step)
    description = _describe(plan, work, key, tokens, chosen)
    shown = [(name, str(value)) for name, value in description.items() if name != "config"]
    given = Export(
        base=plan.base,
        template=config.examples.template,
        end_id=example_tokenizer(plan.encoding).end_id,
        is_adapter=config.lora is not None,
        merge=config.export.merge,
        dtype=config.export.dtype,
        description=description,
        card=card(config.name, config.model, shown, description["config"], kind="sft"),
    )
    ensure_held(context.workspace, context.token)
    task = ray.remote(num_cpus=1)(_publish)
    files = ray.get(task.remote(work, chosen, given))
    logger.info("export: done, %d files in %s/%s", len(files), MODELS, config.name)


def _publish(work: SftWork, chosen: CheckpointRecord, given: Export) -> list[str]:
    """Write the folder; runs in a worker."""
    with work.store.opened(chosen) as folder:
        return publish_model(work.workspace, work.config.name, given, folder / WEIGHTS)


def _describe(
    plan: SftPlan, work: SftWork, key: str, tokens: TokenSet, chosen: CheckpointRecord
) -> dict[str, Any]:
    """What a model was made of: its key, base, data, metrics and config."""
    lines = read_metrics(work.workspace, work.store.folder)
    losses = [row["loss"] for row in lines if row["kind"] == "train"]
    return {
        "key": key,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "mixup": __version__,
        "run": work.run,
        "base": plan.base.name,
        "base_revision": plan.base.revision,
        "data": ", ".join(plan.config.examples.paths) or "the table mixture",
        "data_revision": tokens.revision,
        "examples": tokens.rows,
        "tokens": tokens.tokens,
        "learned_tokens": tokens.learned,
        "left_out": tokens.left_out,
        "step": chosen.step,
        "steps": chosen.steps,
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "held_out_loss": chosen.loss,
        "held_out_losses": [row["loss"] for row in lines if row["kind"] == "held_out"],
        "config": plan.config.model_dump(mode="json", exclude={"workspace"}),
    }
