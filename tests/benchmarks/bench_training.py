"""Seconds a step of `train-sft` against plain TRL in one process, with the same rows and threads.

    BENCH_TRAINING_MODEL=bundled:smollm2 make bench ARGS="-k bench_training"

Every row is of the same length, so that every step of both is of 2,048 tokens. Repeats alternate.
Prints figures, asserts none of them.
"""

from __future__ import annotations

import json
import os
import random
import statistics
from pathlib import Path
from typing import Any

import pytest
from contenders import THREADS, run_once
from figures import rate, ratio

from mixup.actors.resources import cluster
from mixup.config import RayConfig
from mixup.models.folders import model_folder
from mixup.pipelines.train_sft import train_sft
from mixup.training.metrics import read_metrics
from mixup.training.tokens import TokenRows
from mixup.training_config import SftConfig
from mixup.workspace import Workspace

MODEL = os.environ.get("BENCH_TRAINING_MODEL", "bundled:smollm2")
STEPS = int(os.environ.get("BENCH_TRAINING_STEPS", "6"))
REPEATS = int(os.environ.get("BENCH_TRAINING_REPEATS", "2"))
STAGES = [int(stage) for stage in os.environ.get("BENCH_TRAINING_STAGES", "0,1,2,3").split(",")]
TOKENS, BATCH, MICRO = 512, 4, 2
LORA = {"rank": 8, "alpha": 16.0}
_WARM = 2  # the first steps allocate


def write_rows(path: Path) -> None:
    """Rows of more than enough words; the longest that fit are taken."""
    draw = random.Random(1)
    words = ["river", "stone", "light", "seven", "garden", "paper", "north", "music"]
    with path.open("w", encoding="utf-8") as file:
        for number in range(400):
            answer = " ".join(draw.choices(words, k=draw.randint(380, 520)))
            file.write(json.dumps({"instruction": f"Say {number}.", "output": answer}) + "\n")


def config_of(place: Path, rows: Path, stage: int) -> SftConfig:
    return SftConfig.model_validate(
        {
            "workspace": str(place),
            "name": "bench",
            "model": MODEL,
            "examples": {"paths": [str(rows)], "window": TOKENS},
            "held_out": {"max_rows": 0},
            "optimizer": {
                **{"batch": BATCH, "micro_batch": MICRO, "max_steps": STEPS, "epochs": 9.0},
                **{"learning_rate": 1e-4, "weight_decay": 0.0},
            },
            "lora": LORA,
            "zero": {"stage": stage},
            "workers": {"count": 1, "cpus": 2.0},
            "checkpoints": {"every_steps": 1000},
            "metrics": {"every_steps": 1},
            "max_dropped_share": 1.0,
        }
    )


def ours(config: SftConfig) -> list[float]:
    """Tokens a second of each step after the first ones."""
    train_sft(config)
    workspace = Workspace(config.workspace)
    (name,) = workspace.list("checkpoints")
    lines = read_metrics(workspace, f"checkpoints/{name}")
    return [row["tokens_per_second"] for row in lines if row["kind"] == "train"][_WARM:]


def theirs(config: SftConfig, scratch: Path) -> list[float]:
    """The same of plain TRL, which is given rows of the same token set."""
    workspace = Workspace(config.workspace)
    rows = TokenRows(workspace, workspace.list("token_sets")[0])
    longest = sorted(range(len(rows)), key=lambda row: -int(rows.lengths_N[row]))[: STEPS * BATCH]
    found = [rows[row] for row in longest]
    lora = config.lora
    given: dict[str, Any] = {
        "model": str(model_folder(MODEL)),
        "scratch": str(scratch),
        "threads": THREADS,
        "micro": MICRO,
        "batch": BATCH,
        "steps": STEPS,
        "learning_rate": 1e-4,
        "lora": None if lora is None else lora.model_dump(),
        "rows": [
            {
                "input_ids": row.input_ids.tolist(),
                "labels": [
                    int(token) if is_learned else -100
                    for token, is_learned in zip(row.input_ids, row.loss_mask, strict=True)
                ],
            }
            for row in found
        ],
    }
    seconds = run_once("plain_trl.py", given)[_WARM:]
    tokens = statistics.mean(len(row.input_ids) for row in found) * BATCH
    return [tokens / taken for taken in seconds]


@pytest.mark.timeout(7200)
def test_training_against_plain_trl(tmp_path):
    write_rows(tmp_path / "rows.jsonl")
    print(f"\n{MODEL}, LoRA, float32, {BATCH * TOKENS:,} tokens a step at most, 2 threads")
    plain: list[float] = []
    found: dict[int, list[float]] = {stage: [] for stage in STAGES}
    with cluster(RayConfig(cpus=2, object_store_gb=0.5)):
        for repeat in range(REPEATS):
            for stage in STAGES:
                config = config_of(tmp_path / f"w{repeat}-{stage}", tmp_path / "rows.jsonl", stage)
                found[stage].append(statistics.median(ours(config)))
            place = tmp_path / f"w{repeat}-{STAGES[0]}"
            plain.append(
                statistics.median(
                    theirs(
                        config_of(place, tmp_path / "rows.jsonl", STAGES[0]), tmp_path / "scratch"
                    )
                )
            )
    rate("plain TRL, one process", "tokens/s", plain)
    for stage, rates in found.items():
        rate(f"train-sft, one worker, ZeRO-{stage}", "tokens/s", rates)
        ratio(f"train-sft ZeRO-{stage} : plain TRL", rates, plain)
