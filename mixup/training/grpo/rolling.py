"""What the trainer of a rank is given besides the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mixup.training.checkpoints import CheckpointStore, Ranks
from mixup.training.grpo.advantages import Scale
from mixup.training.grpo.generation import EngineGeneration
from mixup.training.grpo.held_out import HeldOutPairs
from mixup.training.grpo.loss import LossSettings
from mixup.training.grpo.prompts import PromptRows, RolloutPlan
from mixup.training.grpo.record import RolloutRecord
from mixup.training.grpo.scoring import AnswerRewards
from mixup.training.metrics import MetricsLog


@dataclass(frozen=True)
class Learning:
    """How rewards become a loss.

    Attributes:
        loss: How the loss is made.
        group: Answers to each prompt.
        scale: What advantages are divided by.
        floor: The least deviation.
        least: The rewards that a group needs.
        drop_constant: Whether groups of equal rewards are left out.
        micro: The most rollouts of one forward pass.
        seed: Of the rollouts.
    """

    loss: LossSettings
    group: int
    scale: Scale
    floor: float
    least: int
    drop_constant: bool
    micro: int
    seed: int


@dataclass(frozen=True)
class Rolling:
    """What a trainer is given besides the model.

    Attributes:
        plan: Which prompts are asked at which step.
        rows: The rows of the plan.
        learning: How rewards become a loss.
        held_out: What the reward is measured on; None: nothing is.
        generation: The engines.
        rewards: The reward actors.
        record: Where rollouts are written down.
        store: Where checkpoints go.
        log: Where metrics go; None on ranks other than 0.
        ranks: The processes that train.
        stage: The ZeRO stage.
        report: Called by every rank after each checkpoint, with what was measured.
        choose_best: Whether the checkpoint of the highest held-out reward is the one to export.
    """

    plan: RolloutPlan
    rows: PromptRows
    learning: Learning
    held_out: HeldOutPairs | None
    generation: EngineGeneration
    rewards: AnswerRewards
    record: RolloutRecord
    store: CheckpointStore
    log: MetricsLog | None
    ranks: Ranks
    stage: int
    report: Callable[[dict[str, Any]], object] = lambda metrics: None
    choose_best: bool = False
