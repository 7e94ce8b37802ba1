"""An engine of rollouts: vLLM holding one version of the trainer's weights at a time."""

from __future__ import annotations

import math
import os
import threading
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mixup.errors import EngineDied, ModelError, WrongWeights
from mixup.models.engine import VllmEngine
from mixup.rater_config import EngineConfig
from mixup.training.grpo.fingerprints import check_fingerprints, engine_fingerprints

if TYPE_CHECKING:
    from vllm import LLM, RequestOutput, SamplingParams

_EXIT = 70


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        temperature: 1 draws from the model's own distribution.
        top_p: Nucleus sampling.
        max_tokens: Longest completion.
    """

    temperature: float
    top_p: float
    max_tokens: int


@dataclass(frozen=True)
class RolloutRequest:
    """One completion that is wanted.

    Attributes:
        prompt_ids: The rendered prompt's token ids.
        seed: Of this request alone; equal seeds make the completions of a prompt equal.
    """

    prompt_ids: list[int]
    seed: int


@dataclass(frozen=True)
class Rollout:
    """A completion.

    Attributes:
        token_ids: The tokens, the end-of-turn token among them where one was drawn.
        logprobs: Of each token, under the distribution it was drawn from (temperature and top-p
            applied); NaN where the engine gave none.
        finish: ``stop``, or ``length`` when it was cut off.
        version: Of the weights that drew it.
    """

    token_ids: list[int]
    logprobs: list[float]
    finish: str
    version: int


class RolloutEngine:
    """A vLLM engine in this process that knows the version of the weights it holds.

    Attributes:
        who: Its name, for messages.
        version: The version of its weights; None before the first push, and after one that failed.
    """

    def __init__(self, who: str, model: str, settings: EngineConfig, **options: Any) -> None:
        self.who = who
        self.version: int | None = None
        self._engine = VllmEngine(model, settings, logprobs_mode="processed_logprobs", **options)

    def dtype(self) -> str:
        """The dtype in which the engine computes, as ``torch`` names it."""
        found = self._engine.pause(lambda llm: llm.llm_engine.model_config.dtype)
        return str(found).removeprefix("torch.")

    def load(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Take weights in place of those that are there.

        A tied head must be among them under its own name: on a CPU vLLM keeps it repacked, and a
        reload that does not name it leaves it as it was, without an error.
        """

        def load(llm: LLM) -> None:
            self.version = None
            llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
            self._renew(llm, version)

        self._engine.pause(load)

    def run(self, work: Any) -> Any:
        """The result of ``work(llm)``, done while no request is in the engine."""
        return self._engine.pause(work)

    def adopt(self, version: int) -> None:
        """Count weights that came by another way, such as NCCL, as a version."""
        self._engine.pause(lambda llm: self._renew(llm, version))

    def _renew(self, llm: LLM, version: int) -> None:
        if not llm.reset_prefix_cache():
            raise ModelError(f"{self.who}: the cache of prefixes could not be emptied after a push")
        self.version = version

    def generate(
        self, requests: Sequence[RolloutRequest], sampling: Sampling, version: int
    ) -> list[Rollout]:
        """Complete all requests by the weights of a version; results in their order.

        Raises:
            WrongWeights: If the engine holds another version.
            EngineDied: If the engine failed.
        """
        outputs = self._engine.complete(
            [request.prompt_ids for request in requests],
            [_drawn(request.seed, sampling) for request in requests],
            admit=lambda: self.check(version),
        )
        return [_rollout(output, version) for output in outputs]

    def score(self, sequences: Sequence[list[int]], version: int) -> list[list[float]]:
        """The log-probability of each token but the first of some sequences, at temperature 1.

        NaN where the engine gave none.

        Raises:
            WrongWeights: If the engine holds another version.
            EngineDied: If the engine failed.
        """
        outputs = self._engine.complete(
            sequences, [_scored()] * len(sequences), admit=lambda: self.check(version)
        )
        return [
            [_logprob(entry, token) for entry, token in zip(found, tokens, strict=True)][1:]
            for tokens, found in (
                (tokens, output.prompt_logprobs or [None] * len(tokens))
                for tokens, output in zip(sequences, outputs, strict=True)
            )
        ]

    def fingerprints(self, version: int) -> dict[str, str]:
        """The fingerprint of each tensor that the engine computes with.

        Raises:
            WrongWeights: If the engine holds another version.
        """

        def read(llm: LLM) -> dict[str, str]:
            self.check(version)
            [found] = llm.apply_model(engine_fingerprints)
            return found

        return self._engine.pause(read)

    def check(self, version: int) -> None:
        """Refuse any version but the one that is held.

        Raises:
            WrongWeights: If it is another one.
        """
        if self.version != version:
            held = "no pushed weights" if self.version is None else f"version {self.version}"
            raise WrongWeights(
                f"{self.who} holds {held} and was asked for version {version}; weights are pushed "
                "to all engines before they are used"
            )


