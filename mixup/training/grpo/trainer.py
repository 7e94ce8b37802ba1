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
from typing import Any

import torch
import torch.distributed as dist
from datasets import Dataset

from mixup.errors import TrainingError
from mixup.training.grpo.advantages import Advantages, group_advantages
from mixup.training.grpo.batches import PromptBatch, PromptLoader, in_parts
from mixup.training.grpo.held_out import seed_of
from mixup.training.grpo.kept import KeptTrainer
from mixup.training.grpo.loss import grpo_loss
from mixup.training.grpo.rolling import Rolling


class RolloutTrainer(KeptTrainer):
    """The trainer of one rank; see the module."""

    def __init__(self, rolling: Rolling, **given: Any) -> None:
        self._rewards_N = torch.empty(0)
        self._total: torch.Tensor | None = None
        self._left, self._divisor = 0, 1.0
        # TRL takes only data sets of its own kinds; what is asked comes from the plan.
        unused = Dataset.from_dict({"prompt": [""]})
        super().__init__(
            rolling,
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
        watch.begin(self._rolling.generation)
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

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule over all updates: DeepSpeed moves it on at each of them."""
        updates = num_training_steps * self._rolling.plan.minibatches
        return super().create_scheduler(updates, optimizer)

    def _update(self, model: Any, parts: list[dict[str, torch.Tensor]]) -> torch.Tensor:
        """Forward and backward passes over the parts of an update; the last one takes the step."""
        self._total, self._left = None, len(parts)
        items = torch.tensor(1, device=self.args.device)
        for part in parts:
            self._left -= 1
            self.accelerator.gradient_state._set_sync_gradients(self._left == 0)
            super().training_step(model, part, items)
        self._check_norm()
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


def _float(values: torch.Tensor | None) -> torch.Tensor | None:
    return None if values is None else values.float()
