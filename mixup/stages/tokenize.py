"""Tokenize: conversations → the table ``tokens``, and a token set that training reads.

Tasks read what is to be learned; it is brought together by content (``mixup.stages.pieces``), so
that equal rows are one example; other tasks tokenize the examples that the table does not hold for
this tokenizer, template and window. Then an index is written of where the set's rows lie.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc

from mixup.errors import MixupError
from mixup.ledger import StageCounts
from mixup.models.tokenizing import Encoding, example_tokenizer
from mixup.records import TABLES, Turn
from mixup.stages.compact import compact
from mixup.stages.examples import Source, shares_of
from mixup.stages.manifests import Manifest, commit_stream
from mixup.stages.pieces import STAGING, Piece, staging
from mixup.stages.run import RunContext, Stopwatch
from mixup.stages.staged_examples import (
    NO_THOUGHT,
    TO_DISTILL,
    Tokenizing,
    reading_tasks,
    stage_examples,
)
from mixup.stages.token_index import write_index
from mixup.stages.token_sets import DUPLICATE, KEPT, TokenSet, set_name, stored_set
from mixup.stages.waves import writing_tasks
from mixup.stages.writing import Output, uid_range
from mixup.tables import scan_files, snapshot

logger = logging.getLogger(__name__)

_PARTITION_BYTES = 128_000_000
_BLOCK_ROWS = 1024
_FEW = 0.2


def tokenize(context: RunContext, sources: Sequence[Source], encoding: Encoding) -> TokenSet:
    """Tokenize what the table lacks, and index the set; nothing of both where it is there already.

    Args:
        context: The run.
        sources: Where the conversations are; their set's order does not depend on theirs.
        encoding: How they become tokens.

    Raises:
        ConfigError: If the model cannot be trained on with this template.
        MixupError: If no row is left to learn from.
        LedgerError: If a row is neither kept, a duplicate nor left out for a reason.
    """
    watch = Stopwatch()
    if (found := stored_set(context.workspace, sources, encoding)) is not None:
        logger.info("tokenize: nothing to do, token set %s has %d rows", found.name, found.rows)
        return found
    example_tokenizer(encoding)  # what is wrong with it is said before anything starts
    context.committer("tokens")  # makes the table
    shares = tuple(shares_of(sources))
    size = sum(share.size for share in shares)
    buckets = context.workspace.buckets
    work = Tokenizing(
        workspace=context.workspace,
        encoding=encoding,
        revision=encoding.revision(),
        shares=shares,
        folder=f"{STAGING}/{context.run}-tokens",
        partitions=buckets * max(1, -(-size // (buckets * _PARTITION_BYTES))),
        known=snapshot(context.workspace, "tokens"),
    )
    with staging(context.workspace, work.folder):
        pieces, totals = _stage(context, work)
        _warn_of_no_thoughts(totals.pop(NO_THOUGHT, 0), totals.pop(TO_DISTILL, 0))
        totals += commit_stream(
            context.each(tokenize_pieces, work, [(group,) for group in writing_tasks(pieces)]),
            context.committer("tokens"),
            stage="tokenize",
            unit="examples",
            stall=context.stall(tokenize_pieces.__name__),
        )
        counts = _counts(totals, watch)
        compact(context, "tokens")
        return write_index(context, work, pieces, set_name(sources, work.revision), counts)


def _stage(context: RunContext, work: Tokenizing) -> tuple[list[Piece], Counter[str]]:
    pieces: list[Piece] = []
    totals: Counter[str] = Counter()
    for done in context.each(stage_examples, work, list(reading_tasks(work.shares))):
        pieces.extend(done.pieces)
        totals.update(done.counts)
    return pieces, totals


def _warn_of_no_thoughts(without: int, of: int) -> None:
    if without > _FEW * of:
        logger.warning(
            "tokenize: %d of %d examples that teach to distill have no chain of thought; "
            "distillation asks for one and refuses a sample without, and a model that learns from "
            "them leaves it out",
            *(without, of),
        )


def tokenize_pieces(work: Tokenizing, pieces: Sequence[Piece]) -> Manifest:
    """Tokenize what the table lacks of some partitions' examples; runs in a worker."""
    files, counts = [], Counter[str]()
    for partition, own in groupby(pieces, key=lambda piece: piece.partition):
        bucket = work.bucket(partition)
        output = Output(work.workspace, "tokens", bucket)
        outcome_of = _held(work, bucket, uid_range(partition, work.partitions))
        seen: set[str] = set()
        for piece in own:
            rows = piece.read(work.workspace)
            first = _first(rows["example"].to_pylist(), seen)
            counts.update({"examples": rows.num_rows, DUPLICATE: rows.num_rows - sum(first)})
            rows = rows.filter(pa.array(first, pa.bool_()))
            for start in range(0, rows.num_rows, _BLOCK_ROWS):
                part = rows.slice(start, _BLOCK_ROWS)
                keys = part["example"].to_pylist()
                counts.update(outcome_of[key] for key in keys if key in outcome_of)
                new = [key not in outcome_of for key in keys]
                made = _tokenized(work, part.filter(pa.array(new, pa.bool_())))
                counts.update(reason or KEPT for reason in made["reason"].to_pylist())
                output.add(made)
        files.extend(output.flush())
    return Manifest(files, counts=counts)


