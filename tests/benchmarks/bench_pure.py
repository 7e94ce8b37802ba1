"""Rates of the pure parts on one machine: `make bench`. Prints figures, asserts none of them."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import numpy as np

from mixup.clusters.grouping import group
from mixup.quality.curation import curate
from mixup.stages.rows import read_rows
from mixup.stages.sources import BUNDLED_SAMPLE, chunks_of, find_files
from mixup.text.formats import decode_line, parse_row
from mixup.text.tasks import detect_task

REPEATS = 5
ROWS = 8_000


def report(name: str, rows: int, work: Callable[[], object]) -> None:
    """Print the median, lowest and highest rows per second of some repeats."""
    rates = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        rates.append(rows / (time.perf_counter() - start))
    middle, low, high = statistics.median(rates), min(rates), max(rates)
    print(f"{name:34} {middle:12,.0f} rows/s   ({low:,.0f} to {high:,.0f}, {REPEATS} repeats)")


def topical_vectors(rows: int, topics: int, width: int = 384) -> np.ndarray:
    """Unit vectors around random topics, as similar within a topic as paraphrases are."""
    random = np.random.default_rng(0)
    centers = random.normal(size=(topics, width))
    vectors = centers[random.integers(topics, size=rows)] + 0.6 * random.normal(size=(rows, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_reading_and_parsing() -> None:
    file = next(file for file in find_files([BUNDLED_SAMPLE]) if file.name == "notes")
    (chunk,) = chunks_of(file, 1 << 30)
    lines = [row.raw for row in read_rows(chunk, max_row_bytes=1 << 20)] * 10
    values = [json.loads(line) for line in lines]
    turns = [parse_row(value).turns for value in values]
    print()
    report("decode_line", len(lines), lambda: [decode_line(line) for line in lines])
    report("parse_row", len(values), lambda: [parse_row(value) for value in values])
    report("detect_task", len(turns), lambda: [detect_task(found) for found in turns])


def test_one_cell() -> None:
    vectors = topical_vectors(ROWS, ROWS // 8)
    random = np.random.default_rng(1)
    ratings = np.where(random.random(ROWS) < 0.3, random.integers(0, 6, ROWS), -1)
    order, tokens = np.arange(ROWS), random.integers(20, 200, ROWS)
    labels = np.array(["qa"] * ROWS)
    print()
    report(f"curate, {ROWS:,} rows in a cell", ROWS, lambda: curate(vectors, ratings, order))
    report(
        f"group, {ROWS:,} rows in a cell",
        ROWS,
        lambda: group(
            vectors,
            tokens_N=tokens,
            labels_N=labels,
            order_N=order,
            floor=0.6,
            min_size=2,
            max_size=5,
            max_tokens=1600,
        ),
    )
