"""Items and pairs made by rule from raw text, a CPU-second.

    MIXUP_BENCH_TEXT=wikipedia_passages.parquet pytest tests/benchmarks/bench_mixture.py -s \\
      -o python_files='bench_*.py'

The file has the columns id, title and text. Prints figures, asserts none of them.
"""

from __future__ import annotations

import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence

import pyarrow.parquet as pq
import pytest

from mixup.mixture.cut import items_of
from mixup.mixture.degraded import VariantSettings
from mixup.mixture.facts import facts_of, found_in
from mixup.mixture.items import Item, Segment
from mixup.mixture.pairs import Pair, Target, pair_of
from mixup.mixture.variants import variants_of
from mixup.text.tasks import TASKS

TEXT = os.environ.get("MIXUP_BENCH_TEXT")
SETTINGS = VariantSettings()


def segments() -> list[Segment]:
    rows = pq.read_table(TEXT, columns=["id", "title", "text"]).to_pylist()
    return [Segment(row["id"], row["title"], row["title"], row["text"]) for row in rows]


def pairs_of(items: Sequence[tuple[str, str, Item]]) -> list[Pair]:
    made = [
        (key, rule, item, variants_of(item, seed=0, settings=SETTINGS)) for key, rule, item in items
    ]
    return [
        pair_of(Target(item, (key,), (key,), rule), variants, seed=0)
        for key, rule, item, variants in made
        if not variants.reason
    ]


def timed(name: str, unit: str, work: Callable[[], list]) -> list:
    """Do the work, print how much of it a CPU-second does, and give its result."""
    start = time.process_time()
    result = work()
    seconds = time.process_time() - start
    print(f"  {name:28} {len(result):8,} {unit:9} {len(result) / seconds:10,.0f} a CPU-second")
    return result


@pytest.mark.timeout(3600)
@pytest.mark.skipif(not TEXT, reason="MIXUP_BENCH_TEXT names no file of passages")
def test_from_passages_to_pairs() -> None:
    passages = segments()
    print(f"\n  {len(passages):,} passages")
    outcomes = timed(
        "items_of",
        "outcomes",
        lambda: [(one.key, found) for one in passages for found in items_of(one, seed=0)],
    )
    items = [(key, found.rule, found.item) for key, found in outcomes if found.item]
    pairs = timed("variants_of and pair_of", "pairs", lambda: pairs_of(items))
    by_task = Counter(pair.target.item.task for pair in pairs)
    print("  pairs by task:", ", ".join(f"{task} {by_task[task]:,}" for task in TASKS))
    reasons = Counter(f"{found.task} {found.reason}" for _, found in outcomes if found.reason)
    print("  no item:", ", ".join(f"{name} {count:,}" for name, count in reasons.most_common()))
    rules = Counter(pair.target.rule for pair in pairs)
    print("  by rule:", ", ".join(f"{name} {count:,}" for name, count in sorted(rules.items())))
    sizes = [len(pair.variants) for pair in pairs]
    print(f"  variants: mean {statistics.mean(sizes):.2f}, {min(sizes)} to {max(sizes)}")
    done = Counter(name for pair in pairs for one in pair.variants for name in one.degradations)
    print("  degradations:", ", ".join(f"{name} {count:,}" for name, count in done.most_common()))
    print(f"  pairs whose promised facts are lost: {sum(map(loses_facts, pairs))}")


def loses_facts(pair: Pair) -> bool:
    item = pair.target.item
    facts = facts_of(item.body if item.task == "para" else item.answer)
    union = frozenset().union(*(found_in(one.text) for one in pair.variants))
    return pair.keeps_facts and not facts <= union
