"""Text generation: prompts to completions, by a vLLM engine in this process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mixup.config import EngineConfig
from mixup.errors import ModelError
from mixup.models.folders import model_folder

if TYPE_CHECKING:
    from vllm import CompletionOutput, SamplingParams


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
    """A vLLM engine; on a GPU in the model's own precision, on a CPU in float32.

    Source of the CPU settings: float32 is several times faster than bfloat16 on CPUs without
    bfloat16 instructions; a chunked prefill kills seeded requests there, so prompts are never
    chunked; compilation takes minutes, so it is off.
    """

    def __init__(self, model: str, settings: EngineConfig, *, threads: int | None = None) -> None:
        on_gpu = settings.engine_gpus > 0
        if not on_gpu:
            _set_cpu_environment(settings)
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        if threads:
            os.environ["OMP_NUM_THREADS"] = str(threads)
        from vllm import LLM

        options = _gpu_options(settings) if on_gpu else _cpu_options(settings)
        self._settings = settings
        self._llm = LLM(
            model=str(model_folder(model)),
            max_model_len=settings.context_tokens,
            distributed_executor_backend="uni",
            trust_remote_code=False,
            load_format="safetensors",
            disable_log_stats=True,
            **options,
        )

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Complete all requests in one continuous batch.

        Raises:
            ModelError: If the engine gives back another number of completions.
        """
        outputs = self._llm.generate(
            [{"prompt_token_ids": request.prompt_ids} for request in requests],
            [self._sampling(request) for request in requests],
            use_tqdm=False,
        )
        if len(outputs) != len(requests):
            raise ModelError(f"{len(requests)} requests gave {len(outputs)} completions")
        return [_generation(output.outputs[0]) for output in outputs]

    def _sampling(self, request: GenerationRequest) -> SamplingParams:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        structured = StructuredOutputsParams(regex=request.pattern) if request.pattern else None
        return SamplingParams(
            temperature=self._settings.temperature,
            top_p=self._settings.top_p,
            max_tokens=self._settings.max_tokens,
            seed=request.seed,
            logprobs=0,
            structured_outputs=structured,
        )


def _generation(output: CompletionOutput) -> Generation:
    tokens = len(output.token_ids)
    total = output.cumulative_logprob
    logprob = total / tokens if tokens and total is not None else None
    return Generation(output.text, tokens, logprob, str(output.finish_reason))


def _cpu_options(settings: EngineConfig) -> dict[str, Any]:
    import psutil

    total_gb = psutil.virtual_memory().total / 1e9
    return {
        "dtype": "float32",
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(settings.context_tokens, 4096),
        "max_num_seqs": 64,
        # On a CPU this is a share of the machine's memory, checked when the engine starts.
        "gpu_memory_utilization": min(0.9, max(0.05, (settings.engine_memory_gb + 1.0) / total_gb)),
    }


def _gpu_options(settings: EngineConfig) -> dict[str, Any]:
    return {"dtype": "auto", "gpu_memory_utilization": settings.gpu_memory_share}


def _set_cpu_environment(settings: EngineConfig) -> None:
    space = max(1, round(settings.engine_memory_gb / 2))
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(space))
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
