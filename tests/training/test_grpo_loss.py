"""The loss against plain loops in numpy, against TRL's own, and over any split of the batch."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mixup.errors import ConfigError, ShapeError
from mixup.training.grpo.loss import LossSettings, grpo_loss, k3

VARIANTS = [
    LossSettings(),
    LossSettings(beta=0.0, correction_cap=None),
    LossSettings(aggregation="dr_grpo", max_tokens=9, beta=0.1),
    LossSettings(aggregation="grpo", ratio_cap=None),
    LossSettings(aggregation="grpo", level="sequence", clip_low=3e-3, clip_high=4e-3),
]
NAMES = ["dapo", "plain", "dr_grpo", "grpo", "gspo"]


def batch(seed: int = 0) -> dict[str, np.ndarray]:
    """Six rollouts of 1 to 7 tokens; one is left out, one token has no sampled log-probability."""
    draw = np.random.default_rng(seed)
    lengths = [7, 1, 4, 3, 7, 2]
    mask = np.array([[at < length for at in range(7)] for length in lengths], dtype=np.float64)
    mask[3] = 0  # left out: its reward is missing
    new = -draw.exponential(1.0, (6, 7))
    sampled = new + draw.normal(0, 0.5, (6, 7))
    sampled[2, 1] = np.nan
    return {
        "logprobs": new,
        "old": new + draw.normal(0, 0.4, (6, 7)),
        "reference": new + draw.normal(0, 0.5, (6, 7)),
        "sampled": sampled,
        "advantages": np.array([1.2, -0.7, 0.0, 5.0, -1.4, 0.9]),
        "mask": mask,
    }


def reference(rows: dict[str, np.ndarray], settings: LossSettings, divisor: float) -> float:
    """The formulas, token by token."""
    total = 0.0
    for at, advantage in enumerate(rows["advantages"]):
        places = [t for t in range(7) if rows["mask"][at, t]]
        if not places:
            continue
        differences = [rows["logprobs"][at, t] - rows["old"][at, t] for t in places]
        mean = sum(differences) / len(places)
        own = 0.0
        for place, difference in zip(places, differences, strict=True):
            ratio = math.exp(difference if settings.level == "token" else mean)
            clipped = min(max(ratio, 1 - settings.clip_low), 1 + settings.clip_high)
            capped = ratio if settings.ratio_cap is None else min(ratio, settings.ratio_cap)
            loss = -min(capped * advantage, clipped * advantage)
            drawn = rows["sampled"][at, place]
            if settings.correction_cap is not None and not math.isnan(drawn):
                loss *= min(math.exp(rows["old"][at, place] - drawn), settings.correction_cap)
            apart = rows["reference"][at, place] - rows["logprobs"][at, place]
            own += loss + settings.beta * (math.exp(apart) - apart - 1)
        total += own / len(places) if settings.aggregation == "grpo" else own
    return total / divisor


def ours(rows: dict[str, np.ndarray], settings: LossSettings, divisor: float, part: Any = None):
    part = slice(None) if part is None else part
    tensors = {name: torch.tensor(values[part]) for name, values in rows.items()}
    return grpo_loss(
        tensors["logprobs"].requires_grad_(),
        old_BT=tensors["old"],
        advantages_B=tensors["advantages"],
        mask_BT=tensors["mask"],
        reference_BT=tensors["reference"] if settings.beta else None,
        sampled_BT=None if settings.correction_cap is None else tensors["sampled"],
        settings=settings,
        divisor=divisor,
    )


def divisor_of(rows: dict[str, np.ndarray], settings: LossSettings) -> float:
    return settings.divisor(tokens=rows["mask"].sum(), rollouts=int(rows["mask"].any(1).sum()))


@pytest.mark.parametrize("settings", VARIANTS, ids=NAMES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equal_to_the_reference(settings: LossSettings, seed: int):
    rows = batch(seed)
    divisor = divisor_of(rows, settings)
    found = ours(rows, settings, divisor)
    assert found.value.item() == pytest.approx(reference(rows, settings, divisor), rel=1e-12)
    assert found.tokens == rows["mask"].sum() == 21
    assert found.uncorrected == (settings.correction_cap is not None)


@pytest.mark.parametrize("settings", VARIANTS, ids=NAMES)
def test_parts_of_ranks_add_up_to_the_whole_and_so_do_gradients(settings: LossSettings):
    rows = batch()
    divisor = divisor_of(rows, settings)
    whole = ours(rows, settings, divisor)
    for parts in ([slice(0, 3), slice(3, 6)], [slice(0, 1), slice(1, 5), slice(5, 6)]):
        found = [ours(rows, settings, divisor, part) for part in parts]
        assert sum(one.value.item() for one in found) == pytest.approx(whole.value.item())
        assert sum(one.kl for one in found) == pytest.approx(whole.kl)
        assert sum(one.clipped_high for one in found) == whole.clipped_high


def test_what_is_left_out_and_padding_has_no_gradient():
    rows = batch()
    logprobs = torch.tensor(rows["logprobs"], requires_grad=True)
    settings = LossSettings()
    grpo_loss(
        logprobs,
        old_BT=torch.tensor(rows["old"]),
        advantages_B=torch.tensor(rows["advantages"]),
        mask_BT=torch.tensor(rows["mask"]),
        reference_BT=torch.tensor(rows["reference"]),
        sampled_BT=torch.tensor(rows["sampled"]),
        settings=settings,
        divisor=21.0,
    ).value.backward()
    gradient = logprobs.grad
    assert gradient is not None
    assert gradient[torch.tensor(rows["mask"]) == 0].abs().max() == 0
    assert gradient[0].abs().max() > 0


def test_the_clip_is_not_the_same_up_and_down():
    """Worked by hand: ratios 0.5 and 2 with advantages of both signs, low 0.2, high 0.3, cap 3."""
    settings = LossSettings(beta=0.0, correction_cap=None)
    for ratio, advantage, expected in [
        (2.0, 1.0, -1.3),
        (2.0, -1.0, 2.0),
        (9.0, -1.0, 3.0),
        (0.5, 1.0, -0.5),
        (0.5, -1.0, 0.8),
    ]:
        found = grpo_loss(
            torch.tensor([[math.log(ratio)]], dtype=torch.float64),
            old_BT=torch.zeros(1, 1, dtype=torch.float64),
            advantages_B=torch.tensor([advantage], dtype=torch.float64),
            mask_BT=torch.ones(1, 1, dtype=torch.float64),
            settings=settings,
            divisor=1.0,
        )
        assert found.value.item() == pytest.approx(expected)


def test_k3_is_zero_where_equal_and_nowhere_negative():
    new, old = torch.tensor([[-1.0, -2.0, -0.1]]), torch.tensor([[-1.0, -0.5, -3.0]])
    found = k3(new, old)[0].tolist()
    assert found[0] == 0.0
    assert found[1] == pytest.approx(math.exp(1.5) - 1.5 - 1)
    assert min(found) >= 0


def test_what_is_missing_is_refused():
    one = torch.zeros(1, 1)
    given = {"old_BT": one, "advantages_B": torch.ones(1), "mask_BT": one, "divisor": 1.0}
    with pytest.raises(ShapeError, match="no reference"):
        grpo_loss(one, settings=LossSettings(correction_cap=None), **given)
    with pytest.raises(ShapeError, match="engine's log-probabilities"):
        grpo_loss(one, settings=LossSettings(beta=0.0), **given)
    plain = LossSettings(beta=0.0, correction_cap=None)
    with pytest.raises(ShapeError, match=r"old has shape \(1, 2\)"):
        grpo_loss(one, settings=plain, **{**given, "old_BT": torch.zeros(1, 2)})
    with pytest.raises(ConfigError, match="give it"):
        LossSettings(aggregation="dr_grpo")
    with pytest.raises(ConfigError, match="GSPO"):
        LossSettings(level="sequence")


@pytest.mark.parametrize("settings", VARIANTS, ids=NAMES)
def test_equal_to_trl(settings: LossSettings):
    """TRL's own ``_compute_loss``, fed the same log-probabilities in one process and one batch."""
    from trl import GRPOTrainer

    rows = {name: values[[0, 1, 2, 4, 5]] for name, values in batch().items()}
    tensors = {name: torch.tensor(values) for name, values in rows.items()}
    trainer = trl_trainer(settings, tensors["logprobs"])
    ratio = torch.exp(torch.nan_to_num((tensors["old"] - tensors["sampled"]) * tensors["mask"]))
    inputs = {
        "prompt_ids": torch.zeros(5, 1, dtype=torch.long),
        "prompt_mask": torch.ones(5, 1),
        "completion_ids": torch.zeros(5, 7, dtype=torch.long),
        "completion_mask": tensors["mask"],
        "advantages": tensors["advantages"],
        "old_per_token_logps": tensors["old"],
        "ref_per_token_logps": tensors["reference"],
        "importance_sampling_ratio": ratio.clamp(max=settings.correction_cap or 1.0),
        "num_items_in_batch": tensors["mask"].sum(),
    }
    theirs = GRPOTrainer._compute_loss(trainer, None, inputs)
    found = ours(rows, settings, divisor_of(rows, settings))
    assert found.value.item() == pytest.approx(float(theirs), rel=1e-9)


def trl_trainer(settings: LossSettings, logprobs: torch.Tensor) -> Any:
    """What ``_compute_loss`` reads of a trainer; its model's forward pass is what we give it."""
    from collections import defaultdict

    same = SimpleNamespace(
        num_processes=1,
        gather=lambda value: value,
        reduce=lambda value, reduction: value,
        sync_gradients=True,
    )
    return SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (
            logprobs,
            torch.zeros_like(logprobs),
            None,
        ),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level=settings.level,
        beta=settings.beta,
        loss_type=settings.aggregation,
        epsilon_low=settings.clip_low,
        epsilon_high=settings.clip_high,
        args=SimpleNamespace(
            delta=settings.ratio_cap, use_bias_correction_kl=False, steps_per_generation=1
        ),
        use_vllm=settings.correction_cap is not None,
        vllm_importance_sampling_correction=True,
        max_completion_length=settings.max_tokens,
        current_gradient_accumulation_steps=1,
        accelerator=same,
        model=SimpleNamespace(training=True),
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
    )
