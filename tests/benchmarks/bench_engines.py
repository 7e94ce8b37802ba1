"""The distillation and embedding pools against their bare engines: `make bench`.

Reads real rows from `../shared/data`; skips with a reason where they are absent. Every repeat runs
all contenders in turn, and ratios are taken within a repeat: the machine's speed drifts.

Settings from the environment: MIXUP_BENCH_CLUSTERS (128), MIXUP_BENCH_REPEATS (2),
MIXUP_BENCH_TOKENS (64, of each output), MIXUP_BENCH_TEXTS (4096, to embed).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from contenders import SAMPLING, THREADS, Contender
from figures import rate, ratio
from ray import cloudpickle
from whole_pool import DATA, FILES

from mixup.actors.resources import cluster
from mixup.actors.reward_settings import RewardSettings
from mixup.actors.rewards import RewardPools
from mixup.actors.votes import Votes
from mixup.clusters.grouping import cluster_key, group
from mixup.clusters.linearize import embed_text, item_text
from mixup.config import EmbedConfig, RayConfig
from mixup.models.encoder import SentenceEncoder, similarity_of
from mixup.models.generator import CALLS
from mixup.quality.transition import fit_transition
from mixup.records import uid_of
from mixup.refresh_config import DistillConfig, RewardConfig
from mixup.stages.cover import ActorPool, cover_buckets
from mixup.stages.distill_engine import DistillerEngine, _parsed
from mixup.stages.embed import _TO_EMBED, _EmbedActor, embed_spans
from mixup.stages.manifests import Manifest
from mixup.stages.reward import score_request
from mixup.stages.undistilled import WANTED, Distiller, render_prompt
from mixup.text.formats import parse_row
from mixup.text.tasks import TASKS, detect_task

CLUSTERS = int(os.environ.get("MIXUP_BENCH_CLUSTERS", "128"))
REPEATS = int(os.environ.get("MIXUP_BENCH_REPEATS", "2"))
TOKENS = int(os.environ.get("MIXUP_BENCH_TOKENS", "64"))
TEXTS = int(os.environ.get("MIXUP_BENCH_TEXTS", "4096"))
SEARCHED = 32  # clusters on which transformers' best batch size is looked for

pytestmark = [
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no real rows at {DATA}"),
    pytest.mark.timeout(3600),
]
MINILM = EmbedConfig(model="bundled:minilm", actors=2, actor_cpus=0.85)
DISTILL = DistillConfig(
    model="bundled:smollm2",
    samples=1,
    **SAMPLING,
    max_tokens=TOKENS,
    context_tokens=2048,
    engine_cpus=1.25,
    engine_gpus=0,
    batch_clusters=32,
)


@pytest.fixture(autouse=True)
def _by_value() -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import it


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    """Real clusters as the samples that they lack, with prompts."""
    table = pq.read_table(DATA / "alpaca_libre.parquet").slice(0, 1600).to_pylist()
    parsed = [parse_row(row).turns for row in table if row["output"].strip()]
    tasks = [detect_task(turns) for turns in parsed]
    able = [place for place, task in enumerate(tasks) if task in TASKS]
    vectors = SentenceEncoder("bundled:minilm", cpus=2).encode(
        [embed_text(parsed[place]) for place in able]
    )
    groups = group(
        vectors.vectors_ND,
        tokens_N=np.array([sum(len(t.content) for t in parsed[place]) // 4 for place in able]),
        labels_N=np.array([tasks[place] for place in able]),
        order_N=np.arange(len(able)),
        floor=0.6,
        min_size=2,
        max_size=5,
        max_tokens=700,
    )
    assert len(groups.members) >= CLUSTERS, f"{len(groups.members)} clusters, want {CLUSTERS}"
    return [_wanted(parsed, tasks, [able[at] for at in group]) for group in groups.members][
        :CLUSTERS
    ]


def _wanted(parsed: list, tasks: list[str], members: list[int]) -> dict:
    task = tasks[members[0]]
    inputs = [item_text(parsed[place], task) for place in members]
    key = cluster_key([uid_of(parsed[place]) for place in members])
    prompt = render_prompt(DISTILL.model, inputs, task)
    return {
        "sample": key,
        "cluster": key,
        "task": task,
        "inputs": inputs,
        "index": 0,
        "constrained": False,
        "prompt_ids": prompt,
        "reason": None,
        "attempts": 0,
    }


def _blocks(batch: pa.Table, rows: list[dict], schema: pa.Schema, size: int) -> Iterator[pa.Table]:
    for start in range(0, len(rows), size):
        yield pa.Table.from_pylist(rows[start : start + size], schema=schema)


def _scored(batch: pa.Table, pools: RewardPools | None) -> pa.Table:
    """What the distill stage does with a batch, without the tables."""
    if not batch.num_rows:
        return Manifest().to_table()
    rows = batch.to_pylist()
    spans = {("generate", row["started"], row["ended"]) for row in rows}
    samples = [{**row, **_parsed(row)} for row in rows]
    if pools is not None:
        able = [row for row in samples if row["text"]]
        pools.score([score_request(row, row["task"], row["inputs"]) for row in able])
    counts = {"rows": len(rows), "tokens": sum(row["tokens"] for row in rows)}
    return Manifest(counts=counts, spans=sorted(spans)).to_table()


def _pool_rate(rows: list[dict], pools: RewardPools | None) -> float:
    """Tokens per second of the engine pool, from its first request to its last answer."""
    size = DISTILL.batch_clusters
    work = ActorPool(DistillerEngine, (Distiller(DISTILL, "r", 0),), 1, size, 1.25, 0.0, CALLS)
    source = partial(_blocks, rows=rows, schema=WANTED, size=size)
    found = list(cover_buckets([0], source, work, partial(_scored, pools=pools)))
    assert sum(manifest.counts.get("rows", 0) for manifest in found) == len(rows)
    spans = [span for manifest in found for span in manifest.spans]
    tokens = sum(manifest.counts.get("tokens", 0) for manifest in found)
    return tokens / (max(end for _, _, end in spans) - min(start for _, start, _ in spans))


def _reward_pools(rows: list[dict]) -> RewardPools:
    texts = [text for row in rows for text in row["inputs"]]
    vectors = SentenceEncoder("bundled:minilm", cpus=2).encode(texts).vectors_ND
    ratings = np.random.default_rng(0).integers(0, 6, len(texts))
    votes = Votes(vectors, ratings, fit_transition(vectors, ratings, neighbors=3, smoothing=0.01))
    near = similarity_of("bundled:minilm", None)
    settings = RewardSettings("soft", near, 4, 16, 4.0, "encoder", "library")
    return RewardPools.start(RewardConfig(), MINILM, settings, votes)


def test_distillation(rows: list[dict]) -> None:
    prompts = [row["prompt_ids"] for row in rows]
    seeds = [int(row["sample"][:8], 16) for row in rows]
    lengths = sorted(map(len, prompts))
    print(
        f"\ndistillation: {len(rows)} real clusters, prompts of {lengths[0]} to {lengths[-1]} "
        f"tokens (median {lengths[len(lengths) // 2]}), at most {TOKENS} new tokens, "
        f"{THREADS} threads"
    )
    rates: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        rates.setdefault(name, []).append(value)
        print(f"    {name}: {value:.1f} tokens/s", flush=True)

    hf = Contender("transformers")
    try:
        hf.ask(prompts=prompts[:4], max_tokens=8, batch=4)
        best = max(
            (8, 16, 32),
            key=lambda size: _rate(
                hf.ask(prompts=prompts[:SEARCHED], max_tokens=TOKENS, batch=size)
            ),
        )
        for _ in range(REPEATS):
            # An engine's first call is a tenth slower than later ones, and the pool's engines are
            # new in each repeat: so is the bare one, and all are timed at their first call.
            with closing(Contender("vllm")) as bare:
                answer = bare.ask(prompts=prompts, seeds=seeds, max_tokens=TOKENS)
            note("bare vllm.LLM.generate", _rate(answer))
            with cluster(RayConfig(cpus=2)):
                note("pool", _pool_rate(rows, None))
                pools = _reward_pools(rows)
                note("pool with rewards", _pool_rate(rows, pools))
                del pools
            note("transformers", _rate(hf.ask(prompts=prompts, max_tokens=TOKENS, batch=best)))
    finally:
        hf.close()
    for name, found in rates.items():
        rate(name, "tokens/s", found)
    print(f"  transformers' best batch size of 8, 16 and 32: {best}")
    ratio("pool / bare vLLM", rates["pool"], rates["bare vllm.LLM.generate"])
    ratio(
        "pool with rewards / bare vLLM", rates["pool with rewards"], rates["bare vllm.LLM.generate"]
    )
    ratio("pool / transformers", rates["pool"], rates["transformers"])
    ratio("pool with rewards / transformers", rates["pool with rewards"], rates["transformers"])


def _rate(answer: dict) -> float:
    return answer.get("tokens", answer.get("texts", 0)) / answer["seconds"]


def _timed(batch: pa.Table) -> pa.Table:
    if not batch.num_rows:
        return Manifest().to_table()
    done = batch.num_rows - batch["vector"].null_count
    return Manifest(counts={"rows": done}, spans=embed_spans(batch)).to_table()


def _pool_texts() -> list[str]:
    """A draw from the whole pool, whose rows are of every length."""
    columns = ["instruction", "input", "output"]
    pool = pa.concat_tables(
        [pq.read_table(DATA / f"{name}.parquet", columns=columns) for name in FILES]
    )
    drawn = np.random.default_rng(0).choice(pool.num_rows, 2 * TEXTS, replace=False)
    rows = pool.take(np.sort(drawn)).to_pylist()
    good = [row for row in rows if row["instruction"].strip() and row["output"].strip()]
    texts = [embed_text(parse_row(row).turns) for row in good]
    np.random.default_rng(1).shuffle(texts)
    return texts[:TEXTS]


def test_embedding() -> None:
    texts = _pool_texts()
    rows = [{"uid": str(place), "text": text, "attempts": 0} for place, text in enumerate(texts)]
    rates: dict[str, list[float]] = {"pool": [], "bare": [], "unsorted": []}
    bare = Contender("encoder")
    try:
        bare.ask(texts=texts[:64], batch=32, at_once=True)
        for _ in range(REPEATS):
            rates["bare"].append(_rate(bare.ask(texts=texts, batch=32, at_once=True)))
            with cluster(RayConfig(cpus=2)):
                rates["pool"].append(_embed_rate(rows))
            rates["unsorted"].append(_rate(bare.ask(texts=texts, batch=8, at_once=False)))
    finally:
        bare.close()
    print(f"\nembedding: {TEXTS} real rows, {THREADS} threads")
    rate("pool", "texts/s", rates["pool"])
    rate("bare SentenceTransformer.encode", "texts/s", rates["bare"])
    rate("unsorted batches of 8", "texts/s", rates["unsorted"])
    ratio("pool / bare encode", rates["pool"], rates["bare"])
    ratio("pool / unsorted batches of 8", rates["pool"], rates["unsorted"])


def _embed_rate(rows: list[dict]) -> float:
    size = MINILM.batch_rows
    work = ActorPool(_EmbedActor, (MINILM,), MINILM.actors, size, MINILM.actor_cpus)
    source = partial(_blocks, rows=rows, schema=_TO_EMBED, size=size)
    found = list(cover_buckets([0], source, work, _timed))
    assert sum(manifest.counts.get("rows", 0) for manifest in found) == len(rows)
    spans = [span for manifest in found for span in manifest.spans]
    return len(rows) / (max(end for _, _, end in spans) - min(start for _, start, _ in spans))


def _nothing(batch: pa.Table) -> pa.Table:
    return Manifest(counts={"rows": batch.num_rows}).to_table()


def _one_row(batch: pa.Table) -> Iterator[pa.Table]:
    yield pa.table({"x": [1]})


class _Idle:
    def __call__(self, batch: pa.Table) -> pa.Table:
        return batch


def test_fixed_costs() -> None:
    """What Ray takes for one row: a cluster's start, and a stage with and without actors."""
    print("\nRay's fixed costs, for one row")
    starts, plain, actors = [], [], []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        with cluster(RayConfig(cpus=2)):
            list(cover_buckets([0], _one_row, None, _nothing))  # a first run loads Ray Data
            starts.append(time.perf_counter() - begin)
            for pool, noted in ((None, plain), (ActorPool(_Idle, (), 1, 8, 1.0), actors)):
                begin = time.perf_counter()
                list(cover_buckets([0], _one_row, pool, _nothing))
                noted.append(time.perf_counter() - begin)
    rate("start, first stage and end of a cluster", "s", starts)
    rate("a stage of light tasks", "s", plain)
    rate("a stage with an actor", "s", actors)
