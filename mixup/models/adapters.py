"""LoRA adapters: a base model with one merged into its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load_merged(base: Path, adapter: Path) -> Any:
    """The model of a folder with an adapter merged, in float32.

    In bfloat16 a small update would be rounded away.
    """
    from peft import PeftModel

    return PeftModel.from_pretrained(load_float32(base), str(adapter)).merge_and_unload()


def load_float32(folder: Path) -> Any:
    """The language model of a folder, in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
    )
