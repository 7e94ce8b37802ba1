"""Cutting one article: its segments as columns, or the one row that says why there are none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from mixup.errors import RecordError
from mixup.mixture.near_text import sketch_of
from mixup.mixture.segments import Block, SegmentRules, article_key, blocks_of, segment_key
from mixup.mixture_config import TextConfig
from mixup.records import TABLES, content_key
from mixup.stages.articles import Article
from mixup.stages.sources import SourceFile

CUT = pa.schema(
    [
        ("partition", pa.int32()),
        *TABLES["segments"].file_schema,
        ("path", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("raw", pa.binary()),
    ]
)
"""A segment or a quarantine row on its way to the tables."""

_CONTEXT_CHARS = 1000


def text_rules(config: TextConfig) -> str:
    """The key of all that decides how articles become segments, but for where they lie."""
    rules = config.model_dump(mode="json", exclude={"paths", "chunk_bytes", "near_duplicate"})
    return content_key("segments-v2", rules)


def cut_article(article: Article, file: SourceFile, config: TextConfig) -> list[dict[str, Any]]:
    """The segments of an article as columns, or the one row that says why there are none."""
    place = {"file": file.fingerprint, "offset": article.offset}
    rules = SegmentRules(config.max_tokens, config.min_tokens, config.min_english)
    try:
        if article.reason:
            raise RecordError(article.reason, article.detail)
        blocks = blocks_of(article.text, rules)
    except RecordError as error:
        raw = article.raw or article.text[:4096].encode("utf-8", "replace")
        detail = str(error).encode("utf-8", "replace").decode()[:500]
        key = content_key(*place.values())  # places the row in a partition
        bad = {"reason": error.reason, "detail": detail, "raw": raw[:4096]}
        return [{**place, **bad, "segment": key, "path": file.shown}]
    whole = article_key(article.title, article.text)
    return [
        {
            **place,
            "segment": segment_key(block.text),
            "article": whole,
            "number": block.number,
            "title": article.title,
            "text": block.text,
            "context": _around(blocks, block.number),
            "tokens": block.tokens,
            "source": article.source or file.name,
            "licence": article.licence or config.licence or "unknown",
            "sketch": sketch_of(block.text).astype("<u4").tobytes(),
        }
        for block in blocks
    ]


def _around(blocks: Sequence[Block], number: int) -> str:
    """The end of the block before and the beginning of the one after."""
    before = blocks[number - 1].text[-_CONTEXT_CHARS:] if number else ""
    after = blocks[number + 1].text[:_CONTEXT_CHARS] if number + 1 < len(blocks) else ""
    return "\n".join(filter(None, (before, after)))
