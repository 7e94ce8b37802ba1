"""What a training ends with: a checkpoint as a model's folder, and what is said of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mixup import __version__
from mixup.lock import ensure_held
from mixup.models.tokenizing import Encoding, example_tokenizer
from mixup.stages.run import RunContext
from mixup.training.checkpoints import WEIGHTS, CheckpointRecord, CheckpointStore
from mixup.training.export import MODELS, Export, card, publish_model
from mixup.training.models import Base
from mixup.training_config import TrainingConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A training that is over.

    Attributes:
        config: The job's config.
        name: The model's name.
        key: The model's key.
        kind: A word for how it was trained.
        base: The base model.
        encoding: How texts became tokens.
        store: Its checkpoints.
        final: The last of them.
    """

    config: TrainingConfig
    name: str
    key: str
    kind: str
    base: Base
    encoding: Encoding
    store: CheckpointStore
    final: CheckpointRecord


def export(
    context: RunContext, trained: Trained, describe: Callable[[CheckpointRecord], dict[str, Any]]
) -> None:
    """Write the model's folder, in a task of one CPU.

    Args:
        context: The run.
        trained: The training.
        describe: What is said of a checkpoint besides what is said of all.

    Raises:
        TableError: If the lock has passed to another run.
    """
    import ray

    config, chosen = trained.config, trained.final
    if config.export.choose == "best":
        chosen = trained.store.best() or trained.final
    logger.info("export: started, from step %d", chosen.step)
    description = {**_description(context, trained, chosen), **describe(chosen)}
    shown = [(name, str(value)) for name, value in description.items() if name != "config"]
    given = Export(
        base=trained.base,
        template=trained.encoding.template,
        end_id=example_tokenizer(trained.encoding).end_id,
        is_adapter=config.lora is not None,
        merge=config.export.merge,
        dtype=config.export.dtype,
        adapter=config.export.adapter,
        description=description,
        card=card(trained.name, trained.base.name, shown, description["config"], kind=trained.kind),
    )
    ensure_held(context.workspace, context.token)
    task = ray.remote(num_cpus=1)(_publish)
    files = ray.get(task.remote(trained.store, trained.name, chosen, given))
    logger.info("export: done, %d files in %s/%s", len(files), MODELS, trained.name)


def _publish(
    store: CheckpointStore, name: str, chosen: CheckpointRecord, given: Export
) -> list[str]:
    """Write the folder; runs in a worker."""
    with store.opened(chosen) as folder:
        return publish_model(store.workspace, name, given, folder / WEIGHTS)


def _description(context: RunContext, trained: Trained, chosen: CheckpointRecord) -> dict[str, Any]:
    """What is said of every model."""
    return {
        "key": trained.key,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "mixup": __version__,
        "run": context.run,
        "training": trained.store.training,
        "base": trained.base.name,
        "base_revision": trained.base.revision,
        "step": chosen.step,
        "steps": chosen.steps,
        "config": trained.config.model_dump(mode="json", exclude={"workspace"}),
    }
