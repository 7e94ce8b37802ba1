"""What the training jobs do alike: what a run comes to, which model is left alone, the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mixup.errors import ConfigError, MixupError, TrainingError
from mixup.stages.run import RunContext, Stopwatch
from mixup.training.checkpoints import CheckpointRecord, CheckpointStore, check_resumable
from mixup.training.export import MODELS, description_of
from mixup.training_config import TrainingConfig
from mixup.workspace import Workspace

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingOutcome:
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


def outcome(workspace: Workspace, name: str, watch: Stopwatch, *, is_new: bool) -> TrainingOutcome:
    """What a run came to, as its model says."""
    described = description_of(workspace, name) or {}
    return TrainingOutcome(f"{workspace.uri}/{MODELS}/{name}", is_new, described, watch.seconds)


def is_made(workspace: Workspace, name: str, key: str, *, overwrite: bool) -> bool:
    """Whether the model of a key is there.

    Raises:
        ConfigError: If the model of that name has another key, and may not be replaced.
    """
    described = description_of(workspace, name)
    if described is None or described["key"] == key:
        return described is not None
    if not overwrite:
        raise ConfigError(
            f"{MODELS}/{name} holds a model that was trained otherwise (key "
            f"{described['key'][:12]}, now {key[:12]}); choose another name, or overwrite=true"
        )
    return False


def check_dropped(
    what: str, left_out: Mapping[str, int], kept: int, limit: float, *, remedy: str
) -> None:
    """Check the share of rows that were left out.

    Args:
        what: What the rows are.
        left_out: How many were left out, by reason.
        kept: How many were not.
        limit: The largest share.
        remedy: What may be done about it.

    Raises:
        MixupError: If the share is above the limit.
    """
    left = sum(left_out.values())
    if left > limit * (kept + left):
        named = ", ".join(f"{reason} {count}" for reason, count in sorted(left_out.items()))
        raise MixupError(
            f"{left} of {kept + left} {what} are left out ({named}), more than "
            f"max_dropped_share={limit}; {remedy}, or raise the limit"
        )


def last_checkpoint(
    store: CheckpointStore, config: TrainingConfig, fingerprint: str
) -> CheckpointRecord | None:
    """The checkpoint that a run goes on from; None where it begins.

    Raises:
        TrainingError: If it cannot go on from the one there is.
    """
    last = store.last()
    if last is None:
        return None
    world, stage = config.workers.count, config.zero.stage
    check_resumable(last, plan=fingerprint, world=world, stage=stage)
    if last.is_final:
        logger.info("train: nothing to do, all %d steps are done", last.steps)
    return last


def final_checkpoint(store: CheckpointStore) -> CheckpointRecord:
    """The checkpoint of the last step, after the workers have ended.

    Raises:
        TrainingError: If there is none.
    """
    final = store.last()
    if final is None or not final.is_final:
        raise TrainingError(f"the workers ended without the last checkpoint of {store.folder}")
    logger.info("train: done, %d steps", final.steps)
    return final


def note_model(context: RunContext, name: str, key: str, watch: Stopwatch) -> None:
    """Write what the run made beside its config."""
    record = {"model": name, "key": key, "seconds": watch.seconds, "ended": time.time()}
    context.workspace.write_json(f"runs/{context.run}/summary.json", record)
