"""Division of cells that outgrew the cap: their rows are brought together, and each is divided.

The rows of all such cells are read once, however many cells there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixup.clusters.cells import Cells
from mixup.clusters.partition import split_over_cap
from mixup.errors import TableError
from mixup.stages.cell import CellSettings
from mixup.stages.embed import vectors_from_arrow
from mixup.stages.pieces import STAGING, Piece, PieceWriter, by_partition, staging
from mixup.stages.pool_rows import rows_of_uids, vectors_of
from mixup.stages.run import RunContext
from mixup.tables import Snapshot, read_files
from mixup.workspace import Workspace


@dataclass(frozen=True)
class _Division:
    """What the tasks share."""

    workspace: Workspace
    tables: Mapping[str, Snapshot]
    settings: CellSettings
    cells: Sequence[int]
    folder: str


def divisions(
    context: RunContext,
    tables: Mapping[str, Snapshot],
    settings: CellSettings,
    cells: Sequence[int],
) -> dict[int, Cells]:
    """How each of some cells, which are over the cap, is to be divided.

    Args:
        context: The run.
        tables: The tables, places among them.
        settings: What decides.
        cells: The ids of the cells.

    Raises:
        TableError: If a cell has too few rows to be divided: the places were not as counted.
    """
    folder = f"{STAGING}/{context.run}-divided"
    work = _Division(context.workspace, tables, settings, cells, folder)
    with staging(context.workspace, folder):
        buckets = [(bucket,) for bucket in tables["places"].files]
        pieces = by_partition(chain.from_iterable(context.each(_stage_bucket, work, buckets)))
        return dict(context.each(_divide, work, [(cell, pieces[cell]) for cell in cells]))


def _stage_bucket(work: _Division, bucket: int | None) -> list[Piece]:
    """Write the vectors of one bucket's rows as pieces of their cells; runs in a worker."""
    paths = work.tables["places"].in_bucket(bucket)
    places = read_files(work.workspace, "places", paths, ["uid", "cell"])
    places = places.filter(pc.is_in(places["cell"], pa.array(sorted(work.cells), pa.int32())))
    writer = PieceWriter(work.workspace, work.folder, f"{0 if bucket is None else bucket:05d}")
    wanted = places["uid"].combine_chunks()
    for part in vectors_of(work.workspace, work.tables, bucket, wanted, work.settings):
        at = rows_of_uids(part["uid"].combine_chunks(), places)
        writer.add(part.append_column("partition", places["cell"].combine_chunks().take(at)))
    writer.flush()
    return writer.pieces


def _divide(work: _Division, cell: int, pieces: Sequence[Piece]) -> tuple[int, Cells]:
    """Divide one cell; runs in a worker."""
    uids: list[str] = []
    vectors: list[np.ndarray] = []
    for piece in pieces:
        rows = piece.read(work.workspace)
        uids += rows["uid"].to_pylist()
        vectors.append(vectors_from_arrow(rows["vector"]))
    cap = work.settings.curate.cell_rows
    division = split_over_cap(np.concatenate(vectors), uids, cap=cap) if uids else None
    if division is None:
        raise TableError(f"cell {cell} holds {len(uids)} rows and was counted as over the cap")
    return cell, division
