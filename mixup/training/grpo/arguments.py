"""What a GRPO config means to TRL, to DeepSpeed and to our own loss."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixup.grpo_config import GrpoConfig
from mixup.training.grpo.prompts import RolloutPlan
from mixup.training.worker import loop_arguments

if TYPE_CHECKING:
    from mixup.training.grpo.rolling import Learning


def learning_of(config: GrpoConfig) -> Learning:
    """How rewards become a loss."""
    from mixup.training.grpo.loss import LossSettings
    from mixup.training.grpo.rolling import Learning

    asked = config.objective
    settings = LossSettings(
        aggregation="grpo" if asked.variant == "gspo" else asked.variant,
        level="sequence" if asked.variant == "gspo" else "token",
        clip_low=asked.clip_low,
        clip_high=asked.clip_high,
        ratio_cap=asked.ratio_cap,
        beta=asked.beta,
        correction_cap=asked.correction_cap,
        max_tokens=config.rollouts.max_tokens,
    )
    return Learning(
        loss=settings,
        group=config.rollouts.group,
        scale=asked.scaled_by,
        floor=asked.floor,
        least=asked.least_rewards,
        drop_constant=asked.drop_constant,
        micro=config.optimizer.micro_batch,
        seed=config.seed,
    )


def trl_arguments(
    config: GrpoConfig,
    plan: RolloutPlan,
    scratch: Path,
    set_up: dict[str, Any],
    *,
    is_measured: bool,
) -> Any:
    """TRL's config.

    Args:
        config: The job's config.
        plan: Which prompts are asked at which step.
        scratch: A folder that the library may write to.
        set_up: What the worker's set-up asks for.
        is_measured: Whether there are held-out pairs.
    """
    from trl import GRPOConfig as TrlConfig

    objective = config.objective
    corrected = objective.correction_cap is not None
    common = loop_arguments(config, plan.steps, scratch, set_up, is_measured=is_measured)
    common["warmup_steps"] *= plan.minibatches  # in updates: `RolloutTrainer.create_scheduler`
    return TrlConfig(
        **common,
        per_device_eval_batch_size=1,
        generation_batch_size=plan.prompts * config.rollouts.group,
        num_generations=config.rollouts.group,
        num_generations_eval=1,
        num_iterations=1,
        shuffle_dataset=False,
        use_vllm=False,  # see the trainer: engines of our own take the place of TRL's
        vllm_importance_sampling_correction=corrected,
        vllm_importance_sampling_mode="token_truncate",
        vllm_importance_sampling_clip_max=objective.correction_cap if corrected else 2.0,
        temperature=config.rollouts.temperature,
        top_p=1.0,
        top_k=0,
        min_p=None,
        repetition_penalty=1.0,
        max_completion_length=config.rollouts.max_tokens,
        mask_truncated_completions=False,
        beta=objective.beta,
        sync_ref_model=False,
        disable_dropout=True,
        epsilon=objective.clip_low,
        epsilon_high=objective.clip_high,
        delta=objective.ratio_cap,
        loss_type="grpo" if objective.variant == "gspo" else objective.variant,
        importance_sampling_level="sequence" if objective.variant == "gspo" else "token",
        scale_rewards=objective.scaled_by,
        reward_weights=[1.0],
        log_completions=False,
    )
