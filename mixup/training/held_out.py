"""The loss on held-out rows, and what the model answers to a few of them, while it is trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from mixup.training.batches import Rows, tensors
from mixup.training.checkpoints import Ranks
from mixup.training.plan import BatchPlan, PlanSettings

if TYPE_CHECKING:
    from transformers import Trainer


@dataclass(frozen=True)
class HeldOut:
    """What the loss is measured on.

    Attributes:
        rows: The rows.
        window: The longest of them.
        micro: The most of one forward pass.
        generations: How many prompts are answered.
        max_tokens: The longest answer.
    """

    rows: Rows
    window: int
    micro: int
    generations: int
    max_tokens: int


@dataclass(frozen=True)
class Answer:
    """What a model answered to the prompt of a row."""

    row: int
    prompt: str
    answer: str


def held_out_loss(
    trainer: Trainer, held_out: HeldOut, ranks: Ranks, pad_id: int, *, flat: bool
) -> float:
    """The mean loss over all learned tokens of the rows, in nats; called by every rank at once.

    Args:
        trainer: Its model has TRL's fused head.
        held_out: The rows.
        ranks: The processes that take part.
        pad_id: The token of the padding.
        flat: As ``collate`` takes it.
    """
    settings = PlanSettings(
        held_out.window, batch=len(held_out.rows.lengths_N), micro=held_out.micro, seed=0
    )
    plan = BatchPlan(held_out.rows.lengths_N, settings)
    model: Any = trainer.model_wrapped
    model.eval()
    sums = torch.zeros(2, dtype=torch.float64)
    for micro in plan.micro_batches(0, rank=ranks.rank, world=ranks.world):
        found = trainer._prepare_inputs(tensors(held_out.rows, micro, pad_id, flat=flat))
        with torch.no_grad():
            outputs = model(**found, use_cache=False, fused_lm_head=True)
        sums += torch.tensor([-outputs.log_probs.sum().item(), outputs.label_mask.sum().item()])
    sums = sums.to(trainer.args.device)
    if dist.is_initialized():
        dist.all_reduce(sums)
    return (sums[0] / sums[1].clamp(min=1)).item()


def answers(trainer: Trainer, held_out: HeldOut, *, is_asked: bool) -> Iterator[Answer]:
    """Answers to the first prompts, greedy, so that no random number is drawn.

    Args:
        trainer: Every rank calls with its own: under ZeRO-3 all take part in gathering the weights.
        held_out: The rows.
        is_asked: Whether this rank answers.
    """
    from trl.models import unwrap_model_for_generation

    count = min(held_out.generations, len(held_out.rows.lengths_N))
    if not count:
        return
    wrapped: Any = trainer.model_wrapped
    with unwrap_model_for_generation(wrapped, trainer.accelerator) as model:
        for row in range(count if is_asked else 0):
            yield _answer(trainer, model, held_out, row)


def _answer(trainer: Trainer, model: Any, held_out: HeldOut, row: int) -> Answer:
    found = held_out.rows[row]
    start = int(found.loss_mask.argmax())
    ids = torch.tensor([found.input_ids[:start].tolist()], device=trainer.args.device)
    with torch.no_grad():
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=held_out.max_tokens,
            do_sample=False,
        )
    tokenizer: Any = trainer.processing_class
    return Answer(row, tokenizer.decode(ids[0]), tokenizer.decode(output[0, start:]))
