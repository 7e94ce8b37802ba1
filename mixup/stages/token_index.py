"""The index of a token set: where its rows lie in the table ``tokens``.

Row n of a set is its n-th key, however the table is divided into files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from blake3 import blake3

from mixup.commits import Completion
from mixup.ledger import StageCounts
from mixup.records import TOKEN_INDEX, TOKEN_SETS, content_key
from mixup.stages.pieces import Piece, by_partition
from mixup.stages.run import RunContext
from mixup.stages.staged_examples import Tokenizing
from mixup.stages.token_sets import TokenSet
from mixup.tables import Snapshot, scan_files, snapshot


def write_index(
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
