"""What a GRPO training ends with: a checkpoint as a model's folder, and what is said of it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from mixup import __version__
from mixup.lock import ensure_held
from mixup.models.tokenizing import Encoding, example_tokenizer
from mixup.pipelines.grpo_plan import GrpoPlan
from mixup.stages.prompt_set import PromptSet
from mixup.stages.run import RunContext
from mixup.training.checkpoints import WEIGHTS, CheckpointRecord, CheckpointStore
from mixup.training.export import MODELS, Export, card, publish_model
from mixup.training.metrics import read_metrics

logger = logging.getLogger(__name__)


def export(
    context: RunContext,
    plan: GrpoPlan,
    store: CheckpointStore,
    key: str,
    prompts: PromptSet,
    final: CheckpointRecord,
) -> None:
    """Write the model's folder, in a task of one CPU.

    Args:
        context: The run.
        plan: What was decided before it started.
        store: The training's checkpoints.
        key: The model's key.
        prompts: What was asked.
        final: The last checkpoint.

    Raises:
        TableError: If the lock has passed to another run.
    """
    import ray

    config, chosen = plan.config, final
    if config.export.choose == "best":
        chosen = store.best() or final
    logger.info("export: started, from step %d", chosen.step)
    description = _describe(context, plan, store, key, prompts, chosen)
    shown = [(name, str(value)) for name, value in description.items() if name != "config"]
    given = Export(
        base=plan.base,
        template="chat",
        end_id=example_tokenizer(Encoding(plan.base.name, "chat", config.window)).end_id,
        is_adapter=config.lora is not None,
        merge=config.export.merge,
        dtype=config.export.dtype,
        description=description,
        card=card(config.name, plan.base.name, shown, description["config"], kind="grpo"),
    )
    ensure_held(context.workspace, context.token)
    task = ray.remote(num_cpus=1)(_publish)
    files = ray.get(task.remote(store, config.name, chosen, given))
    logger.info("export: done, %d files in %s/%s", len(files), MODELS, config.name)


def _publish(
    store: CheckpointStore, name: str, chosen: CheckpointRecord, given: Export
) -> list[str]:
    """Write the folder; runs in a worker."""
    with store.opened(chosen) as folder:
        return publish_model(store.workspace, name, given, folder / WEIGHTS)


def _describe(
    context: RunContext,
    plan: GrpoPlan,
    store: CheckpointStore,
    key: str,
    prompts: PromptSet,
    chosen: CheckpointRecord,
) -> dict[str, Any]:
    """What a model was made of: its key, base, prompts, rewards and config."""
    lines = read_metrics(context.workspace, store.folder)
    rewards = [row.get("reward") for row in lines if row["kind"] == "train"]
    tested = [row for row in lines if row["kind"] == "held_out"]
    return {
        "key": key,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "mixup": __version__,
        "run": context.run,
        "training": store.training,
        "base": plan.base.name,
        "base_revision": plan.base.revision,
        "data": ", ".join(plan.config.prompts.paths) or "the table mixture",
        "prompt_set": prompts.name,
        "prompts": prompts.rows,
        "left_out": prompts.left_out,
        "library": plan.library(),
        "step": chosen.step,
        "steps": chosen.steps,
        "first_reward": rewards[0] if rewards else None,
        "last_reward": rewards[-1] if rewards else None,
        "held_out_rewards": [[row["step"], row["reward"]] for row in tested],
        "config": plan.config.model_dump(mode="json", exclude={"workspace"}),
    }
