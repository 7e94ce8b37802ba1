"""Text generation: prompts to completions, by a vLLM engine in this process."""

from __future__ import annotations

import math
import os
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

from mixup.errors import EngineDied
from mixup.models.folders import model_folder
from mixup.models.memory import keep_freed_memory
from mixup.rater_config import EngineConfig

if TYPE_CHECKING:
    from vllm import LLM, CompletionOutput, LLMEngine, RequestOutput, SamplingParams
    from vllm.inputs import TokensPrompt


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


@dataclass
class _Call:
    """One call of ``generate``: its requests, and their outputs by place as they finish."""

    requests: Sequence[GenerationRequest]
    done: Future[list[Generation]] = field(default_factory=Future)
    outputs: dict[int, Generation] = field(default_factory=dict)


class VllmGenerator:
    """A vLLM engine; on a GPU in the model's own precision, on a CPU in float32.

    Several threads may ask it to generate at the same time. Their requests share one continuous
    batch, so that the last few of one call do not leave the engine half empty.

    Source of the CPU settings: float32 is several times faster than bfloat16 on CPUs without
    bfloat16 instructions; a chunked prefill kills seeded requests there, so prompts are never
    chunked; compilation takes minutes, so it is off.
    """

    def __init__(self, model: str, settings: EngineConfig) -> None:
        on_gpu = settings.engine_gpus > 0
        if not on_gpu:
            keep_freed_memory()
            _set_cpu_environment(settings)
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        self._settings = settings
        self._calls: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self._working: dict[str, tuple[_Call, int]] = {}
        self._count = 0
        self._failure: BaseException | None = None
        self._failing = threading.Lock()
        started: Future[None] = Future()
        # One thread loads the engine and uses it: OpenMP's number of threads is a thread's own.
        threading.Thread(
            target=self._serve, args=(model, on_gpu, started), name="engine", daemon=True
        ).start()
        started.result()

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Complete all requests, in the continuous batch of all calls.

        Raises:
            EngineDied: If the engine failed, for this call or an earlier one.
        """
        if not requests:
            return []
        call = _Call(requests)
        self._calls.put(call)
        if self._failure is not None:
            self._fail(self._failure)
        return call.done.result()

    def _load(self, model: str, *, on_gpu: bool) -> LLM:
        from vllm import LLM

        options = _gpu_options(self._settings) if on_gpu else _cpu_options(self._settings)
        return LLM(
            model=str(model_folder(model)),
            max_model_len=self._settings.context_tokens,
            distributed_executor_backend="uni",
            trust_remote_code=False,
            load_format="safetensors",
            disable_log_stats=True,
            **options,
        )

    def _serve(self, model: str, on_gpu: bool, started: Future[None]) -> None:
        """Load the engine; then take in calls between its steps, for ever."""
        try:
            engine = self._load(model, on_gpu=on_gpu).llm_engine
        except BaseException as error:  # noqa: BLE001  raised by the constructor
            started.set_exception(error)
            return
        started.set_result(None)
        while True:
            try:
                self._take_in(engine)
                for output in engine.step():
                    self._finish(cast("RequestOutput", output))
            except Exception as error:  # noqa: BLE001  raised by every call; nothing goes on
                self._fail(error)
                return

    def _take_in(self, engine: LLMEngine) -> None:
        """Give the engine the calls that wait; with nothing to do, wait for one."""
        while not self._working or not self._calls.empty():
            call = self._calls.get()
            for place, request in enumerate(call.requests):
                self._count += 1
                name = str(self._count)
                self._working[name] = call, place
                prompt: TokensPrompt = {"prompt_token_ids": request.prompt_ids}
                engine.add_request(name, prompt, self._sampling(request))

    def _finish(self, output: RequestOutput) -> None:
        if not output.finished:
            return
        call, place = self._working.pop(output.request_id)
        call.outputs[place] = _generation(output.outputs[0])
        if len(call.outputs) == len(call.requests):
            call.done.set_result([call.outputs[at] for at in range(len(call.requests))])

    def _fail(self, error: BaseException) -> None:
        """Have all calls that wait raise; also one that came too late to be served."""
        with self._failing:
            self._failure = error
            waiting = {id(call): call for call, _ in self._working.values()}
            self._working.clear()
            while not self._calls.empty():
                call = self._calls.get()
                waiting[id(call)] = call
            for call in waiting.values():
                found = EngineDied(f"the engine failed: {type(error).__name__}: {error}")
                found.__cause__ = error
                call.done.set_exception(found)

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
    # Ray sets the threads to the whole CPUs booked; a started one counts as one more thread.
    os.environ["OMP_NUM_THREADS"] = str(max(1, math.ceil(settings.engine_cpus)))
