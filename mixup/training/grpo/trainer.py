"""TRL's `GRPOTrainer`, on engines of our own, with our advantages and our loss.

TRL renders the prompts, asks for rollouts and rewards, and computes the log-probabilities of the
policy and of the reference; DeepSpeed and the loop are the libraries'. Ours are:

* the batches: a step is one round of rollouts, with one or several optimizer updates in it, so that
  a checkpoint, the weights' version and the position in the data are all the same number;
* the advantages, with a floored deviation, and without rollouts whose reward is missing;
* the loss, whose divisors are counts of the whole global batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from datasets import Dataset
from trl import GRPOTrainer

from mixup.errors import TrainingError
from mixup.training.checkpoints import WEIGHTS, CheckpointRecord, CheckpointStore, Ranks
from mixup.training.export import write_weights
from mixup.training.grpo.advantages import Advantages, Scale, group_advantages
from mixup.training.grpo.batches import PromptBatch, PromptLoader, in_parts
from mixup.training.grpo.generation import EngineGeneration
from mixup.training.grpo.held_out import HeldOutPairs, held_out_reward, seed_of
from mixup.training.grpo.loss import LossSettings, grpo_loss
from mixup.training.grpo.prompts import PromptRows, RolloutPlan
from mixup.training.grpo.record import RolloutRecord
from mixup.training.grpo.scoring import AnswerRewards
from mixup.training.grpo.watch import StepWatch
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


class RolloutTrainer(GRPOTrainer):
    """The trainer of one rank; see the module."""

    def __init__(self, rolling: Rolling, **given: Any) -> None:
        self._rolling = rolling
        self._watch = StepWatch(rolling.ranks, rolling.log)
        self._rewards_N = torch.empty(0)
        self._total: torch.Tensor | None = None
        self._left, self._divisor, self._rate = 0, 1.0, 0.0
        self._measured: dict[str, float] = {}
        # TRL takes only data sets of its own kinds; what is asked comes from the plan.
        unused = Dataset.from_dict({"prompt": [""]})
        super().__init__(
            reward_funcs=[rolling.rewards.combined],
            train_dataset=unused,
            eval_dataset=None if rolling.held_out is None else unused,
            **given,
        )
        # With use_vllm at construction TRL would start engines of its own; ours take their place.
        self.use_vllm = True
        self._last_loaded_step = -1
        self.vllm_generation = rolling.generation  # type: ignore[reportAttributeAccessIssue]
        trained: Any = self.model
        rolling.generation.bind(trained, lambda: self.state.global_step)
        rolling.rewards.bind(self.processing_class)

    def get_train_dataloader(self) -> Any:
        """The plan's prompts, from the step on at which the training stands."""
        given = self._rolling
        return PromptLoader(
            given.plan,
            given.rows,
            rank=given.ranks.rank,
            world=given.ranks.world,
            start=lambda: self.state.global_step,
        )

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """One step's prompts."""
        found = next(epoch_iterator, None)
        return ([] if found is None else [found]), None

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: a step is as long as its answers are."""
        return 0

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Rollouts and their rewards, then the updates on them; the mean of their losses.

        Raises:
            TrainingError: If a loss is no number.
            WrongWeights: If an engine does not hold the model.
            StalledError: If an engine or a reward is stuck.
        """
        batch: PromptBatch = inputs
        learning, watch = self._rolling.learning, self._watch
        if batch.step == 0:
            self._measure()
        self._rate = self._get_learning_rate()
        self._rolling.generation.seconds.clear()
        watch.begin()
        model.train()
        rollouts = self._draw(batch)
        each = len(rollouts["kept"]) // len(batch.minibatches)
        spans = [range(start, start + each) for start in range(0, len(rollouts["kept"]), each)]
        counts = self._counts(rollouts, spans)
        losses = []
        for span, (tokens, kept) in zip(spans, counts, strict=True):
            self._divisor = learning.loss.divisor(tokens=tokens, rollouts=int(kept))
            losses.append(self._update(model, in_parts(rollouts, span, learning.micro)))
        watch.end(batch.step + 1, self._rolling.generation, self._rolling.rewards)
        self._tell(batch.step + 1)
        return torch.stack(losses).mean()

    def _draw(self, batch: PromptBatch) -> dict[str, Any]:
        """The step's rollouts with their advantages, written down."""
        given, learning = self._rolling, self._rolling.learning
        prompts = [row for rows in batch.minibatches for row in rows]
        asked = [
            {
                "prompt": row.messages,
                "row": row,
                "index": index,
                "seed": seed_of(learning.seed, batch.step, row.pair, index),
            }
            for row in prompts
            for index in range(learning.group)
        ]
        given.generation.seeds = [one["seed"] for one in asked]
        return self._generate_and_score_completions(asked)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's rollouts and log-probabilities, with advantages of ours."""
        found = super()._generate_and_score_completions(inputs)
        given, learning = self._rolling, self._rolling.learning
        advantages = group_advantages(
            self._rewards_N.double().cpu().numpy(),
            learning.group,
            scale=learning.scale,
            floor=learning.floor,
            least=learning.least,
            drop_constant=learning.drop_constant,
        )
        own = slice(given.ranks.rank * len(inputs), (given.ranks.rank + 1) * len(inputs))
        device = self.accelerator.device
        found["advantages"] = torch.tensor(advantages.values_N[own], device=device).float()
        found["kept"] = torch.tensor(advantages.kept_N[own], device=device).long()
        self._watch.groups(advantages, given.rewards.last)
        self._write(inputs, advantages, own)
        return found

    def _write(self, inputs: list[dict[str, Any]], advantages: Advantages, own: slice) -> None:
        given, step = self._rolling, self.state.global_step
        rollouts = given.generation.last
        given.record.write(
            step,
            inputs,
            rollouts,
            given.rewards.texts([one.token_ids for one in rollouts]),
            given.rewards.last,
            advantages.values_N[own],
            advantages.reasons[own],
        )

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> torch.Tensor:
        """TRL's rewards of all ranks, which are kept for the advantages."""
        found = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self._rewards_N = found[:, 0]
        return found

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: Any, **named: Any
    ) -> Any:
        """TRL's, in parts of the size that training has too."""
        if named.get("batch_size") is not None:
            named["batch_size"] = self._rolling.learning.micro
        return super()._get_per_token_logps_and_entropies(
            model, input_ids, attention_mask, logits_to_keep, **named
        )

    def _counts(self, rollouts: dict[str, Any], spans: list[range]) -> list[tuple[float, float]]:
        """The tokens and the rollouts in the loss of each update, over all ranks."""
        kept_B = rollouts["kept"].double()
        tokens_B = rollouts["completion_mask"].sum(1).double() * kept_B
        own = [(tokens_B[span].sum(), kept_B[span].sum()) for span in map(list, spans)]
        counts_U2 = torch.tensor([[float(one) for one in pair] for pair in own])
        counts_U2 = counts_U2.double().to(self.accelerator.device)
        if dist.is_initialized():
            dist.all_reduce(counts_U2)
        return [(tokens, kept) for tokens, kept in counts_U2.tolist()]

    def _update(self, model: Any, parts: list[dict[str, torch.Tensor]]) -> torch.Tensor:
        """Forward and backward passes over the parts of an update; the last one takes the step."""
        self._total, self._left = None, len(parts)
        items = torch.tensor(1, device=self.args.device)
        for part in parts:
            self._left -= 1
            self.accelerator.gradient_state._set_sync_gradients(self._left == 0)
            super().training_step(model, part, items)
        assert self._total is not None  # every update has a part
        return self._total

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """The parts of an update, which are on the device already."""
        return generation_batch

    def _compute_loss(self, model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """The loss of a part; DeepSpeed takes the mean over ranks, and the parts are to be summed.

        Raises:
            TrainingError: If the loss of the update is no number: its last part takes the step.
        """
        settings = self._rolling.learning.loss
        input_ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        logprobs_BT, entropies_BT, _ = self._get_per_token_logps_and_entropies(
            model, input_ids, attention, inputs["completion_ids"].size(1), compute_entropy=True
        )
        corrected = settings.correction_cap is not None
        loss = grpo_loss(
            logprobs_BT.float(),
            old_BT=inputs["old_per_token_logps"].float(),
            advantages_B=inputs["advantages"],
            mask_BT=inputs["loss_mask"],
            settings=settings,
            divisor=self._divisor,
            reference_BT=_float(inputs.get("ref_per_token_logps")),
            sampled_BT=_float(inputs.get("sampling_per_token_logps")) if corrected else None,
        )
        self._watch.part(loss, entropies_BT.detach().float(), inputs["loss_mask"])
        value = loss.value * self._rolling.ranks.world
        part = value.detach()
        self._total = part if self._total is None else self._total + part
        if self._left == 0:
            self._check_finite(self._total)
        return value

    def _check_finite(self, total: torch.Tensor) -> None:
        """Check the loss of an update on all ranks, so that all stop at the same one."""
        summed = total.clone()
        if dist.is_initialized():
            dist.all_reduce(summed)
        if not math.isfinite(summed.item()):
            raise TrainingError(self._not_finite("loss", summed.item()))

    def _not_finite(self, what: str, value: float) -> str:
        last = self._rolling.store.last()
        kept = "there is no checkpoint yet" if last is None else f"step {last.step} is kept"
        return (
            f"the {what} is {value} at step {self.state.global_step + 1}; {kept}. Lower "
            "optimizer.learning_rate, raise objective.beta, or look at the rollouts of that step "
            "in the table `rollouts`"
        )

    def evaluate(self, *given: Any, **named: Any) -> dict[str, float]:
        """The reward on held-out pairs."""
        if self._rolling.held_out is None:
            return {}
        metrics = self._measure()
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, {"eval_reward": metrics["reward"]}
        )
        return metrics

    def _measure(self) -> dict[str, float]:
        given, start = self._rolling, time.monotonic()
        if given.held_out is None:
            return {}
        given.generation.sync_weights()
        found = held_out_reward(
            given.held_out,
            given.generation,
            given.rewards,
            self.processing_class,
            given.ranks,
            device=self.accelerator.device,
        )
        self._measured = found
        if given.log is not None:
            seconds = time.monotonic() - start
            given.log.add("held_out", self.state.global_step, {**found, "seconds": seconds})
        return found

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write what was measured since the last time.

        Raises:
            TrainingError: If the gradient's norm is no number.
        """
        if "loss" not in logs or "learning_rate" not in logs:
            super().log(logs, start_time)
            return
        norm = float(logs.get("grad_norm", 0.0))
        if not math.isfinite(norm):
            raise TrainingError(self._not_finite("norm of the gradient", norm))
        step = self.state.global_step
        # To the loop the whole training is one epoch.
        self.state.epoch = step / self._rolling.plan.steps_per_epoch
        logs["learning_rate"] = self._rate  # of the step; the scheduler has gone on
        self._metrics["train"].clear()  # of TRL's own loss and advantages, which are not in use
        logs.update(self._watch.read())
        super().log(logs, start_time)
        if (log := self._rolling.log) is not None:
            log.add("train", step, {key: value for key, value in logs.items() if key != "step"})
            self._tell(step)

    def _tell(self, step: int) -> None:
        """Say how far the training is, for whoever watches."""
        if (log := self._rolling.log) is not None:
            shown = {"reward": self._watch.reward, "epoch": self.state.epoch}
            place = {"step": step, "steps": self._rolling.plan.steps}
            log.progress({**place, **shown, "held_out_reward": self._measured.get("reward")})

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint into the workspace, all ranks together."""
        given, step = self._rolling, self.state.global_step
        at_end = step >= given.plan.steps
        lost = self._lost(step)
        best = given.store.best() if given.choose_best else None
        is_best = (
            given.choose_best
            and lost is not None
            and (best is None or best.loss is None or lost < best.loss)
        )
        record = CheckpointRecord(
            step=step,
            steps=given.plan.steps,
            world=given.ranks.world,
            stage=given.stage,
            plan=given.plan.fingerprint,
            loss=lost,
            has_weights=at_end or is_best,
            run=given.store.run,
        )
        given.record.settle()  # no step before a checkpoint is without its rollouts
        given.ranks.barrier()
        given.store.save(record, lambda folder: self._write_part(folder, record), given.ranks)
        if given.log is not None:
            given.log.flush()
        given.report({"step": step, "steps": record.steps, "reward": self._watch.reward})

    def _lost(self, step: int) -> float | None:
        """What is lacking to a held-out reward of 1 at this step; None where it was not measured.

        The lowest is best, as of a loss.
        """
        every = self.args.eval_steps
        was_measured = bool(every) and (step % int(every) == 0 or step >= self._rolling.plan.steps)
        reward = self._measured.get("reward", math.nan) if was_measured else math.nan
        return None if math.isnan(reward) else 1.0 - reward

    def _write_part(self, folder: Path, record: CheckpointRecord) -> None:
        """Write this rank's part of a checkpoint into a folder."""
        is_adapter, engine = hasattr(self.model, "peft_config"), self.model_wrapped
        engine.save_checkpoint(  # type: ignore[reportCallIssue, reportOptionalMemberAccess]
            str(folder), tag=f"global_step{record.step}", exclude_frozen_parameters=is_adapter
        )
        self._save_rng_state(str(folder))
        if self._rolling.ranks.rank == 0:
            self.state.save_to_json(str(folder / "trainer_state.json"))
        if record.has_weights:
            write_weights(self, folder / WEIGHTS, is_writer=self._rolling.ranks.rank == 0)


def _float(values: torch.Tensor | None) -> torch.Tensor | None:
    return None if values is None else values.float()
