"""Tokenize: conversations → the table ``tokens``, and a token set that training reads.

Tasks read what is to be learned; it is brought together by content (``mixup.stages.pieces``), so
that equal rows are one example; other tasks tokenize the examples that the table does not hold for
this tokenizer, template and window. Then an index is written of where the set's rows lie: row n of
a set is its n-th key, however the table is divided into files.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from blake3 import blake3

from mixup.commits import Completion
from mixup.errors import MixupError
from mixup.ledger import StageCounts
from mixup.models.tokenizing import Encoding, example_tokenizer
from mixup.records import TABLES, TOKEN_INDEX, TOKEN_SETS, Turn, bucket_of, content_key
from mixup.stages.compact import compact
from mixup.stages.examples import EXAMPLES, Example, Share, Source, read_examples, shares_of
from mixup.stages.manifests import Manifest, commit_stream
from mixup.stages.pieces import STAGING, Piece, PieceWriter, by_partition, staging
from mixup.stages.run import RunContext, Stopwatch
from mixup.stages.streams import UNREACHABLE
from mixup.stages.waves import Staged, writing_tasks
from mixup.stages.writing import Output, uid_range
from mixup.tables import Snapshot, scan_files, snapshot
from mixup.workspace import Workspace

logger = logging.getLogger(__name__)

KEPT, DUPLICATE = "kept", "duplicate"
_PARTITION_BYTES = 128_000_000
_SHARE_BYTES = 64_000_000
_BLOCK_ROWS = 1024
_BLOCK_CHARS = 4_000_000


@dataclass(frozen=True)
class TokenSet:
    """What a training job learns from.

    Attributes:
        name: Its folder below ``TOKEN_SETS``: a key of its sources and its encoding.
        revision: A key of its examples and its encoding: equal for equal rows in equal places.
        encoding: The encoding's revision.
        rows: Its rows.
        tokens: Their tokens.
        learned: The tokens among them that are in the loss.
        counts: Of the rows that were read: ``kept``, ``duplicate``, and those left out by reason.
        files: The files of the table ``tokens`` that it reads.
    """

    name: str
    revision: str
    encoding: str
    rows: int
    tokens: int
    learned: int
    counts: Mapping[str, int]
    files: tuple[str, ...]

    @property
    def left_out(self) -> dict[str, int]:
        """The rows that are not learned from, by reason; duplicates are not among them."""
        return {name: n for name, n in self.counts.items() if n and name not in (KEPT, DUPLICATE)}


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
        totals += commit_stream(
            context.each(tokenize_pieces, work, [(group,) for group in writing_tasks(pieces)]),
            context.committer("tokens"),
            stage="tokenize",
            unit="examples",
            stall=context.stall(tokenize_pieces.__name__),
        )
        counts = _counts(totals, watch)
        compact(context, "tokens")
        return _index(context, work, pieces, set_name(sources, work.revision), counts)


def set_name(sources: Sequence[Source], revision: str) -> str:
    """The name of the token set of some sources under an encoding's revision."""
    return content_key("token set", sorted(source.key for source in sources), revision)[:16]


def stored_set(
    workspace: Workspace, sources: Sequence[Source], encoding: Encoding
) -> TokenSet | None:
    """The token set of some sources, if it is there and the table still has the files it reads."""
    name = set_name(sources, encoding.revision())
    document = workspace.read_json(f"{TOKEN_SETS}/{name}/set.json")
    if document is None or document["counts"].get(UNREACHABLE):
        return None
    found = TokenSet(**{**document, "files": tuple(document["files"])})
    return found if set(found.files) <= set(snapshot(workspace, "tokens").paths) else None


def _stage(context: RunContext, work: Tokenizing) -> tuple[list[Piece], Counter[str]]:
    pieces: list[Piece] = []
    totals: Counter[str] = Counter()
    for done in context.each(stage_examples, work, list(_reading_tasks(work.shares))):
        pieces.extend(done.pieces)
        totals.update(done.counts)
    return pieces, totals


def _reading_tasks(shares: Sequence[Share]) -> Iterator[tuple[int, int]]:
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
        block.append(_staged_row(example, work.partitions))
        held += sum(len(turn.content) for turn in example.turns)
        if len(block) == _BLOCK_ROWS or held >= _BLOCK_CHARS:
            writer.add(pa.Table.from_pylist(block, schema=EXAMPLES))
            block, held = [], 0
    writer.add(pa.Table.from_pylist(block, schema=EXAMPLES))
    writer.flush()
    return Staged(writer.pieces, counts)


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


