"""Rollouts in the parts that go through the model at once."""

from __future__ import annotations

import torch

from mixup.training.grpo.batches import in_parts

PROMPTS, ANSWERS = [2, 5, 3, 4], [6, 1, 3, 2]


def rollouts() -> dict[str, torch.Tensor]:
    """Prompts on the right of 5 places, answers on the left of 6; row n has the number n."""
    before = torch.tensor([[0] * (5 - n) + [1] * n for n in PROMPTS])
    after = torch.tensor([[1] * n + [0] * (6 - n) for n in ANSWERS])
    number = torch.arange(4)[:, None] + 1
    return {
        "prompt_ids": before * number,
        "prompt_mask": before,
        "completion_ids": after * number * 10,
        "completion_mask": after,
        "old_per_token_logps": after * -1.0,
        "advantages": torch.tensor([1.0, 2.0, 3.0, 4.0]),
        "kept": torch.tensor([1, 0, 1, 1]),
    }


def test_every_rollout_is_in_one_part_and_those_of_like_length_together():
    parts = in_parts(rollouts(), range(4), 3)
    assert [len(part["advantages"]) for part in parts] == [3, 1]
    assert parts[0]["advantages"].tolist() == [1.0, 2.0, 3.0]  # 8, 6 and 6 tokens
    assert parts[1]["advantages"].tolist() == [4.0]


def test_padding_that_all_have_is_cut_off():
    (part,) = in_parts(rollouts(), [2, 3], 4)
    assert part["prompt_ids"].tolist() == [[0, 3, 3, 3], [4, 4, 4, 4]]
    assert part["completion_ids"].tolist() == [[30, 30, 30], [40, 40, 0]]
    assert part["old_per_token_logps"].shape == part["completion_ids"].shape


def test_what_is_left_out_is_in_no_loss_but_is_read():
    (part,) = in_parts(rollouts(), [0, 1], 4)
    assert part["completion_mask"].sum(1).tolist() == [6, 1]
    assert part["loss_mask"].sum(1).tolist() == [6, 0]
