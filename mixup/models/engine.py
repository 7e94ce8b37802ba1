"""A vLLM engine in one thread of this process: calls of many threads share one continuous batch."""

from __future__ import annotations

import math
import os
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mixup.errors import EngineDied
from mixup.models.cpu_sampling import sample_by_inversion
from mixup.models.folders import model_folder
from mixup.models.memory import keep_freed_memory
from mixup.rater_config import EngineConfig

if TYPE_CHECKING:
    from vllm import LLM, LLMEngine, RequestOutput, SamplingParams
    from vllm.inputs import TokensPrompt

_Result = TypeVar("_Result")


@dataclass
class _Call:
    """One call of ``complete``: its requests, and their outputs by place as they finish."""

    prompts: Sequence[list[int]]
    sampling: Sequence[SamplingParams]
    admit: Callable[[], None] | None
    done: Future[list[RequestOutput]] = field(default_factory=Future)
    outputs: dict[int, RequestOutput] = field(default_factory=dict)


@dataclass
class _Pause:
    """Work that wants the engine for itself."""

    work: Callable[[LLM], Any]
    done: Future[Any] = field(default_factory=Future)


class VllmEngine:
    """A vLLM engine; on a GPU in the model's own precision, on a CPU in float32.

    Several threads may call ``complete`` at the same time. Their requests share one continuous
    batch, so that the last few of one call do not leave the engine half empty. ``pause`` waits
    until no request is in the engine; calls that come after it wait for its end.

    Source of the CPU settings: float32 is several times faster than bfloat16 on CPUs without
    bfloat16 instructions; a chunked prefill kills seeded requests there, so prompts are never
    chunked; compilation takes minutes, so it is off.
    """

    def __init__(self, model: str, settings: EngineConfig, **options: Any) -> None:
        """Load the model.

        Args:
            model: As ``models.folders.model_folder`` takes it.
            settings: The engine's size and context.
            options: Further options of ``vllm.LLM``, which take precedence.
        """
        on_gpu = settings.engine_gpus > 0
        if not on_gpu:
            keep_freed_memory()
            _set_cpu_environment(settings)
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        self._settings = settings
        self._calls: queue.SimpleQueue[_Call | _Pause] = queue.SimpleQueue()
        self._pause: _Pause | None = None
        self._working: dict[str, tuple[_Call, int]] = {}
        self._count = 0
        self._failure: BaseException | None = None
        self._failing = threading.Lock()
        started: Future[None] = Future()
        # One thread loads the engine and uses it: OpenMP's number of threads is a thread's own.
        threading.Thread(
            target=self._serve,
            args=(model, options, started),
            name="engine",
            daemon=True,
        ).start()
        started.result()

    def complete(
        self,
        prompts: Sequence[list[int]],
        sampling: Sequence[SamplingParams],
        admit: Callable[[], None] | None = None,
    ) -> list[RequestOutput]:
        """Complete all prompts, in the continuous batch of all calls; outputs in their order.

        Args:
            prompts: Token ids.
            sampling: The settings of each, for final outputs only.
            admit: Called in the engine's thread as the call is taken in, after all pauses that
                were asked for before it; what it raises is raised here.

        Raises:
            EngineDied: If the engine failed, for this call or an earlier one.
        """
        if not prompts:
            return []
        return self._ask(_Call(prompts, sampling, admit))

    def pause(self, work: Callable[[LLM], _Result]) -> _Result:
        """The result of ``work``, done in the engine's thread while no request is in the engine.

        Raises:
            EngineDied: If the engine failed earlier. What ``work`` raises is raised here, and the
                engine goes on.
        """
        return self._ask(_Pause(work))

    def _ask(self, call: _Call | _Pause) -> Any:
        self._calls.put(call)
        if self._failure is not None:
            self._fail(self._failure)
        return call.done.result()

    def _load(self, model: str, options: dict[str, Any]) -> LLM:
        from vllm import LLM

        settings = self._settings
        if settings.engine_gpus > 0:
            own = _gpu_options(settings)
        else:
            own = _cpu_options(settings)
            sample_by_inversion()
        all_options: dict[str, Any] = {
            "max_model_len": settings.context_tokens,
            "distributed_executor_backend": "uni",
            "trust_remote_code": False,
            "load_format": "safetensors",
            "disable_log_stats": True,
            **own,
            **options,
        }
        return LLM(model=str(model_folder(model)), **all_options)

    def _serve(self, model: str, options: dict[str, Any], started: Future[None]) -> None:
        """Load the engine; then take in calls between its steps, for ever."""
        try:
            llm = self._load(model, options)
        except BaseException as error:  # noqa: BLE001  raised by the constructor
            started.set_exception(error)
            return
        started.set_result(None)
        while True:
            try:
                self._take_in(llm)
                for output in llm.llm_engine.step():
                    self._finish(cast("RequestOutput", output))
            except Exception as error:  # noqa: BLE001  raised by every call; nothing goes on
                self._fail(error)
                return

    def _take_in(self, llm: LLM) -> None:
        """Give the engine the calls that wait; with nothing to do, wait for one."""
        while True:
            if self._pause is not None:
                if self._working:
                    return  # its turn comes when the engine is empty
                self._run_alone(llm)
            if self._working and self._calls.empty():
                return
            call = self._calls.get()
            if isinstance(call, _Pause):
                self._pause = call
            else:
                self._admit(llm.llm_engine, call)

    def _run_alone(self, llm: LLM) -> None:
        pause, self._pause = self._pause, None
        if pause is not None:
            _settle(pause.done, lambda: pause.work(llm))

    def _admit(self, engine: LLMEngine, call: _Call) -> None:
        if call.admit is not None:
            try:
                call.admit()
            except Exception as error:  # noqa: BLE001  raised by the call that is refused
                call.done.set_exception(error)
                return
        for place, (prompt_ids, sampling) in enumerate(
            zip(call.prompts, call.sampling, strict=True)
        ):
            self._count += 1
            name = str(self._count)
            self._working[name] = call, place
            prompt: TokensPrompt = {"prompt_token_ids": prompt_ids}
            engine.add_request(name, prompt, sampling)

    def _finish(self, output: RequestOutput) -> None:
        if not output.finished:
            return
        call, place = self._working.pop(output.request_id)
        call.outputs[place] = output
        if len(call.outputs) == len(call.prompts):
            call.done.set_result([call.outputs[at] for at in range(len(call.prompts))])

    def _fail(self, error: BaseException) -> None:
        """Have all calls that wait raise; also one that came too late to be served."""
        with self._failing:
            self._failure = error
            waiting: dict[int, _Call | _Pause] = {
                id(call): call for call, _ in self._working.values()
            }
            self._working.clear()
            if self._pause is not None:
                waiting[id(self._pause)], self._pause = self._pause, None
            while not self._calls.empty():
                call = self._calls.get()
                waiting[id(call)] = call
            for call in waiting.values():
                found = EngineDied(f"the engine failed: {type(error).__name__}: {error}")
                found.__cause__ = error
                call.done.set_exception(found)


def _settle(done: Future[Any], work: Callable[[], Any]) -> None:
    try:
        result = work()
    except Exception as error:  # noqa: BLE001  raised where the work was asked for
        done.set_exception(error)
    else:
        done.set_result(result)


def _cpu_options(settings: EngineConfig) -> dict[str, Any]:
    import psutil

    total_gb = psutil.virtual_memory().total / 1e9
    return {
        "dtype": "float32",
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        # Measured on two cores: passes of 4,096 take a twentieth longer.
        "max_num_batched_tokens": max(settings.context_tokens, 2048),
        "max_num_seqs": 64,
        # Prompts of a task begin with the same 112 to 142 tokens. What is shared is read once, in
        # whole blocks, and a block on a CPU is 128 tokens by default: most tasks share none.
        "block_size": 32,
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
