"""The adapter of the bundled distiller, as the package holds it."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from mixup.config_file import load_config
from mixup.models.bundled import ADAPTER, DISTILLER, SMOLLM2
from mixup.refresh_config import RefreshConfig

MOST_BYTES = 6_000_000
JOB = Path(__file__).parents[3] / "jobs" / "demo.yaml"


def test_the_package_holds_a_small_adapter_of_the_bundled_model():
    config = json.loads((ADAPTER / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == SMOLLM2
    assert config["peft_type"] == "LORA"
    assert sum(path.stat().st_size for path in ADAPTER.iterdir()) <= MOST_BYTES
    with (ADAPTER / "adapter_model.safetensors").open("rb") as file:
        tensors = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    ranks = {tensors[name]["shape"][0] for name in tensors if name.endswith("lora_A.weight")}
    assert ranks == {config["r"]}


def test_its_card_tells_how_it_was_made():
    card = (ADAPTER / "README.md").read_text(encoding="utf-8")
    assert "mixup train-sft" in card
    assert "seed" in card


def test_the_demo_distills_with_it():
    assert load_config(RefreshConfig, JOB).distill.model == DISTILLER
