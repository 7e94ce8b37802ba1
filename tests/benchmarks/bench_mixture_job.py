"""Raw text to pairs by rules, without embedding: pairs a second, the exponent, and memory.

    MIXUP_BENCH_SEGMENTS=5000,20000,100000 make bench ARGS="-k mixture_job"

Articles are made, each with facts of its own; every record gets a vector drawn by its key, so that
what is measured is all but the encoder. A bucket holds as many articles at every size, so that a
worker's memory tells what the pool costs it. Prints figures, asserts that pairs were made.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from figures import exponent
from made_mixture import text_files, write_articles
from made_pairs import make_pairs
from memory import Memory

from mixup.actors.resources import cluster
from mixup.config import RayConfig
from mixup.tables import row_count
from mixup.workspace import ensure_workspace

SIZES = [int(size) for size in os.environ.get("MIXUP_BENCH_SEGMENTS", "1000,4000").split(",")]
BUCKET_ARTICLES = 2500
pytestmark = pytest.mark.timeout(7200)


def build(place: Path, articles: int) -> tuple[int, int, float]:
    """Segments, pairs and seconds of a mixture of so many articles."""
    write_articles(place / "a.jsonl", articles)
    workspace = ensure_workspace(str(place / "w"), buckets=max(2, articles // BUCKET_ARTICLES))
    pairs, seconds = make_pairs(workspace, text_files(place / "a.jsonl"))
    return row_count(workspace, "segments"), pairs, seconds


def test_mixture_of_made_text(tmp_path):
    memory = Memory()
    found = []
    with cluster(RayConfig(cpus=2)), memory.watched():
        for size in SIZES:
            (tmp_path / str(size)).mkdir()
            memory.phase = f"{size} articles"
            segments, pairs, seconds = build(tmp_path / str(size), size)
            found.append((segments, seconds))
            print(f"  {segments:,} segments, {pairs:,} pairs, {seconds:.1f} s, ", end="")
            print(f"{pairs / seconds:.0f} pairs/s")
            print("\n".join(memory.lines(f"{size} articles")))
            assert pairs > segments
    exponent(found)
    print(json.dumps(found))
