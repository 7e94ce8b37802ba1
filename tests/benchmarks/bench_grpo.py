"""Seconds of each phase of a GRPO step against plain TRL with transformers' generate.

    make bench ARGS="-k bench_grpo"

The same model, prompts, adapters, rewards and threads; answers of the same length, since neither
side may end one early. Repeats take turns. That lengths and prompts are the same is checked; times
are only printed. From the environment: BENCH_GRPO_MODEL (bundled:smollm2), BENCH_GRPO_STEPS (3, of
which the first warms up), BENCH_GRPO_REPEATS (2), BENCH_GRPO_TOKENS (128, of each answer).
"""

from __future__ import annotations

import json
import os
import pickle
import random
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from contenders import THREADS, run_once
from figures import rate, ratio, spread
from ray import cloudpickle

from mixup.actors.resources import cluster
from mixup.config import RayConfig
from mixup.grpo_config import GrpoConfig
from mixup.models.folders import model_folder
from mixup.pipelines import train_grpo as pipeline
from mixup.pipelines.grpo_plan import make_plan
from mixup.pipelines.train_grpo import train_grpo
from mixup.stages.library_folder import votes_of
from mixup.stages.reference import load_reference
from mixup.training.checkpoints import CheckpointStore
from mixup.training.grpo.engines import EngineActor
from mixup.training.grpo.pool import EnginePool
from mixup.training.grpo.prompts import PromptRows
from mixup.training.grpo.rollouts import counting_rollouts
from mixup.training.metrics import read_metrics
from mixup.workspace import Workspace

MODEL = os.environ.get("BENCH_GRPO_MODEL", "bundled:smollm2")
STEPS = int(os.environ.get("BENCH_GRPO_STEPS", "3"))
REPEATS = int(os.environ.get("BENCH_GRPO_REPEATS", "2"))
TOKENS = int(os.environ.get("BENCH_GRPO_TOKENS", "128"))
PROMPTS, GROUP, MICRO, RATE = 4, 4, 4, 1e-5
LORA = {"rank": 8, "alpha": 16.0}
PHASES = ("push", "gate", "generate", "reward", "others", "train", "step")
_WARM = 1 if STEPS > 1 else 0

WORDS = ("river", "stone", "light", "seven", "garden", "paper", "north", "music", "harbour", "wool")


class UnendingEngine(EngineActor):
    """An engine that draws as many tokens as it may."""

    def __init__(self, *given: Any, **named: Any) -> None:
        from mixup.training.grpo import engines

        drawn = engines._drawn

        def unending(*given: Any) -> Any:
            sampling = drawn(*given)
            sampling.ignore_eos = True
            return sampling

        engines._drawn = unending
        super().__init__(*given, **named)


class UnendingPool(EnginePool):
    """A pool of such engines."""

    @classmethod
    def start(cls, *given: Any, **named: Any) -> EnginePool:
        return super().start(*given, actor=UnendingEngine, **named)


def said(draw: random.Random, words: int) -> str:
    return " ".join(draw.choices(WORDS, k=words))


