"""ZeRO stages, LoRA and full, one worker and two: all learn as one process of plain PyTorch.

Any model can be put in the place of the tiny one:

    MIXUP_MATRIX_MODEL=bundled:smollm2 make test-thorough \
        ARGS="tests/training/test_sft_matrix.py -k loss_curve -rP"
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from test_train_sft import LORA, losses
from tiny_training import reference, tiny_config

from mixup.pipelines.train_sft import train_sft
from mixup.training_config import SftConfig
from mixup.workspace import Workspace

FULL = "lora=null"
OTHER_MODEL = os.environ.get("MIXUP_MATRIX_MODEL")


def weights_of(config: SftConfig) -> dict:
    """The trained weights of the exported model."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(Path(config.workspace) / "models" / "tiny")
    return {name: values.detach() for name, values in model.named_parameters()}


@pytest.mark.parametrize(
    ("stage", "workers", "kind"),
    [
        pytest.param(3, 2, FULL, marks=pytest.mark.slow),  # test_train_sft.py has (2, 2, LORA)
        *[
            pytest.param(*found, marks=pytest.mark.thorough)
            for found in ((2, 2, FULL), (3, 2, LORA), (2, 1, FULL), (0, 2, FULL), (1, 2, LORA))
        ],
    ],
)
def test_the_loss_curve_is_that_of_one_process(
    ray_cluster, tiny_model, examples, tmp_path, kind, stage, workers
):
    import torch

    config = tiny_config(
        tmp_path / "w",
        OTHER_MODEL or tiny_model,
        examples,
        kind,
        f"zero.stage={stage}",
        f"workers.count={workers}",
        *(["optimizer.learning_rate=5e-4"] if OTHER_MODEL else []),
    )
    train_sft(config)
    expected, weights = reference(config)
    found = losses(config)
    print(
        f"greatest difference {max(abs(a - b) for a, b in zip(found, expected, strict=True)):.1e}"
    )
    assert found == pytest.approx(expected, abs=1e-4)
    assert expected[-1] < expected[0] - 0.1
    if kind == FULL and OTHER_MODEL is None:
        exported = weights_of(config)
        for name, values in exported.items():
            torch.testing.assert_close(values, weights[name], atol=1e-3, rtol=0)


@pytest.mark.thorough
@pytest.mark.parametrize("packing", [False, True])
def test_packed_rows_learn_as_alone(ray_cluster, tiny_model, examples, tmp_path, packing):
    config = tiny_config(
        tmp_path / "w", tiny_model, examples, f"examples.packing={packing}", "optimizer.batch=4"
    )
    train_sft(config)
    expected, _ = reference(config)
    assert losses(config) == pytest.approx(expected, abs=1e-4)


@pytest.mark.thorough
def test_activations_may_be_computed_twice(ray_cluster, tiny_model, examples, tmp_path):
    config = tiny_config(
        tmp_path / "w", tiny_model, examples, LORA, "gradient_checkpointing=true", "zero.stage=3"
    )
    train_sft(config)
    expected, _ = reference(config)
    assert losses(config) == pytest.approx(expected, abs=1e-4)


@pytest.mark.thorough
def test_the_best_checkpoint_is_the_one_exported(ray_cluster, tiny_model, examples, tmp_path):
    import torch

    held_out = (
        f"held_out={{paths: [{examples / 'held_out.jsonl'}], every_steps: 5, generations: 0}}"
    )
    config = tiny_config(
        tmp_path / "w",
        tiny_model,
        examples,
        held_out,
        "checkpoints.every_steps=5",
        "export.choose=best",
        "optimizer.learning_rate=0.3",  # it soon gets worse
        "optimizer.schedule=constant",
    )
    done = train_sft(config)
    measured = done.description["held_out_losses"]
    assert done.description["held_out_loss"] == min(measured)
    assert done.description["step"] == 5 * (measured.index(min(measured)) + 1)
    kept = (
        Path(config.workspace) / "checkpoints" / Workspace(config.workspace).list("checkpoints")[0]
    )
    assert {path.name for path in kept.glob("step-*")} == {
        f"step-{done.description['step']:08d}",
        "step-00000020",
    }
    assert all(torch.isfinite(values).all() for values in weights_of(config).values())