class EngineActor:
    """A Ray actor around an engine. Ray replaces it when it dies; it then loads what was pushed.

    Its methods are those of the engine; ``store`` (a ``pool.WeightStore``) has the last push.
    """

    def __init__(
        self, who: str, model: str, settings: EngineConfig, store: Any, **options: Any
    ) -> None:
        self._engine = RolloutEngine(who, model, settings, **options)
        self._store = store
        self._restoring = threading.Lock()

    def dtype(self) -> str:
        """As ``RolloutEngine.dtype``."""
        return self._engine.dtype()

    def load(self, references: Sequence[Any], version: int) -> None:
        """Take the weights of some buckets in the object store."""
        self._guarded(lambda: self._engine.load(_tensors(references), version))

    def generate(
        self, requests: Sequence[RolloutRequest], sampling: Sampling, version: int
    ) -> list[Rollout]:
        """As ``RolloutEngine.generate``."""
        self._restore(version)
        return self._guarded(lambda: self._engine.generate(requests, sampling, version))

    def score(self, sequences: Sequence[list[int]], version: int) -> list[list[float]]:
        """As ``RolloutEngine.score``."""
        self._restore(version)
        return self._guarded(lambda: self._engine.score(sequences, version))

    def fingerprints(self, version: int) -> dict[str, str]:
        """As ``RolloutEngine.fingerprints``."""
        self._restore(version)
        return self._guarded(lambda: self._engine.fingerprints(version))

    def init_weight_transfer_engine(self, request: Any) -> None:
        """As ``vllm.LLM`` has it: joins the group of the trainer that sends by NCCL."""
        self._engine.run(lambda llm: llm.init_weight_transfer_engine(request))

    def start_weight_update(self) -> None:
        """As ``vllm.LLM`` has it."""
        self._engine.version = None
        self._engine.run(lambda llm: llm.start_weight_update())

    def update_weights(self, request: Any) -> None:
        """As ``vllm.LLM`` has it."""
        self._engine.run(lambda llm: llm.update_weights(request))

    def finish_weight_update(self) -> None:
        """As ``vllm.LLM`` has it."""
        self._engine.run(lambda llm: llm.finish_weight_update())

    def adopt(self, version: int) -> None:
        """As ``RolloutEngine.adopt``."""
        self._engine.adopt(version)

    def _restore(self, version: int) -> None:
        """Have a new engine load what was pushed before it was there, and prove it."""
        import ray

        with self._restoring:
            if self._engine.version is not None:
                return
            pushed: Any = ray.get(self._store.current.remote())
            if pushed is None or pushed.version != version:
                return  # the engine refuses, and says what it holds
            self.load(pushed.references, version)
            if pushed.fingerprints is not None:
                found, who = self._engine.fingerprints(version), self._engine.who
                try:
                    check_fingerprints(pushed.fingerprints, found, who=who, version=version)
                except WrongWeights:
                    self._engine.version = None  # or a call that waits here would be answered
                    raise

    def _guarded(self, work: Any) -> Any:
        """The result of some work; a failed engine ends the process, so that Ray replaces it."""
        try:
            return work()
        except EngineDied:
            traceback.print_exc()
            os._exit(_EXIT)


def _tensors(references: Sequence[Any]) -> Iterable[tuple[str, torch.Tensor]]:
    import ray

    for reference in references:
        bucket: Any = ray.get(reference)
        yield from bucket.tensors()


def _drawn(seed: int, sampling: Sampling) -> SamplingParams:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        seed=seed,
        logprobs=0,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _scored() -> SamplingParams:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=0.0,
        max_tokens=1,
        prompt_logprobs=0,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _rollout(output: RequestOutput, version: int) -> Rollout:
    drawn = output.outputs[0]
    tokens = list(drawn.token_ids)
    entries = drawn.logprobs or [None] * len(tokens)
    logprobs = [_logprob(entry, token) for entry, token in zip(entries, tokens, strict=True)]
    return Rollout(tokens, logprobs, str(drawn.finish_reason), version)


def _logprob(entry: Any, token: int) -> float:
    found = None if entry is None else entry.get(token)
    return math.nan if found is None else float(found.logprob)