def write_rows(folder: Path) -> None:
    """Prompts of three pairs of some words each, and rated rows, in both schemas."""
    draw = random.Random(1)
    pairs = [
        {
            "id": f"{number:032x}",
            "input": "\n\n".join(
                [
                    "Merge the related pairs below into one.",
                    *(f"Q: {said(draw, 8)}?\nA: {said(draw, 40)}." for _ in range(3)),
                ]
            ),
            "output": f"Q: {said(draw, 8)}?\nA: {said(draw, 60)}.",
            "task_type": "qa_mixup",
        }
        for number in range(PROMPTS * STEPS)
    ]
    rated = [
        {"instruction": f"{said(draw, 8)}?", "output": said(draw, 40), "rating": rating}
        for rating in (9, 5, 7) * 40
    ]
    for name, rows in (("pairs", pairs), ("rated", rated)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def config_of(place: Path, rows: Path) -> GrpoConfig:
    return GrpoConfig.model_validate(
        {
            "workspace": str(place),
            "name": "bench",
            "model": MODEL,
            "prompts": {"paths": [str(rows / "pairs.jsonl")], "max_tokens": 600},
            "held_out": {"max_rows": 0},
            "rollouts": {
                **{"prompts": PROMPTS, "group": GROUP, "minibatches": 1, "max_tokens": TOKENS},
            },
            "optimizer": {"learning_rate": RATE, "max_steps": STEPS, "micro_batch": MICRO},
            "lora": LORA,
            # Engine and trainer take turns: each may use all threads.
            "engines": {"cpus": float(THREADS), "gpus": 0.0},
            "workers": {"count": 1, "cpus": float(THREADS)},
            "library": {"paths": [str(rows / "rated.jsonl")]},
            "embed": {"model": "bundled:minilm"},
            "checkpoints": {"every_steps": 1000},
        }
    )


def ours(config: GrpoConfig) -> list[dict[str, float]]:
    """The phases of each step."""
    train_grpo(config)
    store = store_of(config)
    lines = read_metrics(store.workspace, store.folder)
    return [
        {
            **{name: row[f"seconds/{name}"] for name in PHASES},
            "mean_length": row["mean_length"],
        }
        for row in lines
        if row["kind"] == "train"
    ]


def store_of(config: GrpoConfig) -> CheckpointStore:
    workspace = Workspace(config.workspace)
    (name,) = workspace.list("checkpoints")
    return CheckpointStore(workspace, name)


def theirs(config: GrpoConfig, scratch: Path) -> list[dict[str, float]]:
    """The same of plain TRL, which is asked what ours was asked, step by step."""
    store, workspace = store_of(config), Workspace(config.workspace)
    asked: list[list[str]] = [[] for _ in range(STEPS)]
    for row in counting_rollouts(workspace, store.training).to_pylist():
        if row["prompt"] not in asked[row["step"]]:
            asked[row["step"]].append(row["prompt"])
    assert [len(step) for step in asked] == [PROMPTS] * STEPS
    (name,) = workspace.list("prompt_sets")
    prompts = PromptRows(workspace, name)
    plan = make_plan(config, workspace)
    settings = plan.rewards()
    assert settings.library is not None
    votes = votes_of(load_reference(plan.place, settings.library))
    held = scratch / "rewards.pickle"
    held.write_bytes(pickle.dumps(([prompts[at] for at in range(len(prompts))], settings, votes)))
    found = run_once(
        "plain_grpo.py",
        {
            "model": str(model_folder(MODEL)),
            "scratch": str(scratch),
            "threads": THREADS,
            "rewards": str(held),
            "asked": asked,
            "group": GROUP,
            "micro": MICRO,
            "tokens": TOKENS,
            "learning_rate": RATE,
            "lora": None if config.lora is None else config.lora.model_dump(),
        },
    )
    return [{**dict.fromkeys(PHASES, 0.0), **row} for row in found]


def show(name: str, steps: Sequence[dict[str, float]]) -> None:
    """The seconds of each phase, and its share of the step."""
    print(f"  {name}")
    whole = statistics.median(step["step"] for step in steps)
    for phase in PHASES:
        seconds = [step[phase] for step in steps]
        share = statistics.median(seconds) / whole
        print(f"    {phase:12} {spread(seconds):>32} s  {share:6.1%}")


@pytest.mark.timeout(7200)
def test_a_step_against_plain_trl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import it
    monkeypatch.setattr(pipeline, "_engine_pool", lambda: UnendingPool)
    write_rows(tmp_path)
    print(
        f"\n{MODEL}, LoRA, float32, {PROMPTS * GROUP} answers of {TOKENS} tokens a step, "
        f"{THREADS} threads"
    )
    mine: list[dict[str, float]] = []
    plain: list[dict[str, float]] = []
    for repeat in range(REPEATS):
        config = config_of(tmp_path / f"w{repeat}", tmp_path)
        with cluster(RayConfig(cpus=2 * THREADS + 1, object_store_gb=1.0)):
            mine += ours(config)[_WARM:]
        plain += theirs(config, tmp_path)[_WARM:]
    assert {step["mean_length"] for step in [*mine, *plain]} == {float(TOKENS)}
    show("train-grpo: an engine, a worker, reward actors", mine)
    show("plain TRL: one process", plain)
    tokens = PROMPTS * GROUP * TOKENS
    drawn, drawn_plainly = ([tokens / one["generate"] for one in some] for some in (mine, plain))
    rate("train-grpo, generation", "tokens/s", drawn)
    rate("plain TRL, generation", "tokens/s", drawn_plainly)
    ratio("train-grpo : plain TRL, generation", drawn, drawn_plainly)
    whole, whole_plainly = ([1 / one["step"] for one in some] for some in (mine, plain))
    ratio("train-grpo : plain TRL, the whole step", whole, whole_plainly)
