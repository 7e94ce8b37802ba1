"""MIXTURE records in the paper's two schemas and as chat messages, written and read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mixup.mixture.pairs import Pair

RECORD_REASONS = (
    "not_an_object",  # the row is no object
    "unknown_schema",  # neither schema has the row's fields
    "wrong_type",  # a field of the schema is not text
    "unknown_task",  # the task cannot be told from the row, its file's name or its labels
    "empty_input",  # there is nothing to distill
    "empty_output",  # there is no target
    "invalid_unicode",  # lone surrogates
    "nul_byte",  # a NUL character
)


@dataclass(frozen=True, slots=True)
class MixtureRecord:
    """A training record, whichever schema it was read from.

    Attributes:
        id: The record's id as text, or a content key of the record where it has none.
        task: One of ``TASKS``.
        instruction: The task's instruction; "" where the row has none.
        input: The linearized cluster.
        output: The target's answer text.
        cot: The chain of thought, or "".
    """

    id: str
    task: str
    instruction: str
    input: str
    output: str
    cot: str


def record_of(pair: Pair) -> MixtureRecord:
    """A pair as a record: the task's instruction, the variants' texts, the target's answer."""
    raise NotImplementedError


def sft_row(record: MixtureRecord) -> dict[str, Any]:
    """The SFT schema: id, instruction, input, output, cot, source. Source: spec 2.3."""
    raise NotImplementedError


def rl_row(record: MixtureRecord) -> dict[str, Any]:
    """The RL schema: input (instruction, blank line, input), output, task_type, id."""
    raise NotImplementedError


def messages_of(record: MixtureRecord) -> list[dict[str, str]]:
    """System, user and assistant message: what the one prompt builder and its parser agree on."""
    raise NotImplementedError


def read_record(row: object, *, task: str | None = None) -> MixtureRecord:
    """A row of either schema.

    Args:
        row: The row, whatever it is.
        task: The task that the file's name says, where the row says none.

    Raises:
        RecordError: With one of ``RECORD_REASONS``.
    """
    raise NotImplementedError


def provenance_of(pair: Pair) -> dict[str, Any]:
    """The columns beside a record: where the target and each variant come from."""
    raise NotImplementedError
