from pathlib import Path

import pytest
import yaml

from mixup.config_file import describe, load_config
from mixup.errors import ConfigError
from mixup.training_config import PRESETS, SftConfig

JOB = Path(__file__).parents[2] / "jobs" / "sft.yaml"


def loaded(*overrides: str) -> SftConfig:
    return load_config(SftConfig, JOB, overrides)


def refused(*overrides: str) -> str:
    with pytest.raises(ConfigError) as raised:
        loaded(*overrides)
    return str(raised.value)


def test_the_presets_have_the_papers_values():
    distiller = loaded("preset=paper-distiller")
    assert distiller.model == "Qwen/Qwen2.5-1.5B-Instruct"
    assert distiller.lora is None
    assert (distiller.optimizer.learning_rate, distiller.optimizer.epochs) == (2e-5, 1.0)
    assert (distiller.examples.window, distiller.examples.template) == (2400, "chat")
    downstream = loaded("preset=paper-downstream")
    assert downstream.model == "meta-llama/Llama-3.1-8B"
    assert downstream.lora is not None
    assert (downstream.lora.rank, downstream.lora.alpha, downstream.lora.dropout) == (64, 16.0, 0.1)
    assert (downstream.optimizer.learning_rate, downstream.optimizer.epochs) == (1e-4, 5.0)
    assert (downstream.optimizer.batch, downstream.examples.window) == (128, 2048)
    assert downstream.examples.template == "plain"


@pytest.mark.parametrize("preset", PRESETS)
def test_what_stands_beside_a_preset_replaces_its_values_one_by_one(preset):
    config = loaded(f"preset={preset}", "optimizer.learning_rate=0.5", "lora=null")
    assert config.optimizer.learning_rate == 0.5
    assert config.optimizer.epochs == loaded(f"preset={preset}").optimizer.epochs
    assert config.lora is None


def test_a_preset_names_known_keys_only(tmp_path):
    for preset, values in PRESETS.items():
        path = tmp_path / f"{preset}.yaml"
        path.write_text(yaml.safe_dump({"workspace": "w", **values}, sort_keys=True))
        given = load_config(SftConfig, path)
        assert given.model_dump() == {
            **loaded(f"preset={preset}", "workspace=w", f"name={values['name']}").model_dump(),
            "preset": None,
        }


def test_a_release_is_learned_by_another_file():
    config = load_config(SftConfig, JOB.with_name("downstream.yaml"), [])
    assert (config.name, config.model) == ("downstream", "bundled:smollm2")
    assert (config.examples.template, config.examples.paths) == ("plain", ["workspace/demo"])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("preset=paper", "preset"),
        ("optimiser.batch=3", "did you mean 'optimizer'"),
        ("workers.count=5", "is 4 forward pass(es), fewer than the 5 workers"),
        ("zero={stage: 2, offload_weights: true}", "offload_weights needs stage 3"),
        ("zero={stage: 2, offload_optimizer: true}", "needs workers.gpus=1"),
        ("precision=bf16", "precision bf16 needs workers.gpus=1"),
        ("attention=flash_attention_2", "needs workers.gpus=1"),
        ("workers.gpus=2", "workers.gpus"),
        ("name=../evil", "name"),
        ("name=''", "name"),
        ("lora={rank: 0}", "lora.rank"),
        ("export={adapter: bfloat16, merge: false}", "export.adapter needs lora, and export.merge"),
        ("examples.window=3", "examples.window"),
    ],
)
def test_a_mistake_is_said_with_its_place(override, said):
    assert said in refused(override)


def test_as_many_passes_as_workers_will_do():
    assert loaded("workers.count=2", "optimizer={batch: 4, micro_batch: 2}").workers.count == 2


@pytest.mark.parametrize(
    ("override", "decides"),
    [
        ("optimizer.learning_rate=0.5", True),
        ("optimizer.batch=8", True),
        ("lora.rank=2", True),
        ("seed=1", True),
        ("examples.packing=true", True),
        ("export.choose=best", True),
        ("optimizer.micro_batch=1", False),
        ("workers.max_failures=0", False),
        ("zero.stage=3", False),
        ("gradient_checkpointing=true", False),
        ("checkpoints.every_steps=3", False),
        ("held_out.every_steps=3", False),
        ("export.dtype=bfloat16", False),
        ("name=other", False),
    ],
)
def test_what_decides_the_weights(override, decides):
    assert (loaded(override).decides() != loaded().decides()) == decides


def test_every_key_is_documented():
    for key, _, text in describe(SftConfig):
        assert text, key