def _index(
    context: RunContext, work: Tokenizing, pieces: Sequence[Piece], name: str, counts: StageCounts
) -> TokenSet:
    """Write the index and the description of the set, and the stage's completion."""
    workspace = context.workspace
    by_bucket: dict[int, list[Piece]] = defaultdict(list)
    for partition, own in by_partition(pieces).items():
        by_bucket[work.bucket(partition)].extend(own)
    now = snapshot(workspace, "tokens")
    folder = f"{TOKEN_SETS}/{name}"
    with workspace.staged_folder(folder) as staged:
        calls = [(now, staged, bucket, by_bucket[bucket]) for bucket in sorted(by_bucket)]
        parts = sorted(context.each(index_bucket, work, calls), key=lambda part: part.bucket)
        if workspace.is_local and workspace.exists(folder):  # of files that are no more
            workspace.filesystem()[0].delete_dir(workspace.path(folder))
    found = TokenSet(
        name=name,
        revision=content_key(work.revision, [part.keys for part in parts if part.rows]),
        encoding=work.revision,
        rows=sum(part.rows for part in parts),
        tokens=sum(part.tokens for part in parts),
        learned=sum(part.learned for part in parts),
        counts=dict(counts.parts),
        files=tuple(file for part in parts for file in part.files),
    )
    workspace.write_json(f"{folder}/set.json", asdict(found))
    done = Completion("tokenize", name, {}, dict(counts.parts), context.run)
    context.committer("tokens").complete("tokens", done)
    return found


@dataclass(frozen=True)
class IndexPart:
    """What the index of a bucket came to; ``keys`` is a hash of its keys in order."""

    bucket: int
    keys: str
    rows: int
    tokens: int
    learned: int
    files: tuple[str, ...]


def index_bucket(
    work: Tokenizing, now: Snapshot, folder: str, bucket: int, pieces: Sequence[Piece]
) -> IndexPart:
    """Write the index of the set's rows of one bucket; runs in a worker."""
    parts = [piece.read(work.workspace, ["example"])["example"] for piece in pieces]
    members = pc.unique(pa.chunked_array([chunk for part in parts for chunk in part.chunks]))
    found = [TOKEN_INDEX.empty_table()]
    for path in now.in_bucket(bucket):
        columns = ["example", "encoding", "reason", "length", "learned"]
        for group, rows in enumerate(scan_files(work.workspace, "tokens", [path], columns)):
            found.append(_places(rows, members, work.revision, path, group))
    index = pa.concat_tables(found).sort_by("example")
    if index.num_rows:
        filesystem, _ = work.workspace.filesystem()
        target = f"{folder}/index-{bucket:05d}.parquet"
        with work.workspace.writing(target):
            pq.write_table(index, target, filesystem=filesystem, compression="zstd")
    keys = blake3("".join(index["example"].to_pylist()).encode()).hexdigest(length=16)
    tokens, learned = (pc.sum(index[name]).as_py() or 0 for name in ("length", "learned"))
    files = tuple(sorted(set(index["file"].to_pylist())))
    return IndexPart(bucket, keys, index.num_rows, tokens, learned, files)


def _places(rows: pa.Table, members: pa.Array, revision: str, path: str, group: int) -> pa.Table:
    """The index of those rows of a row group that are the set's."""
    place = pa.array(np.arange(rows.num_rows, dtype=np.int32))
    mine = pc.and_(pc.equal(rows["encoding"], revision), pc.is_null(rows["reason"]))
    mine = pc.and_(mine, pc.is_in(rows["example"], members))
    rows = rows.append_column("row", place).filter(mine)
    learned = [_span_tokens(spans) for spans in rows["learned"].to_pylist()]
    columns = {
        "example": rows["example"],
        "file": pa.array([path] * rows.num_rows, pa.string()),
        "group": pa.array([group] * rows.num_rows, pa.int32()),
        "row": rows["row"],
        "length": rows["length"],
        "learned": pa.array(learned, pa.int32()),
    }
    return pa.table(columns).select(TOKEN_INDEX.names).cast(TOKEN_INDEX)


def _span_tokens(spans: Sequence[int]) -> int:
    return sum(spans[1::2]) - sum(spans[::2])
