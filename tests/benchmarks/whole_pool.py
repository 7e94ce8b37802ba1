"""The whole instruction pool through a refresh: rows, seconds and peak memory of every stage.

    make pool WORKSPACE=DIR

Takes about an hour and a half on two cores, most of it in the encoder. SIGINT and SIGTERM end it
after a commit, and the same command goes on from there; the figures are those of the last run.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from memory import Memory

from mixup.interrupts import raise_on_sigterm
from mixup.pipelines.refresh import refresh
from mixup.refresh_config import RefreshConfig

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
FILES = (
    "stanford_alpaca_subset",
    "databricks_dolly_3k",
    "dolly_hhrlhf_small",
    "p3_t0_50k",
    "flan_v2_cot",
    "gpteacher",
    "llm_adapters_qa",
    "gsm8k_train",
    "alpaca_libre",
    "alpaca_gpt4_en_demo_1k",
    "self_instruct_seed",
)
# What Alpaca Libre says of its own rows; no other file of the pool has this field.
STATUS = {
    "ok": 4,
    "too similar": 2,
    "blacklist": 1,
    "too short": 1,
    "bad start": 1,
    "error": 0,
    "empty": 0,
}
_STARTED = ": started"


def config_of(workspace: str) -> RefreshConfig:
    """The pool's config: all is embedded and clustered, eight clusters are distilled."""
    document: dict[str, Any] = {
        "workspace": workspace,
        "ingest": {
            "paths": [str(DATA / f"{name}.parquet") for name in FILES],
            "bucket_bytes": 2_000_000,
        },
        "embed": {"model": "bundled:minilm", "actors": 2, "actor_cpus": 0.85},
        "rate": {"type": "reference", "field": "status", "scale": None, "classes": STATUS},
        "cluster": {"max_size": 5, "max_tokens": 700},
        "distill": {
            "model": "bundled:smollm2",
            "samples": 1,
            "max_tokens": 64,
            "context_tokens": 1024,
            "max_clusters": 8,
            "engine_cpus": 1.25,
            "engine_gpus": 0,
            "batch_clusters": 8,
        },
        "select": {"size": 5000},
    }
    return RefreshConfig.model_validate(document)


class Phases(logging.Handler):
    """Tells the sampler which stage has started, by the run's own log."""

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self._memory = memory

    def emit(self, record: logging.LogRecord) -> None:
        """Begin a phase where a stage's start is logged."""
        message = record.getMessage()
        if message.endswith(_STARTED):
            self._memory.phase = message.removesuffix(_STARTED)


def main() -> int:
    """Run the pool and print the table."""
    parser = argparse.ArgumentParser(description="The whole instruction pool through a refresh.")
    parser.add_argument("--workspace", required=True, help="a folder; kept, and resumed from")
    options = parser.parse_args()
    if not DATA.is_dir():
        print(f"no real rows at {DATA}: there is nothing to run", file=sys.stderr)
        return 2
    memory = Memory("start")
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("mixup").setLevel(logging.INFO)
    logging.getLogger("mixup").addHandler(Phases(memory))
    raise_on_sigterm()
    with memory.watched():
        outcome = refresh(config_of(options.workspace))
    for stage in outcome.manifest["stages"]:
        rows, seconds = stage["rows_in"], stage["seconds"]
        took = f"{seconds:,.1f} s, {rows / seconds:,.0f} rows/s" if seconds else "in the last one"
        print(f"{stage['stage']}: {rows:,} in, {took}")
        print(f"    {stage}")
        print("\n".join(memory.lines(stage["stage"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
