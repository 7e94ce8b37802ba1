"""Messages rendered to the token ids of a model's chat template."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from mixup.models.folders import tokenizer_folder

PROMPT_TOO_LONG = "prompt_too_long"
"""The reason of a prompt that leaves no room for an answer in the model's context."""


def render_chat(model: str, messages: Sequence[dict[str, str]]) -> list[int]:
    """The token ids of messages and of the opening of the answer that is wanted.

    Args:
        model: As ``models.folders.model_folder`` takes it; its tokenizer is kept.
        messages: Objects of ``role`` and ``content``.
    """
    return tokenizer_of(model).apply_chat_template(
        list(messages), add_generation_prompt=True, tokenize=True, return_dict=False
    )


@lru_cache(maxsize=2)
def tokenizer_of(model: str) -> Any:
    """A model's tokenizer, which is kept.

    Args:
        model: As ``models.folders.tokenizer_folder`` takes it.
    """
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tokenizer_folder(model), trust_remote_code=False)
