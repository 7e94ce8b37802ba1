"""Prompts: MIXTURE's pairs → a prompt set, which the GRPO loop draws its prompts from.

Tasks read the pairs and write those whose prompt fits, in the order of the source: row n of a set
is decided by the source and the tokenizer alone. What is left out is counted by its reason.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from mixup.errors import MixupError, RecordError
from mixup.ledger import StageCounts
from mixup.mixture.schemas import (
    MixtureRecord,
    messages_of,
    read_record,
    task_in_name,
)
from mixup.models.chat import PROMPT_TOO_LONG, render_chat
from mixup.models.folders import tokenizer_revision
from mixup.records import PROMPT_ROWS, PROMPT_SETS, content_key
from mixup.stages.examples import MixtureSplit, Share, Source, shares_of, stored_pairs
from mixup.stages.rows import read_rows
from mixup.stages.run import RunContext, Stopwatch
from mixup.stages.sources import Chunk
from mixup.stages.streams import UNREACHABLE
from mixup.text.formats import decode_line
from mixup.text.prompts import neutralize_tags, prompt_revision
from mixup.workspace import Workspace

logger = logging.getLogger(__name__)

KEPT = "kept"
_BLOCK_ROWS = 64  # the loop reads single rows, in a shuffled order
_BLANK = re.compile(r"\n[ \t]*\n")
_KEY = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class PromptSet:
    """What the GRPO loop draws its prompts from.

    Attributes:
        name: Its folder below ``PROMPT_SETS``: a key of its source, the tokenizer and the limit.
        rows: Its rows.
        counts: Of the pairs that were read: ``kept``, and those left out by reason.
    """

    name: str
    rows: int
    counts: Mapping[str, int]

    @property
    def left_out(self) -> dict[str, int]:
        """The pairs that are not asked, by reason."""
        return {name: n for name, n in self.counts.items() if n and name != KEPT}


@dataclass(frozen=True)
class Prompting:
    """What the tasks share.

    Attributes:
        workspace: The workspace.
        folder: Where the set is written, as the workspace's file system spells it.
        model: Whose tokenizer and chat template render the prompts.
        max_tokens: The longest prompt.
        shares: What is read.
    """

    workspace: Workspace
    folder: str
    model: str
    max_tokens: int
    shares: tuple[Share, ...]


def make_prompts(context: RunContext, source: Source, model: str, max_tokens: int) -> PromptSet:
    """Make the prompt set of a source; nothing where it is there already.

    Args:
        context: The run.
        source: Where the pairs are.
        model: Whose tokenizer and chat template render the prompts.
        max_tokens: The longest prompt.

    Raises:
        MixupError: If no pair is left.
        LedgerError: If a pair is neither kept nor left out for a reason.
    """
    watch, workspace = Stopwatch(), context.workspace
    if (found := stored_prompts(workspace, source, model, max_tokens)) is not None:
        logger.info("prompts: nothing to do, prompt set %s has %d rows", found.name, found.rows)
        return found
    name, totals = prompts_name(source, model, max_tokens), Counter[str]()
    folder, shares = f"{PROMPT_SETS}/{name}", tuple(shares_of([source]))
    if workspace.is_local and workspace.exists(folder):  # without its description: not whole
        workspace.filesystem()[0].delete_dir(workspace.path(folder))
    with workspace.staged_folder(folder) as staged:
        work = Prompting(workspace, staged, model, max_tokens, shares)
        for counts in context.each(write_prompts, work, [(place,) for place in range(len(shares))]):
            totals.update(counts)
    dropped = tuple(sorted(set(totals) - {KEPT, "rows"}))
    done = StageCounts(
        stage="prompts",
        unit="pairs",
        rows_in=totals["rows"],
        parts={KEPT: totals[KEPT], **{reason: totals[reason] for reason in dropped}},
        dropped=dropped,
        seconds=watch.seconds,
    ).check()
    if not totals[KEPT]:
        raise MixupError(
            f"none of {totals['rows']} pairs can be asked: "
            f"{ {reason: totals[reason] for reason in dropped} }; mend the data, or raise "
            "prompts.max_tokens if they are too long"
        )
    found = PromptSet(name, totals[KEPT], dict(done.parts))
    workspace.write_json(f"{folder}/set.json", asdict(found))
    done.log()
    return found


def prompts_name(source: Source, model: str, max_tokens: int) -> str:
    """The name of the prompt set of a source under a model's tokenizer."""
    decides = [prompt_revision(), tokenizer_revision(model), max_tokens]
    return content_key("prompt set", source.key, decides)[:16]


def stored_prompts(
    workspace: Workspace, source: Source, model: str, max_tokens: int
) -> PromptSet | None:
    """The prompt set of a source, if it is there and all of the source could be read for it."""
    name = prompts_name(source, model, max_tokens)
    document = workspace.read_json(f"{PROMPT_SETS}/{name}/set.json")
    if document is None or document["counts"].get(UNREACHABLE):
        return None
    return PromptSet(**document)


def write_prompts(work: Prompting, place: int) -> Counter[str]:
    """Write the rows of one share; how many pairs it has, and what became of them. In a worker."""
    counts: Counter[str] = Counter()
    target = f"{work.folder}/part-{place:06d}.parquet"
    filesystem, _ = work.workspace.filesystem()
    block: list[dict] = []
    with (
        work.workspace.writing(target),
        pq.ParquetWriter(target, PROMPT_ROWS, filesystem=filesystem, compression="zstd") as writer,
    ):
        for found in _records(work.shares[place]):
            row = found if isinstance(found, str) else _row(found, work)
            counts.update(("rows", row if isinstance(row, str) else KEPT))
            if not isinstance(row, str):
                block.append(row)
            if len(block) == _BLOCK_ROWS:
                writer.write_table(pa.Table.from_pylist(block, schema=PROMPT_ROWS))
                block = []
        if block:
            writer.write_table(pa.Table.from_pylist(block, schema=PROMPT_ROWS))
    return counts


def _row(record: MixtureRecord, work: Prompting) -> dict | str:
    """The set's row of a record, or why it has none."""
    system, user, _ = messages_of(record)
    tokens = len(render_chat(work.model, [system, user]))
    if tokens > work.max_tokens:
        return PROMPT_TOO_LONG
    return {
        "pair": _key(record),
        "task": record.task,
        "system": system["content"],
        "user": user["content"],
        "items": items_of(record.input),
        "target": record.output.strip(),
        "tokens": tokens,
    }


def _key(record: MixtureRecord) -> str:
    """Its id where that is a key, as ours are; others' may be numbers that come in each file."""
    if _KEY.fullmatch(record.id):
        return record.id
    return content_key("pair", record.id, record.input, record.output)


def items_of(text: str) -> list[str]:
    """What an answer should cover of a linearized group: its parts between blank lines.

    An item that holds a blank line itself comes in several parts, which are to be covered as well.
    """
    parts = [neutralize_tags(part.strip()) for part in _BLANK.split(text)]
    return [part for part in parts if part]


def _records(share: Share) -> Iterator[MixtureRecord | str]:
    """The records of a share, or why a row is none."""
    source = share.source
    if isinstance(source, MixtureSplit):
        yield from stored_pairs(source, share.part)
    elif isinstance(share.part, Chunk):
        task = task_in_name(share.part.file.name)
        for row in read_rows(share.part, max_row_bytes=source.max_row_bytes):
            try:
                if row.reason:
                    raise RecordError(row.reason, row.detail)
                value = row.value if row.value is not None else decode_line(row.raw)
                yield read_record(value, task=task)
            except RecordError as error:
                yield error.reason
