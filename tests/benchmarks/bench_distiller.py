r"""Trained distillers against an untrained one, on held-out pairs of MIXTURE.

    MIXUP_BENCH_MIXTURE=WORKSPACE MIXUP_BENCH_DISTILLERS=bundled:smollm2,DIR \
      make bench ARGS="-k bench_distiller"

Pairs are drawn from the split ``test`` of the workspace. The engine actor of distillation answers
the prompts of distillation, free of any format, greedily and at distillation's own temperature. The
first distiller is what the others are compared with, on the same pairs. Beside them stand the gold
targets, in the form that the distiller learns.

Further settings: MIXUP_BENCH_PAIRS (100), MIXUP_BENCH_TOKENS (256, of an answer),
MIXUP_BENCH_CONTEXT (1024, prompt and answer), MIXUP_BENCH_EXAMPLES (20, printed of the last
distiller's greedy answers), MIXUP_BENCH_OUTPUTS (a JSONL file of all answers).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from answers_scored import (
    ENCODER,
    Answers,
    measured,
    print_examples,
    print_measures,
    write_answers,
)

from mixup.actors.resources import cluster
from mixup.config import RayConfig
from mixup.mixture.schemas import MixtureRecord, messages_of
from mixup.models.chat import render_chat, tokenizer_of
from mixup.models.encoder import SentenceEncoder
from mixup.models.folders import model_revision
from mixup.records import content_key
from mixup.refresh_config import DistillConfig
from mixup.stages.distill_engine import DistillerEngine
from mixup.stages.examples import mixture_split, shares_of, stored_pairs
from mixup.stages.prompt_set import items_of
from mixup.stages.undistilled import WANTED, Distiller
from mixup.text.prompts import target_text
from mixup.training.grpo.prompts import PromptRow

MIXTURE = os.environ.get("MIXUP_BENCH_MIXTURE", "")
DISTILLERS = [name for name in os.environ.get("MIXUP_BENCH_DISTILLERS", "").split(",") if name]
PAIRS = int(os.environ.get("MIXUP_BENCH_PAIRS", "100"))
TOKENS = int(os.environ.get("MIXUP_BENCH_TOKENS", "256"))
CONTEXT = int(os.environ.get("MIXUP_BENCH_CONTEXT", "1024"))
EXAMPLES = int(os.environ.get("MIXUP_BENCH_EXAMPLES", "20"))
OUTPUTS = os.environ.get("MIXUP_BENCH_OUTPUTS", "")
CPUS, SEED = 2, 0
SAMPLINGS = {"greedy": 0.0, "sampled": DistillConfig.model_fields["temperature"].default}

pytestmark = [
    pytest.mark.skipif(not MIXTURE or not DISTILLERS, reason="no MIXTURE or no distiller is named"),
    pytest.mark.timeout(7200),
]


def test_distillers_on_held_out_pairs(tmp_path: Path) -> None:
    pairs = drawn_pairs()
    path = Path(OUTPUTS) if OUTPUTS else tmp_path / "outputs.jsonl"
    path.unlink(missing_ok=True)
    with cluster(RayConfig(cpus=CPUS, object_store_gb=0.2)):
        found = {
            sampling: [answered(name, pairs, sampling) for name in DISTILLERS]
            for sampling in SAMPLINGS
        }
    encoder = SentenceEncoder(ENCODER, cpus=CPUS)
    for sampling, every in found.items():
        every.append(gold(pairs))
        values = {answers.name: measured(pairs, answers, encoder) for answers in every}
        print(f"\n{sampling}, temperature {SAMPLINGS[sampling]:g}: each, and what it has over the")
        print("first, with 95 % intervals over pairs")
        print_measures(values)
        for answers in every[:-1]:
            write_answers(path, pairs, answers, values[answers.name])
        if sampling == "greedy":
            print_examples(pairs, every[-2], values[every[-2].name], EXAMPLES)
    print(f"\nall answers: {path}")


def drawn_pairs() -> list[PromptRow]:
    """Pairs of the test split, drawn by the seed, whose prompts leave every distiller room."""
    source = mixture_split(MIXTURE, "test")
    records = sorted(
        (record for share in shares_of([source]) for record in stored_pairs(source, share.part)),
        key=lambda record: record.id,
    )
    order = np.random.default_rng(SEED).permutation(len(records))
    drawn = [_row(records[place]) for place in order[: 4 * PAIRS]]
    lengths_DN = np.array(
        [[len(render_chat(name, row.messages)) for row in drawn] for name in DISTILLERS]
    )
    fits_N = lengths_DN.max(axis=0) <= CONTEXT - TOKENS
    fitting = [row for row, fits in zip(drawn, fits_N, strict=True) if fits]
    print(
        f"\n{len(fitting[:PAIRS])} of {len(records)} held-out pairs, with prompts of at most "
        f"{CONTEXT - TOKENS} tokens (of {len(drawn)} drawn {len(drawn) - len(fitting)} have more), "
        f"and answers of at most {TOKENS}"
    )
    return fitting[:PAIRS]


def _row(record: MixtureRecord) -> PromptRow:
    system, user, _ = messages_of(record)
    items = tuple(items_of(record.input))
    return PromptRow(record.id, record.task, [system, user], items, record.output.strip())


def answered(name: str, pairs: list[PromptRow], sampling: str) -> Answers:
    """A distiller's answers, by the actor that has the engine in a refresh."""
    import ray

    config = DistillConfig(
        model=name,
        samples=1,
        temperature=SAMPLINGS[sampling],
        max_tokens=TOKENS,
        context_tokens=CONTEXT,
        engine_cpus=CPUS,
        engine_gpus=0,
    )
    distiller = Distiller(config, model_revision(name), SEED)
    engine: Any = ray.remote(DistillerEngine).options(num_cpus=CPUS).remote(distiller)
    wanted = [
        {
            "sample": content_key("bench", SEED, pair.pair),
            "cluster": pair.pair,
            "task": pair.task,
            "inputs": list(pair.items),
            "index": 0,
            "constrained": False,
            "prompt_ids": render_chat(name, pair.messages),
            "reason": None,
            "attempts": 0,
        }
        for pair in pairs
    ]
    batch = pa.Table.from_pylist(wanted, schema=WANTED)
    done: Any = ray.get(engine.__call__.remote(batch))
    ray.kill(engine)
    rows = done.to_pylist()
    failed = [row["cluster"] for row in rows if row["reason"] is not None]
    assert not failed, f"{name} could not answer {failed}"
    return Answers(
        name,
        [row["text"] for row in rows],
        [row["finish"] for row in rows],
        [row["tokens"] for row in rows],
    )


def gold(pairs: list[PromptRow]) -> Answers:
    """The targets as answers, with a thought that says nothing."""
    texts = [target_text("These items say the same.", pair.target) for pair in pairs]
    tokenizer = tokenizer_of(DISTILLERS[0])
    tokens = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) + 1 for text in texts]
    return Answers("gold targets", texts, ["stop"] * len(pairs), tokens)
