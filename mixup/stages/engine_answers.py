"""Asking a pool of engines: questions → batches of prompts, and answers → rows of outcomes.

What judging and teaching by engines have in common. A question travels through the actors as a row:
its key, how often it was asked before, the prompt, and whatever is needed to read the answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mixup.actors.deaths import CRASHED, Guard
from mixup.mixture_config import EngineTeacher
from mixup.models.chat import PROMPT_TOO_LONG, render_chat
from mixup.models.generator import CALLS, GenerationRequest, VllmGenerator
from mixup.rater_config import EngineJudge
from mixup.stages.cover import ActorPool

BatchedEngine = EngineJudge | EngineTeacher

_KEY = [("key", pa.string()), ("attempts", pa.int32())]
_PROMPT = [("prompt_ids", pa.list_(pa.int32()))]
_ANSWER = [
    ("text", pa.string()),
    ("input_tokens", pa.int32()),
    ("output_tokens", pa.int32()),
    ("crashed", pa.bool_()),
]


@dataclass(frozen=True)
class Question:
    """What an engine is asked.

    Attributes:
        key: The key of the outcome, in hexadecimal digits.
        attempts: How often it was asked before.
        prompt: The question.
        about: What comes back beside the answer, by column.
    """

    key: str
    attempts: int
    prompt: str
    about: Mapping[str, Any]


def batches(
    questions: Iterable[Question], config: BatchedEngine, about: pa.Schema
) -> Iterator[pa.Table]:
    """Questions with their prompts' token ids, in blocks; runs in a worker.

    A prompt that leaves no room for an answer has no ids, and is not asked.

    Args:
        questions: The questions.
        config: The engines.
        about: The columns of what comes back beside the answers.
    """
    schema = pa.schema([*_KEY, *about, *_PROMPT])
    room = config.context_tokens - config.max_tokens
    rows: list[dict[str, Any]] = []
    for asked in questions:
        prompt_ids = render_chat(config.model, [{"role": "user", "content": asked.prompt}])
        known = {"key": asked.key, "attempts": asked.attempts, **asked.about}
        rows.append({**known, "prompt_ids": prompt_ids if len(prompt_ids) <= room else []})
        if len(rows) == config.batch_rows:
            yield pa.Table.from_pylist(rows, schema=schema)
            rows = []
    yield pa.Table.from_pylist(rows, schema=schema)


def engine_pool(actor: type[AnsweringEngine], config: BatchedEngine) -> ActorPool:
    """The actors that answer."""
    return ActorPool(
        actor=actor,
        arguments=(config,),
        size=config.engines,
        batch_rows=config.batch_rows,
        cpus=config.engine_cpus,
        gpus=config.engine_gpus,
        calls=CALLS,
    )


class AnsweringEngine(ABC):
    """An actor with an engine: maps a batch of questions to their answers.

    Attributes:
        what: Its name, for messages.
        about: The columns of what comes back beside the answers.
    """

    what: str
    about: pa.Schema

    def __init__(self, config: BatchedEngine) -> None:
        self._guard = Guard.of_actor(self.what)
        self._is_constrained = config.structured == "regex"
        self._generator = VllmGenerator(config.model, config)

    @abstractmethod
    def pattern(self, row: Mapping[str, Any]) -> str:
        """The regular expression of the answer to a question, for constrained output."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Answer a batch."""
        schema = pa.schema([*_KEY, *self.about, *_ANSWER])
        rows = batch.to_pylist()
        if not rows:
            return schema.empty_table()
        asked = [row for row in rows if row["prompt_ids"]]
        generated = self._guard.run(
            [row["key"] for row in asked],
            lambda places: self._generator.generate([self._request(asked[at]) for at in places]),
        )
        answers = {
            row["key"]: {"crashed": True}
            if found is None
            else {
                "text": found.text,
                "input_tokens": len(row["prompt_ids"]),
                "output_tokens": found.tokens,
            }
            for row, found in zip(asked, generated, strict=True)
        }
        return pa.Table.from_pylist(
            [{**row, **answers.get(row["key"], {})} for row in rows], schema=schema
        )

    def _request(self, row: Mapping[str, Any]) -> GenerationRequest:
        # The attempt is part of the seed, so that trying again is not the same once more.
        seed = int(row["key"][:8], 16) + row["attempts"]
        pattern = self.pattern(row) if self._is_constrained else None
        return GenerationRequest(row["prompt_ids"], seed, pattern)


def silence(row: Mapping[str, Any]) -> str | None:
    """Why a row has no text; None where it has one."""
    if row["text"] is not None:
        return None
    return CRASHED if row["crashed"] else PROMPT_TOO_LONG


def tokens_used(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The tokens of all prompts and answers."""
    return {name: sum(row[name] or 0 for row in rows) for name in ("input_tokens", "output_tokens")}