def _held(work: Tokenizing, bucket: int, span: tuple[str, str]) -> dict[str, str]:
    """The outcome, ``kept`` or a reason, of each example of a partition that the table holds."""
    found: dict[str, str] = {}
    columns = ["example", "encoding", "reason"]
    paths = work.known.in_bucket(bucket)
    for rows in scan_files(work.workspace, "tokens", paths, columns, within={"example": span}):
        mine = rows.filter(pc.equal(rows["encoding"], work.revision))
        reasons = [reason or KEPT for reason in mine["reason"].to_pylist()]
        found.update(zip(mine["example"].to_pylist(), reasons, strict=True))
    return found


def _first(keys: Sequence[str], seen: set[str]) -> list[bool]:
    """Which keys come for the first time; ``seen`` takes them."""
    first: list[bool] = []
    for key in keys:
        first.append(key not in seen)
        seen.add(key)
    return first


def _tokenized(work: Tokenizing, rows: pa.Table) -> pa.Table:
    """The rows of the table for some examples."""
    made = [
        {"example": key, "encoding": work.revision, "place": place, "reason": reason}
        for key, place, reason in zip(
            *(rows[name].to_pylist() for name in ("example", "place", "reason")), strict=True
        )
    ]
    good = [place for place, row in enumerate(made) if row["reason"] is None]
    turns = rows["turns"].to_pylist()
    conversations = [[Turn(**turn) for turn in turns[place]] for place in good]
    for place, found in zip(
        good, example_tokenizer(work.encoding).encode(conversations), strict=True
    ):
        made[place] |= found._asdict()
    return pa.Table.from_pylist(made, schema=TABLES["tokens"].file_schema)


def _counts(totals: Counter[str], watch: Stopwatch) -> StageCounts:
    """The ledger of the stage.

    Raises:
        MixupError: If nothing is kept.
    """
    parts = {name: n for name, n in totals.items() if name not in ("rows", "examples")}
    dropped = tuple(sorted(set(parts) - {KEPT, DUPLICATE}))
    counts = StageCounts(
        stage="tokenize",
        unit="rows",
        rows_in=totals["rows"],
        parts={KEPT: 0, DUPLICATE: 0, **parts},
        dropped=dropped,
        seconds=watch.seconds,
    ).check()
    if not counts.parts[KEPT]:
        raise MixupError(
            f"none of {counts.rows_in} rows can be learned from: "
            f"{ {name: counts.parts[name] for name in dropped} }; the table `tokens` has the place "
            "of each; mend the data, or raise the window if they are too long"
        )
    return counts.log()
