"""Examples on their way to be tokenized: shares of the sources → pieces, by content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mixup.models.tokenizing import Encoding
from mixup.records import Turn, bucket_of
from mixup.stages.examples import EXAMPLES, Example, Share, read_examples
from mixup.stages.pieces import PieceWriter
from mixup.stages.streams import UNREACHABLE
from mixup.stages.waves import Staged
from mixup.tables import Snapshot
from mixup.text.prompts import SYSTEM
from mixup.workspace import Workspace

_SHARE_BYTES = 64_000_000
_BLOCK_ROWS = 1024
_BLOCK_CHARS = 4_000_000


@dataclass(frozen=True)
class Tokenizing:
    """What the tasks share.

    Attributes:
        workspace: Where the table is.
        encoding: How conversations become tokens.
        revision: The encoding's revision.
        shares: What is read.
        folder: Where pieces lie in the workspace.
        partitions: Into how many parts, a multiple of the buckets, examples are divided by key.
        known: What the table held before; for the index, what it holds then.
    """

    workspace: Workspace
    encoding: Encoding
    revision: str
    shares: tuple[Share, ...]
    folder: str
    partitions: int
    known: Snapshot

    def bucket(self, partition: int) -> int:
        """The bucket that a partition is a part of."""
        return partition * self.workspace.buckets // self.partitions


def reading_tasks(shares: Sequence[Share]) -> Iterator[tuple[int, int]]:
    """The shares of each task: one, or several small ones."""
    first = held = 0
    for place, share in enumerate(shares):
        if place > first and held + share.size > _SHARE_BYTES:
            yield first, place
            first, held = place, 0
        held += share.size
    if first < len(shares):
        yield first, len(shares)


def stage_examples(work: Tokenizing, first: int, end: int) -> Staged:
    """Read some of the shares; runs in a worker."""
    writer = PieceWriter(work.workspace, work.folder, f"{first:07d}")
    counts: Counter[str] = Counter()
    block, held = list[dict[str, Any]](), 0
    for example in _examples(work.shares[first:end]):
        counts["rows"] += 1
        if example.reason == UNREACHABLE:  # may be there the next time: no outcome
            counts[UNREACHABLE] += 1
            continue
        counts.update(_teaches(example))
        block.append(_staged_row(example, work.partitions))
        held += sum(len(turn.content) for turn in example.turns)
        if len(block) == _BLOCK_ROWS or held >= _BLOCK_CHARS:
            writer.add(pa.Table.from_pylist(block, schema=EXAMPLES))
            block, held = [], 0
    writer.add(pa.Table.from_pylist(block, schema=EXAMPLES))
    writer.flush()
    return Staged(writer.pieces, counts)


TO_DISTILL, NO_THOUGHT = "to_distill", "no_thought"
"""Examples that teach to distill, and those of them without a chain of thought."""


def _teaches(example: Example) -> list[str]:
    if not example.turns or example.turns[0] != Turn("system", SYSTEM):
        return []
    is_thought = example.turns[-1].content.startswith("<think>")
    return [TO_DISTILL] if is_thought else [TO_DISTILL, NO_THOUGHT]


def _examples(shares: Sequence[Share]) -> Iterator[Example]:
    for share in shares:
        yield from read_examples(share)


def _staged_row(example: Example, partitions: int) -> dict[str, Any]:
    return {
        "partition": bucket_of(example.key, partitions),
        "example": example.key,
        "turns": [turn._asdict() for turn in example.turns] or None,
        "place": example.place,
        "reason": example.reason,
    }
