"""What is promised of variants, on the rows of the bundled sample: real lists, code and prose."""

from __future__ import annotations

from collections import Counter

from mixup.errors import RecordError
from mixup.mixture.degraded import VARIANT_REASONS, VariantSettings
from mixup.mixture.drafts import same_words
from mixup.mixture.facts import facts_of, found_in
from mixup.mixture.items import Item
from mixup.mixture.pool import POOL_REASONS, item_of_turns
from mixup.mixture.variants import variants_of
from mixup.stages.rows import read_rows
from mixup.stages.sources import BUNDLED_SAMPLE, Chunk, find_files
from mixup.text.formats import REASONS, decode_line, parse_row
from mixup.text.parse import PARSE_REASONS
from mixup.text.tasks import detect_task

EVERY = 12  # of the sample's rows


def sample_items() -> tuple[list[Item], Counter[str]]:
    items, reasons = [], Counter()
    for file in find_files([BUNDLED_SAMPLE]):
        for place, row in enumerate(read_rows(Chunk(file), max_row_bytes=1 << 20)):
            if place % EVERY:
                continue
            try:
                turns = parse_row(
                    row.value if row.value is not None else decode_line(row.raw)
                ).turns
                items.append(item_of_turns(turns, detect_task(turns)))
            except RecordError as error:
                reasons[error.reason] += 1
    return items, reasons


def test_targets_of_the_sample_keep_what_their_plans_promise():
    items, reasons = sample_items()
    assert len(items) > 40
    assert set(reasons) <= {*POOL_REASONS, *PARSE_REASONS, *REASONS}
    made = [variants_of(item, seed=0, settings=VariantSettings()) for item in items]
    failed = [one.reason for one in made if one.reason]
    assert len(failed) < len(items) / 10
    assert set(failed) <= set(VARIANT_REASONS)
    for item, variants in zip(items, made, strict=True):
        texts = [one.text for one in variants.variants]
        assert len({same_words(text) for text in [*texts, item.text]}) == len(texts) + 1
        if variants.keeps_facts and texts:
            wanted = facts_of(item.body if item.task == "para" else item.answer)
            assert wanted <= frozenset().union(*map(found_in, texts))
