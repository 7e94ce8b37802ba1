"""The whole job on a tiny model: against plain PyTorch, run again, and its model loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_training import reference, tiny_config

from mixup.pipelines.train_sft import train_sft
from mixup.training.checkpoints import CheckpointStore
from mixup.training.metrics import read_metrics
from mixup.training_config import SftConfig
from mixup.workspace import Workspace

LORA = "lora={rank: 4, alpha: 8}"


def training_of(config: SftConfig) -> str:
    (name,) = Workspace(config.workspace).list("checkpoints")
    return name


def losses(config: SftConfig) -> list[float]:
    """The loss of every step, as `metrics.jsonl` has it."""
    folder = f"checkpoints/{training_of(config)}"
    lines = read_metrics(Workspace(config.workspace), folder)
    found = [row for row in lines if row["kind"] == "train"]
    assert [row["step"] for row in found] == list(range(1, len(found) + 1))
    return [row["loss"] for row in found]


@pytest.fixture(scope="module")
def trained(
    ray_cluster: None, tiny_model: Path, examples: Path, tmp_path_factory: pytest.TempPathFactory
) -> SftConfig:
    """Two workers, ZeRO-2, LoRA, held-out examples; run to the end once."""
    place = tmp_path_factory.mktemp("trained") / "workspace"
    held_out = (
        f"held_out={{paths: [{examples / 'held_out.jsonl'}], every_steps: 10, max_tokens: 4}}"
    )
    rest = ("checkpoints.every_steps=8", "zero.stage=2", "export.adapter=bfloat16")
    config = tiny_config(place, tiny_model, examples, LORA, held_out, *rest)
    done = train_sft(config)
    assert done.is_new
    return config


def test_two_workers_learn_as_plain_pytorch_does(trained):
    expected, _ = reference_of(trained)
    assert losses(trained) == pytest.approx(expected, abs=1e-4)
    assert expected[-1] < expected[0] - 0.1  # there was something to learn


def reference_of(config: SftConfig) -> tuple[list[float], dict]:
    """The reference of a training with held-out examples, which have a token set too."""
    workspace = Workspace(config.workspace)
    described = json.loads((Path(workspace.uri) / "models/tiny/training.json").read_text())
    for name in workspace.list("token_sets"):
        found = workspace.read_json(f"token_sets/{name}/set.json")
        if found["revision"] == described["data_revision"]:
            return reference(config, name)
    raise AssertionError("the token set is gone")


def test_the_run_is_written_down(trained):
    workspace = Workspace(trained.workspace)
    folder = f"checkpoints/{training_of(trained)}"
    lines = read_metrics(workspace, folder)
    measured = [row for row in lines if row["kind"] == "held_out"]
    assert [row["step"] for row in measured] == [10, 20]
    assert measured[1]["loss"] < measured[0]["loss"]
    assert {row["step"] for row in lines if row["kind"] == "generation"} == {10, 20}
    first = next(row for row in lines if row["kind"] == "train")
    assert first["learning_rate"] == pytest.approx(0.0)  # of the step, not of the one after
    assert first["grad_norm"] > 0
    assert first["tokens_per_second"] > 0
    assert "mfu" not in first  # the peak of a CPU is not known
    progress = workspace.read_json(f"{folder}/progress.json")
    assert (progress["step"], progress["steps"]) == (20, 20)


def test_the_best_and_the_last_checkpoint_are_kept(trained):
    store = CheckpointStore(Workspace(trained.workspace), training_of(trained))
    (record,) = store.records()  # export.choose is `last`, so that no other is needed
    assert (record.step, record.world, record.stage, record.is_final) == (20, 2, 2, True)
    names = {path.name for path in (Path(trained.workspace) / store.folder / record.name).iterdir()}
    assert {"rng_state_0.pth", "rng_state_1.pth", "global_step20", "weights"} <= names


def test_a_run_again_has_nothing_to_do(trained, monkeypatch):
    import ray

    monkeypatch.setattr(ray, "init", None)  # it must not be needed
    done = train_sft(trained)
    assert not done.is_new


def test_the_exported_model_is_the_one_that_was_trained(trained, tiny_model):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(trained.workspace) / "models" / "tiny"
    names = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "generation_config.json", "README.md", "training.json"} <= names
    assert not any(name.endswith((".bin", ".pt", ".pth")) for name in names)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(tiny_model).chat_template
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    store = CheckpointStore(Workspace(trained.workspace), training_of(trained))
    weights = Path(trained.workspace) / store.folder / "step-00000020" / "weights"
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, str(weights))
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "the cat"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=False,
    )
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, adapted(ids).logits, atol=1e-4, rtol=1e-4)
    assert adapted.peft_config["default"].base_model_name_or_path == trained.model
    described = json.loads((folder / "training.json").read_text())
    assert described["examples"] == 45
    card = (folder / "README.md").read_text()
    assert described["data_revision"] in card
    assert trained.workspace not in card


def test_the_adapter_lies_beside_the_model_that_has_it(trained, tiny_model):
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    from mixup.models.adapters import load_merged

    folder = Path(trained.workspace) / "models" / "tiny"
    names = {path.name for path in (folder / "adapter").iterdir()}
    assert names == {"adapter_model.safetensors", "adapter_config.json", "README.md"}
    tensors = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert {values.dtype for values in tensors.values()} == {torch.bfloat16}
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"]) == (trained.model, 4)
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.no_grad():
        exported = AutoModelForCausalLM.from_pretrained(folder)(ids).logits
        merged = load_merged(tiny_model, folder / "adapter")(ids).logits
        base = AutoModelForCausalLM.from_pretrained(tiny_model)(ids).logits
    gap = (merged - exported).abs().max()
    assert gap < 0.02 * (base - exported).abs().max()  # bfloat16 has three digits
