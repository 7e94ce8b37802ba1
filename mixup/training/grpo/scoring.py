"""The rewards of answers as the trainer asks for them: from the same actors as in distillation.

A reward that could not be computed is missing: no number stands in for it, and its answer is left
out of the loss. An empty answer is another matter: what it is worth is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mixup.actors.requests import Score, ScoreRequest, request_of
from mixup.actors.rewards import RewardPools, Span
from mixup.errors import RecordError
from mixup.records import Turn, content_key
from mixup.rewards.rubric import COMPONENTS, Rubric, combine
from mixup.text.parse import parse_distilled
from mixup.training.grpo.prompts import PromptRow
from mixup.training.grpo.rollouts import RewardPart

_NOTHING = "empty_answer"


@dataclass(frozen=True)
class Scored:
    """What an answer is worth.

    Attributes:
        parts: Each component's outcome, in the order of ``COMPONENTS``.
        value: Their weighted mean; None where a component with weight is missing.
    """

    parts: tuple[RewardPart, ...]
    value: float | None


class AnswerRewards:
    """Scores answers by the reward actors.

    Attributes:
        last: The outcomes of the last call of ``combined``.
        spans: Who worked when in the last call.
    """

    def __init__(self, pools: RewardPools, rubric: Rubric, timeout_s: float) -> None:
        self._pools, self._rubric, self._timeout_s = pools, rubric, timeout_s
        self._tokenizer: Any = None
        self.last: list[Scored] = []
        self.spans: list[Span] = []

    def bind(self, tokenizer: Any) -> None:
        """Take the tokenizer that reads answers."""
        self._tokenizer = tokenizer

    def texts(self, answers: Sequence[Sequence[int]]) -> list[str]:
        """Answers as texts, without the tokens that end a turn."""
        return self._tokenizer.batch_decode(list(answers), skip_special_tokens=True)

    def combined(
        self, *, completion_ids: Sequence[list[int]], row: Sequence[PromptRow], **unused: Any
    ) -> list[float | None]:
        """The reward of each answer, as TRL asks for it: None where it is missing.

        Args:
            completion_ids: The answers' tokens.
            row: The prompt of each.
            unused: What else TRL hands to a reward function.
        """
        self.last = self.score(row, self.texts(completion_ids))
        return [scored.value for scored in self.last]

    def score(self, prompts: Sequence[PromptRow], texts: Sequence[str]) -> list[Scored]:
        """The rewards of some answers, in their order.

        They are divided among the actors, which all work at the same time.

        Raises:
            StalledError: If actors are stuck, naming them.
        """
        requests = [_request(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
        size = max(1, -(-len(requests) // self._pools.width))
        batches = [requests[start : start + size] for start in range(0, len(requests), size)]
        with ThreadPoolExecutor(max(1, len(batches)), thread_name_prefix="rewards") as threads:
            found = list(threads.map(self._batch, range(len(batches)), batches))
        self.spans = [span for _, spans in found for span in spans]
        outcomes = {
            name: [one for scores, _ in found for one in scores[name]] for name in COMPONENTS
        }
        return [
            self._scored(prompt.task, {name: outcomes[name][place] for name in COMPONENTS})
            for place, prompt in enumerate(prompts)
        ]

    def _batch(
        self, turn: int, requests: list[ScoreRequest]
    ) -> tuple[dict[str, list[Score]], list[Span]]:
        return self._pools.score(requests, turn=turn, timeout_s=self._timeout_s)

    def _scored(self, task: str, outcomes: dict[str, Score]) -> Scored:
        parts = tuple(_part(name, score) for name, score in outcomes.items())
        values = {part.component: part.value for part in parts}
        return Scored(parts, combine(values, self._rubric.for_task(task)).value)


def _part(component: str, score: Score) -> RewardPart:
    if score.value is None and score.reason == _NOTHING:
        return RewardPart(component, 0.0, _NOTHING)
    return RewardPart(component, score.value, score.reason)


def _request(prompt: PromptRow, text: str) -> ScoreRequest:
    key = content_key("rollout", prompt.pair, text)
    turns = _pair(text, prompt.task)
    return request_of(key, prompt.task, text, turns, targets=[prompt.target], inputs=prompt.items)


def _pair(text: str, task: str) -> tuple[Turn, ...] | None:
    try:
        return parse_distilled(text, task).turns
    except RecordError:
        return None
