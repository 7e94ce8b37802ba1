"""Conversations → the token ids that a model is trained on, and which of them it learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from mixup.errors import ConfigError, RecordError
from mixup.models.chat import tokenizer_of
from mixup.models.folders import tokenizer_revision
from mixup.records import Turn, content_key
from mixup.text.training_text import (
    Part,
    Template,
    chat_parts,
    control_pattern,
    laid,
    layout_revision,
    plain_parts,
)


@dataclass(frozen=True)
class Encoding:
    """How conversations become tokens.

    Attributes:
        model: The model whose tokenizer and chat template are used, as
            ``models.folders.tokenizer_folder`` takes it.
        template: ``chat`` or ``plain``.
        window: The most tokens of an example; a longer one is left out, never cut.
    """

    model: str
    template: Template
    window: int

    def revision(self) -> str:
        """A key of all that decides an example's tokens besides its text.

        Raises:
            ConfigError: If there is no such model.
        """
        revision = tokenizer_revision(self.model)
        return content_key("encoding", layout_revision(), revision, self.template, self.window)


class Tokenized(NamedTuple):
    """The tokens of an example, or why it has none.

    Attributes:
        input_ids: The ids, or None.
        learned: Start and end, in turn, of each run of learned tokens; or None.
        length: How many ids there are, or were where they are too many.
        reason: One of ``TEXT_REASONS``, or None.
    """

    input_ids: list[int] | None
    learned: list[int] | None
    length: int | None
    reason: str | None


class ExampleTokenizer:
    """Tokenizes conversations.

    Args:
        encoding: The model, the template and the window.

    Raises:
        ConfigError: If the model has no chat template where one is asked for, no token that ends a
            text, or a template whose answers do not end with a control token.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._window, self._template = encoding.window, encoding.template
        self._tokenizer = tokenizer = tokenizer_of(encoding.model)
        added = tokenizer.added_tokens_decoder.values()
        special = [token.content for token in added if token.special]
        self._controls = control_pattern([*tokenizer.all_special_tokens, *special])
        self._opening, self._end = _opening(tokenizer), tokenizer.eos_token or ""
        if encoding.template == "chat" and not tokenizer.chat_template:
            raise ConfigError(
                f"model {encoding.model!r} has no chat template: choose `template: plain`, or an "
                "instruction-tuned model"
            )
        if encoding.template == "plain" and not self._end:
            raise ConfigError(f"model {encoding.model!r} has no end-of-text token to learn")
        try:
            probe = self._parts([Turn("user", "Hello"), Turn("assistant", "Hello")])
        except RecordError as error:
            raise ConfigError(
                f"the chat template of {encoding.model!r} cannot be trained on: {error}; mend it, "
                "or choose `template: plain`"
            ) from error
        self.end_id: int = self._ids([probe[-1].text])[0][-1]
        """The id of the token that ends an answer; generation is to stop there."""

    def encode(self, conversations: Sequence[Sequence[Turn]]) -> list[Tokenized]:
        """The tokens of some conversations, each with an answer at its end."""
        found: list[list[Part] | str] = []
        for turns in conversations:
            try:
                found.append(self._parts(turns))
            except RecordError as error:
                found.append(error.reason)
        texts = [part.text for parts in found if isinstance(parts, list) for part in parts]
        ids = iter(self._ids(texts))
        return [
            Tokenized(None, None, None, parts)
            if isinstance(parts, str)
            else self._tokenized(parts, [next(ids) for _ in parts])
            for parts in found
        ]

    def _parts(self, turns: Sequence[Turn]) -> list[Part]:
        if self._template == "chat":
            return chat_parts(turns, self._render, self._controls)
        return plain_parts(turns, opening=self._opening, end=self._end, controls=self._controls)

    def _tokenized(self, parts: Sequence[Part], ids: Sequence[Sequence[int]]) -> Tokenized:
        input_ids, spans = laid(parts, ids)
        if len(input_ids) > self._window:
            return Tokenized(None, None, len(input_ids), "too_long")
        return Tokenized(input_ids, spans, len(input_ids), None)

    def _render(self, messages: list[dict[str, str]], opened: bool) -> str:
        from jinja2 import TemplateError

        try:
            return self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=opened, tokenize=False
            )
        except TemplateError as error:
            raise RecordError("template_refuses", str(error)[:200]) from error

    def _ids(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        # As apply_chat_template does it: the template writes the special tokens itself.
        return self._tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]


@lru_cache(maxsize=4)
def example_tokenizer(encoding: Encoding) -> ExampleTokenizer:
    """The tokenizer of an encoding, which is kept."""
    return ExampleTokenizer(encoding)


def _opening(tokenizer: Any) -> str:
    """The token that the tokenizer puts before every text, or ""."""
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token if ids and ids[0] == tokenizer.bos_token_id else ""
