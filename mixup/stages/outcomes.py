"""The way back of curation: outcomes of cells → the buckets of the tables.

A bucket keeps the rows of cells that were not done, takes those of cells that were, and is written
as one file; where nothing differs it is left alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from mixup.commits import write_file
from mixup.errors import LedgerError
from mixup.records import TABLES
from mixup.stages.cell_rows import CurationWork
from mixup.stages.curate_cell import UNRATED
from mixup.stages.manifests import Manifest
from mixup.stages.pieces import Piece
from mixup.stages.pool_rows import pool_rows
from mixup.tables import read_files
from mixup.workspace import Workspace

NO_EMBEDDING = "no_embedding"
RATINGS_TESTED = ("ratings_tested", "ratings_suspicious", "ratings_replaced")


def gather_curation(work: CurationWork, bucket: int, pieces: Sequence[Piece]) -> Manifest:
    """The curation of one bucket's records; runs in a worker.

    Args:
        work: The tables as they were, and which cells were done; the others' rows stay.
        bucket: The bucket.
        pieces: The rows of the cells that were done.

    Raises:
        LedgerError: If a row of the pool has no outcome, or two.
    """
    workspace = work.workspace
    rows = pool_rows(workspace, work.tables, bucket, work.pool, work.settings)
    usable = rows.filter(rows["usable"])["uid"]
    paths = work.tables["curation"].in_bucket(bucket)
    before = read_files(workspace, "curation", paths)
    kept = before.filter(pc.is_in(before["uid"], usable.combine_chunks()))
    kept = of_cells(kept, work.others)
    blind = rows.filter(pc.invert(rows["usable"]))
    now = pa.concat_tables([kept, read_pieces(workspace, "curation", pieces), _blind_rows(blind)])
    if sorted(now["uid"].to_pylist()) != sorted(rows["uid"].to_pylist()):
        raise LedgerError(f"bucket {bucket}: {rows.num_rows} rows, {now.num_rows} outcomes")
    counts = {"rows": now.num_rows, "low": 0, **_counts(now)}
    return written(workspace, "curation", bucket, before, now, paths, counts)


def gather_clusters(work: CurationWork, bucket: int, pieces: Sequence[Piece]) -> Manifest:
    """The clusters of one bucket; runs in a worker. Arguments as in ``gather_curation``."""
    workspace, paths = work.workspace, work.tables["clusters"].in_bucket(bucket)
    before = read_files(workspace, "clusters", paths)
    kept = of_cells(before, work.others)
    now = pa.concat_tables([kept, read_pieces(workspace, "clusters", pieces)])
    old = set(before["cluster"].to_pylist())
    stay = sum(key in old for key in now["cluster"].to_pylist())
    counts = {
        "clusters": now.num_rows,
        "kept": stay,
        "new": now.num_rows - stay,
        "dissolved": len(old) - stay,
    }
    return written(workspace, "clusters", bucket, before, now, paths, counts)


def of_cells(rows: pa.Table, cells: Collection[int]) -> pa.Table:
    """The rows that are at home in some cells."""
    return rows.filter(pc.is_in(rows["cell"], pa.array(sorted(cells), pa.int32())))


def read_pieces(workspace: Workspace, table: str, pieces: Sequence[Piece]) -> pa.Table:
    """The rows of a table in some pieces, file by file."""
    schema = TABLES[table].file_schema
    ordered = sorted(pieces, key=lambda piece: piece.path)
    parts = [piece.read(workspace).select(schema.names) for piece in ordered]
    return pa.concat_tables([schema.empty_table(), *parts])


def _blind_rows(rows: pa.Table) -> pa.Table:
    """The outcomes of records without a vector, which have no cell."""
    made = [
        {"uid": uid, "tier": UNRATED, "reason": NO_EMBEDDING} for uid in rows["uid"].to_pylist()
    ]
    return pa.Table.from_pylist(made, schema=TABLES["curation"].file_schema)


def _counts(curation: pa.Table) -> Counter[str]:
    """Rows by tier, low ones by what became of them; and ratings by what their test said."""
    counts = Counter(curation["tier"].to_pylist())
    tested = curation["suspicious"]
    replaced = pc.equal(curation["rating_origin"], "neighbors")
    found = [pc.sum(pc.is_valid(tested)), pc.sum(tested), pc.sum(replaced)]
    counts.update(
        {name: count.as_py() or 0 for name, count in zip(RATINGS_TESTED, found, strict=True)}
    )
    low = curation.filter(pc.equal(curation["tier"], "low"))
    counts.update(reason or "members" for reason in low["reason"].to_pylist())
    return counts


def written(
    workspace: Workspace,
    table: str,
    bucket: int | None,
    before: pa.Table,
    now: pa.Table,
    paths: Sequence[str],
    counts: Mapping[str, int],
) -> Manifest:
    """Write the rows of one bucket in place of those before, unless they are the same."""
    key = TABLES[table].key[0]
    if now.sort_by(key).equals(before.sort_by(key)):
        return Manifest(counts=counts)
    files = [write_file(workspace, table, now, bucket)] if now.num_rows else []
    return Manifest(files, {table: paths} if paths else {}, counts)
