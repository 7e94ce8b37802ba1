"""Text generation: prompts to completions, by a vLLM engine in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mixup.models.engine import VllmEngine
from mixup.rater_config import EngineConfig

if TYPE_CHECKING:
    from vllm import CompletionOutput, SamplingParams


CALLS = 3
"""Batches in an engine at the same time: while the tail of one ends, others fill the engine."""


@dataclass(frozen=True)
class GenerationRequest:
    """One completion that is wanted.

    Attributes:
        prompt_ids: The rendered prompt's token ids.
        seed: Of this request alone; equal seeds give equal completions of equal prompts.
        pattern: A regular expression that the output must match, or None.
    """

    prompt_ids: list[int]
    seed: int
    pattern: str | None = None


@dataclass(frozen=True)
class Generation:
    """A completion.

    Attributes:
        text: Without the end-of-turn token.
        tokens: How many were generated.
        logprob: Mean log-probability of the tokens; None for an empty output.
        finish: ``stop``, or ``length`` when it was cut off.
    """

    text: str
    tokens: int
    logprob: float | None
    finish: str


class Generator(Protocol):
    """Anything that completes prompts; the results are in the order of the requests."""

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Complete all requests."""
        ...


class VllmGenerator:
    """Completes prompts by a vLLM engine in this process.

    Several threads may ask it to generate at the same time: their requests share one batch.
    """

    def __init__(self, model: str, settings: EngineConfig) -> None:
        self._settings = settings
        self._engine = VllmEngine(model, settings)

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Complete all requests, in the continuous batch of all calls.

        Raises:
            EngineDied: If the engine failed, for this call or an earlier one.
        """
        outputs = self._engine.complete(
            [request.prompt_ids for request in requests],
            [self._sampling(request) for request in requests],
        )
        return [_generation(output.outputs[0]) for output in outputs]

    def _sampling(self, request: GenerationRequest) -> SamplingParams:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        structured = StructuredOutputsParams(regex=request.pattern) if request.pattern else None
        return SamplingParams(
            temperature=self._settings.temperature,
            top_p=self._settings.top_p,
            max_tokens=self._settings.max_tokens,
            seed=request.seed,
            logprobs=0,
            structured_outputs=structured,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )


def _generation(output: CompletionOutput) -> Generation:
    tokens = len(output.token_ids)
    total = output.cumulative_logprob
    logprob = total / tokens if tokens and total is not None else None
    return Generation(output.text, tokens, logprob, str(output.finish_reason))
