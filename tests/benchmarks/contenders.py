"""What the pools are compared with: bare vLLM, transformers, sentence-transformers, scikit-learn.

Each contender is a process of its own that loads its model once and then works whenever it is asked
to, so that measurements of several contenders can take turns. ``python contenders.py NAME`` reads
one JSON request a line and answers each with one line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

THREADS = 2
SAMPLING: dict[str, Any] = {"temperature": 0.7, "top_p": 1.0}


class Contender:
    """A contender's process."""

    def __init__(self, name: str) -> None:
        env = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=env,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Have it work; its answer has ``seconds`` and what it counted."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("ANSWER "):
                return json.loads(line.removeprefix("ANSWER "))
        raise RuntimeError(f"the contender ended with {self._process.wait()}")

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


def run_once(script: str, given: Any) -> Any:
    """What a script beside this one prints of what it is given, both as JSON."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / script)],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(THREADS), "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


class _BareVllm:
    """``vllm.LLM.generate``, all prompts at once, with the settings that the engine actor has.

    Tokens are drawn as vLLM draws them, not as our engines do (``mixup.models.cpu_sampling``).
    """

    def __init__(self) -> None:
        from mixup.models.engine import _cpu_options, _set_cpu_environment
        from mixup.models.folders import model_folder
        from mixup.refresh_config import DistillConfig

        config = DistillConfig(context_tokens=2048, engine_cpus=THREADS, engine_gpus=0)
        _set_cpu_environment(config)
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        from vllm import LLM

        self._llm = LLM(
            model=str(model_folder("bundled:smollm2")),
            max_model_len=config.context_tokens,
            distributed_executor_backend="uni",
            disable_log_stats=True,
            **_cpu_options(config),
        )

    def work(self, prompts: list[list[int]], seeds: list[int], max_tokens: int) -> dict[str, Any]:
        from vllm import SamplingParams

        params = [
            SamplingParams(**SAMPLING, max_tokens=max_tokens, seed=seed, logprobs=0)
            for seed in seeds
        ]
        self._llm.reset_prefix_cache()
        start = time.perf_counter()
        outputs = self._llm.generate(
            [{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False
        )
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "tokens": sum(len(o.outputs[0].token_ids) for o in outputs)}


class _Transformers:
    """``generate`` of transformers, in batches of similar length, padded on the left."""

    def __init__(self) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        from mixup.models.folders import model_folder

        torch.set_num_threads(THREADS)
        folder = str(model_folder("bundled:smollm2"))
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def work(self, prompts: list[list[int]], max_tokens: int, batch: int) -> dict[str, Any]:
        import torch

        eos = self._model.generation_config.eos_token_id
        end = eos[0] if isinstance(eos, list) else eos
        ordered, tokens = sorted(prompts, key=len), 0
        start = time.perf_counter()
        for first in range(0, len(ordered), batch):
            part = ordered[first : first + batch]
            width = max(map(len, part))
            ids = torch.tensor([[end] * (width - len(one)) + one for one in part])
            mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in part])
            with torch.inference_mode():
                found = self._model.generate(
                    ids,
                    attention_mask=mask,
                    do_sample=True,
                    max_new_tokens=max_tokens,
                    pad_token_id=end,
                    **SAMPLING,
                )
            for row in found[:, width:].tolist():
                tokens += row.index(end) + 1 if end in row else len(row)
        return {"seconds": time.perf_counter() - start, "tokens": tokens}


class _BareEncoder:
    """``SentenceTransformer.encode``: all texts at once, or unsorted in small batches."""

    def __init__(self) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        from mixup.models.folders import model_folder

        torch.set_num_threads(THREADS)
        self._model = SentenceTransformer(str(model_folder("bundled:minilm")), device="cpu")

    def work(self, texts: list[str], batch: int, *, at_once: bool) -> dict[str, Any]:
        start = time.perf_counter()
        if at_once:
            self._model.encode(texts, batch_size=batch, normalize_embeddings=True)
        else:
            for first in range(0, len(texts), batch):
                part = texts[first : first + batch]
                self._model.encode(part, batch_size=batch, normalize_embeddings=True)
        return {"seconds": time.perf_counter() - start, "texts": len(texts)}


class _PlainRewards:
    """The paper's quality and alignment, each with an encoding of its own (``plain_reward``)."""

    def __init__(self) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        from mixup.models.folders import model_folder

        torch.set_num_threads(THREADS)
        self._encoder = SentenceTransformer(str(model_folder("bundled:minilm")), device="cpu")
        self._qualities: dict[str, Any] = {}

    def work(
        self, library: str, pairs: list[str], answers: list[str], golds: list[str]
    ) -> dict[str, Any]:
        import numpy as np
        from plain_reward import PlainQuality, PlainRewards

        if library not in self._qualities:
            held = np.load(library)
            self._qualities[library] = PlainQuality(held["vectors"], held["ratings"])
        rewards = PlainRewards(self._encoder, self._qualities[library])
        start = time.perf_counter()
        values = rewards.score(pairs, answers, golds)
        return {"seconds": time.perf_counter() - start, "values": values}


CONTENDERS = {
    "vllm": _BareVllm,
    "transformers": _Transformers,
    "encoder": _BareEncoder,
    "rewards": _PlainRewards,
}


def main() -> None:
    """Answer requests until the input ends."""
    contender: Any = CONTENDERS[sys.argv[1]]()
    for line in sys.stdin:
        print("ANSWER", json.dumps(contender.work(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
