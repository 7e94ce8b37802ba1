"""The bundled distiller: the bundled model with the adapter that the package may hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mixup.errors import ConfigError
from mixup.models import bundled, folders
from mixup.models.folders import (
    model_folder,
    model_revision,
    tokenizer_folder,
    tokenizer_revision,
)


@pytest.fixture
def adapter(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An adapter in the place of the package's, of a tiny base in the place of the bundled one."""
    monkeypatch.setenv("MIXUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bundled, "smollm2_folder", lambda: tiny_model)
    monkeypatch.setitem(folders._BUNDLED, bundled.SMOLLM2, lambda: tiny_model)
    monkeypatch.setattr(bundled, "ADAPTER", tmp_path / "distiller")
    write_adapter(tiny_model, tmp_path / "distiller", seed=1)
    return tmp_path / "distiller"


def write_adapter(base: Path, folder: Path, *, seed: int) -> None:
    """An adapter that changes what the base says: PEFT's own begin as zeros."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    adapted: Any = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "up_proj"]))
    for name, values in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(values)
    adapted.save_pretrained(folder)


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(torch.tensor([[5, 6, 7, 8, 9]])).logits


def test_the_adapter_is_merged_into_the_base_once(adapter: Path, tiny_model: Path):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = model_folder("bundled:distiller")
    base: Any = AutoModelForCausalLM.from_pretrained(tiny_model)
    before = logits(base)
    found = logits(AutoModelForCausalLM.from_pretrained(folder))
    torch.testing.assert_close(found, logits(PeftModel.from_pretrained(base, str(adapter))))
    assert (found - before).abs().max() > 0.01
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(tiny_model).chat_template
    made = (folder / "model.safetensors").stat().st_mtime_ns
    assert model_folder("bundled:distiller") == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == made


def test_another_adapter_is_another_model_with_the_same_tokenizer(adapter: Path, tiny_model: Path):
    revision, folder = model_revision("bundled:distiller"), model_folder("bundled:distiller")
    write_adapter(tiny_model, adapter, seed=2)
    assert model_revision("bundled:distiller") != revision
    assert model_folder("bundled:distiller") != folder
    assert tokenizer_revision("bundled:distiller") == tokenizer_revision("bundled:smollm2")
    assert tokenizer_folder("bundled:distiller") == tiny_model


def test_a_package_without_the_adapter_says_so(adapter: Path):
    (adapter / "adapter_model.safetensors").unlink()
    for ask in (model_folder, model_revision):
        with pytest.raises(ConfigError, match=r"bundled:distiller: .* without its adapter"):
            ask("bundled:distiller")
