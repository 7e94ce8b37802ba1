"""The way back of mixing: outcomes of cells → the buckets of the tables.

A bucket keeps the rows of cells that were not done, takes those of cells that were, and is written
as one file; where nothing differs it is left alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from mixup.errors import LedgerError
from mixup.stages.manifests import Manifest
from mixup.stages.mix_rows import MixWork
from mixup.stages.outcomes import NO_EMBEDDING, of_cells, read_pieces, written
from mixup.stages.pieces import Piece
from mixup.stages.pool_rows import pool_rows
from mixup.tables import read_files

PAIRED = "paired"


def gather(work: MixWork, table: str, bucket: int, pieces: Sequence[Piece]) -> Manifest:
    """Write the outcomes of one bucket of a table, where they differ; runs in a worker.

    Raises:
        LedgerError: If a row of the pool has no outcome, or two.
    """
    workspace = work.workspace
    paths = work.tables[table].in_bucket(bucket)
    before = read_files(workspace, table, paths)
    now = pa.concat_tables([of_cells(before, work.others), read_pieces(workspace, table, pieces)])
    if table == "targets":
        now = _with_blind(now, work, bucket)
    return written(workspace, table, bucket, before, now, paths, _counts(table, now))


def _with_blind(now: pa.Table, work: MixWork, bucket: int) -> pa.Table:
    """The outcomes with those of rows that have no vector, and so no cell."""
    rows = pool_rows(work.workspace, work.tables, bucket, work.pool, work.settings.cells)
    usable = rows.filter(rows["usable"])["uid"].combine_chunks()
    blind = rows.filter(pc.invert(rows["usable"]))["uid"].to_pylist()
    made = [{"uid": uid, "reason": NO_EMBEDDING} for uid in blind]
    now = now.filter(pc.is_in(now["uid"], usable))
    now = pa.concat_tables([now, pa.Table.from_pylist(made, schema=now.schema)])
    if sorted(now["uid"].to_pylist()) != sorted(rows["uid"].to_pylist()):
        raise LedgerError(f"bucket {bucket}: {rows.num_rows} rows, {now.num_rows} outcomes")
    return now


def _counts(table: str, rows: pa.Table) -> Counter[str]:
    if table == "mixture":
        rules = Counter(rows["rule"].to_pylist())
        return Counter(pairs=rows.num_rows, fused=rules["fused"])
    found = Counter(reason or "" for reason in rows["reason"].to_pylist())
    paired = found.pop("", 0)
    by_reason = {f"reason:{reason}": count for reason, count in found.items()}
    return Counter({"rows": rows.num_rows, PAIRED: paired, **by_reason})
