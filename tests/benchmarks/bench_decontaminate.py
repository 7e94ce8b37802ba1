"""Records compared with evaluation questions: hits and rate, for the files that two paths name.

    MIXUP_POOL=pool MIXUP_EVALUATION=eval pytest tests/benchmarks/bench_decontaminate.py -s \\
      -o python_files='bench_*.py'

Prints figures and every hit's place, asserts none of them.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from mixup.config import DecontaminateConfig
from mixup.errors import RecordError
from mixup.stages.decontaminate import build_index, evaluation_files
from mixup.stages.rows import read_rows
from mixup.stages.sources import Chunk, SourceFile, find_files
from mixup.text.formats import decode_line, parse_row

POOL, EVALUATION = os.environ.get("MIXUP_POOL"), os.environ.get("MIXUP_EVALUATION")


def texts_of(file: SourceFile) -> Iterator[list[str]]:
    """The turns of the rows of a file that become records."""
    for row in read_rows(Chunk(file), max_row_bytes=8_000_000):
        try:
            parsed = parse_row(row.value if row.value is not None else decode_line(row.raw))
        except RecordError:
            continue
        yield [turn.content for turn in parsed.turns]


@pytest.mark.timeout(3600)
@pytest.mark.skipif(not (POOL and EVALUATION), reason="MIXUP_POOL, MIXUP_EVALUATION name no files")
def test_hits_and_rate() -> None:
    config = DecontaminateConfig(paths=[EVALUATION or ""])
    start = time.process_time()
    index = build_index(config, evaluation_files(config))
    seconds = time.process_time() - start
    questions, size = sum(index.counts().values()), len(index.to_bytes())
    print(f"\n{questions:,} questions indexed in {seconds:.1f} CPU s, {size / 1e6:.0f} MB")
    for file in find_files([POOL or ""]):
        texts = list(texts_of(file))
        start = time.process_time()
        found = [match for text in texts if (match := index.find(text))]
        rate = len(texts) / max(time.process_time() - start, 1e-9)
        counts = Counter((match.benchmark, match.kind) for match in found)
        print(f"{file.name:28} {len(texts):7,} rows {rate:8,.0f} rows/CPU s  {dict(counts)}")
        for match in found:
            print(f"    {match.kind:5} {match.place}: {match.matched[:90]}")
