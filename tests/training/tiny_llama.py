"""A tiny random Llama with a tokenizer, as a folder: what tests of training and engines run on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

VOCABULARY = 300
"""No multiple of 64, so that an engine has to pad its vocabulary layers."""


def save_tiny_llama(folder: Path, *, tied: bool, dtype: str = "float32") -> Path:
    """Save one; its weights are large enough that a wrong tensor shows in what it says."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        initializer_range=0.1,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        dtype=dtype,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(folder)
    names = ["<pad>", "<bos>", "<eos>", *(f"w{number}" for number in range(3, VOCABULARY))]
    words = Tokenizer(models.WordLevel({name: at for at, name in enumerate(names)}, "<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
    ).save_pretrained(folder)
    return folder


def load_tiny_llama(folder: Path) -> Any:
    """The model of the folder, as a trainer has it."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32")


def with_lora(model: Any, *, seed: int = 1) -> Any:
    """The model with LoRA on all projections, as if it had been trained: B is not zero."""
    from peft import LoraConfig, get_peft_model

    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=names))
    torch.manual_seed(seed)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return adapted


def train_a_little(model: Any, *, seed: int) -> None:
    """Change every tensor that is trained, as an optimizer step does."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.01)
