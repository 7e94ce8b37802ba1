"""The model that is trained: what a base must have, how it is loaded, and its adapters.

What can be wrong with a base model is found from its config and its tokenizer alone, before any
worker starts; the weights are loaded in the workers only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mixup.errors import ConfigError
from mixup.models.folders import model_folder, model_revision
from mixup.training_config import LoraConfig

if TYPE_CHECKING:
    import peft
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Template = Literal["chat", "plain"]


@dataclass(frozen=True)
class Base:
    """A base model, as a job names it.

    Attributes:
        name: A folder, a hub id, or ``bundled:smollm2``.
        revision: The hash of its weights, tokenizer and template.
    """

    name: str
    revision: str

    @property
    def folder(self) -> Path:
        """Its folder on the machine that asks; a hub id is downloaded once."""
        return model_folder(self.name)


def find_base(name: str) -> Base:
    """Find a base model.

    Raises:
        ConfigError: If there is none of the name, or it has no safetensors weights.
    """
    return Base(name, model_revision(name))


def check_base(
    base: Base, *, template: Template, window: int, key: str = "examples.window"
) -> None:
    """Check that a base model can be trained as a job asks; reads no weights.

    Args:
        base: The model.
        template: How text is rendered.
        window: The longest sequence, in tokens.
        key: The config's key that says so, for the message.

    Raises:
        ConfigError: If it is no language model with a tokenizer of its own vocabulary, lacks the
            chat template or every token that could end or pad a text, or has a shorter context.
    """
    from transformers import AutoConfig

    try:
        config: Any = AutoConfig.from_pretrained(base.folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"model {base.name!r} has no config that can be read: {error}") from error
    text = config.get_text_config()
    tokenizer = load_tokenizer(base, template=template)
    if len(tokenizer) > text.vocab_size:
        raise ConfigError(
            f"model {base.name!r}: its tokenizer has {len(tokenizer)} tokens, its weights embed "
            f"{text.vocab_size}; put the tokenizer that belongs to the weights into its folder"
        )
    context = getattr(text, "max_position_embeddings", None)
    if context is not None and window > context:
        raise ConfigError(
            f"{key} {window} is longer than the context of {base.name!r}, {context} "
            "tokens; lower it"
        )


def load_tokenizer(base: Base, *, template: Template) -> PreTrainedTokenizerBase:
    """The tokenizer of a base model, with a padding token.

    Where it has none the end of text pads. That teaches the model nothing about the end: what is
    learned is said by the labels, and padding is outside of them.

    Raises:
        ConfigError: If it cannot be loaded, or lacks the chat template or an end of text.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(base.folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"model {base.name!r} has no tokenizer that can be read: {error}"
        ) from error
    if template == "chat" and not tokenizer.chat_template:
        raise ConfigError(
            f"model {base.name!r} has no chat template, which examples.template=chat asks for; "
            "take an instruction-tuned model, or examples.template=plain"
        )
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"model {base.name!r}: its tokenizer names no end of text (eos_token), so the model "
            "could not learn to stop; name one in its tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(base: Base, *, bf16: bool, attention: str = "sdpa") -> PreTrainedModel:
    """The weights of a base model, in bfloat16 or float32.

    Under ZeRO-3 each worker keeps its part only, provided that the trainer's config, which holds
    DeepSpeed's, was made before.
    """
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        base.folder,
        dtype=torch.bfloat16 if bf16 else torch.float32,
        attn_implementation=attention,
        trust_remote_code=False,
        use_safetensors=True,
    )


def lora_config(lora: LoraConfig) -> peft.LoraConfig:
    """PEFT's config of adapters; their first values are drawn by the trainer's seed."""
    import peft

    return peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[reportArgumentType]  PEFT's hint is narrower than its use
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        bias="none",
        task_type="CAUSAL_LM",
    )
