"""A tiny random distiller, pairs and rated examples for it, and the job that trains it by GRPO."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from mixup.config_file import load_config
from mixup.grpo_config import GrpoConfig

TOWNS = ("Ayr", "Oban", "Wick", "Thurso", "Nairn", "Elgin", "Banff", "Crail", "Leith", "Troon")
THINGS = ("harbour", "bridge", "market", "school", "railway", "beach", "mill", "church")
FAR = {
    **{"near_duplicate": 0.95, "cluster_floor": 0.6, "alignment_low": -0.2, "alignment_high": 0.5},
}
"""Thresholds with which text of random words is aligned a little, more or less."""


def write_tiny_distiller(folder: Path, *, tied: bool = True) -> Path:
    """A Llama of 2 layers with random weights, and the tokenizer of the bundled model."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from mixup.models.chat import tokenizer_of

    tokenizer = tokenizer_of("bundled:smollm2")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        tie_word_embeddings=tied,
        initializer_range=0.1,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        dtype="float32",
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def write_pairs(folder: Path, *, learn: int = 20, held_out: int = 4, rated: int = 48) -> Path:
    """`learn.jsonl` and `held_out.jsonl` in the paper's RL schema, `rated.jsonl` with ratings."""
    draw = random.Random(3)

    def pair(number: int) -> dict[str, str]:
        town, thing = draw.choice(TOWNS), draw.choice(THINGS)
        items = [f"Q: What has {town}?\nA: A {thing}.", f"Q: Where is the {thing}?\nA: In {town}."]
        return {
            "id": f"{number:032x}",
            "input": "\n\n".join(["Merge the related pairs below.", *items]),
            "output": f"Q: What is found in {town}?\nA: {town} has a {thing} on the coast.",
            "task_type": "qa_mixup",
        }

    rows = [pair(number) for number in range(learn + held_out)]
    write_lines(folder / "learn.jsonl", rows[:learn])
    write_lines(folder / "held_out.jsonl", rows[learn:])
    write_lines(
        folder / "rated.jsonl",
        [
            {
                "instruction": f"What does {draw.choice(TOWNS)} have?",
                "output": f"It has a {draw.choice(THINGS)}, number {number}.",
                "rating": 9 if number % 3 else 4,
            }
            for number in range(rated)
        ],
    )
    return folder


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def grpo_job(workspace: Path, model: Path, pairs: Path) -> dict[str, Any]:
    """Two workers and one engine on two CPUs."""
    return {
        "workspace": str(workspace),
        "name": "tiny",
        "model": str(model),
        "commit_interval_s": 0.5,
        "prompts": {"paths": [str(pairs / "learn.jsonl")], "max_tokens": 320},
        "held_out": {"paths": [str(pairs / "held_out.jsonl")], "max_rows": 3, "every_steps": 2},
        "rollouts": {"prompts": 4, "group": 4, "minibatches": 1, "max_tokens": 20},
        "optimizer": {"learning_rate": 0.001, "max_steps": 4, "micro_batch": 3},
        "engines": {"cpus": 0.5, "gpus": 0.0, "memory_gb": 1.5, "push_s": 120, "generate_s": 120},
        "reward": {"timeout_s": 120},
        "library": {"paths": [str(pairs / "rated.jsonl")]},
        "embed": {"model": "bundled:minilm", "similarity": FAR},
        "workers": {"count": 2, "cpus": 0.5, "wait_s": 60, "timeout_s": 240},
        "checkpoints": {"every_steps": 2},
        "export": {"dtype": "float32"},
    }


def grpo_config(workspace: Path, model: Path, pairs: Path, *overrides: str) -> GrpoConfig:
    job = workspace.parent / f"{workspace.name}.yaml"
    job.write_text(json.dumps(grpo_job(workspace, model, pairs)), encoding="utf-8")
    return load_config(GrpoConfig, job, overrides)
