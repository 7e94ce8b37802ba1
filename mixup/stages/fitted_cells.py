"""The fitted cells of a workspace: kept from night to night, split where they grow, refit on drift.

The artifact is ``fitted/cells/REVISION.npz``; ``fitted/cells.json``
points to it and holds what is needed to decide whether it is still right.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow.compute as pc

from mixup.clusters.cells import BY_CENTROID, ROOT, Cells, drift
from mixup.clusters.partition import CAP_ROWS, FULL_ROWS, fit_cells, sample_rows
from mixup.records import content_key
from mixup.stages.cell import CellSettings
from mixup.stages.cell_division import divisions
from mixup.stages.manifests import Manifest, commit_stream
from mixup.stages.placing import PlacedBucket, Placement, place_bucket
from mixup.stages.pool_rows import drawn_vectors, is_usable
from mixup.stages.run import RunContext
from mixup.tables import Snapshot, scan_files, snapshot
from mixup.workspace import Workspace

logger = logging.getLogger(__name__)

REFIT_AT = 0.25
"""The drift at which cells are fitted anew (``clusters.cells.drift``)."""

_NOTHING = Cells(
    np.ones((1, 1), np.float32), np.array([0]), np.array([-1]), np.array([BY_CENTROID]), 1.0
)
"""The cells of a pool without any vector; never kept."""

_POINTER = "fitted/cells.json"
_DRIFT_ROWS = 1000


@dataclass(frozen=True)
class FittedCells:
    """The cells in use.

    Attributes:
        fit: The key of the cells as they were fitted, before any split.
        cells: The tree as it is now.
        new: Rows that were placed since the fit, the first ones left out.
        similarity: The sum of their cosine similarities to the centroids of their cells.
    """

    fit: str
    cells: Cells
    new: int = 0
    similarity: float = 0.0

    @property
    def is_told(self) -> bool:
        """Whether there are enough new rows to tell how far they lie from the cells."""
        return self.new >= _DRIFT_ROWS

    @property
    def drift(self) -> float:
        """How far the pool has moved since the fit; a few rows do not move it."""
        mean = self.similarity / self.new if self.is_told else self.cells.similarity
        return drift(mean, self.cells)

    def with_new(self, placement: Placement) -> FittedCells:
        """The same after some rows were placed in them."""
        return replace(
            self,
            new=self.new + placement.new,
            similarity=self.similarity + placement.similarity,
        )


def place_pool(
    context: RunContext, settings: CellSettings, tables: Mapping[str, Snapshot]
) -> tuple[FittedCells, Placement, Snapshot]:
    """Place every row of the pool in cells that are right for it.

    Returns:
        The cells, what is known of each of them, and the table of places.
    """
    workspace = context.workspace
    fitted, is_new = load_cells(workspace, settings), False
    if fitted is None or fitted.drift >= REFIT_AT:
        if fitted is not None:
            logger.info("cells: drift %.2f, fitting them anew", fitted.drift)
        fitted, is_new = _fitted_anew(context, settings, tables), True
    placing = _Placing(workspace, tables, context.pool, settings, fitted)
    placement = _place(context, placing)
    if not is_new and ROOT in _over(placement, settings):
        # Parts of what was one cell would have no borders: nothing was there to fit them on.
        logger.info("cells: the pool has outgrown its one cell, fitting cells")
        placing = replace(placing, fitted=_fitted_anew(context, settings, tables))
        placement = _place(context, placing)
    elif not is_new:
        placing = replace(placing, fitted=fitted.with_new(placement))
    while over := _over(placement, settings):
        placing = replace(placing, fitted=_split(context, placing, over))
        placement = _place(context, placing)
    fitted = placing.fitted
    _save(workspace, fitted, settings)
    return fitted, placement, snapshot(workspace, "places")


def load_cells(workspace: Workspace, settings: CellSettings) -> FittedCells | None:
    """The kept cells; None where there are none for these settings."""
    pointer = workspace.read_json(_POINTER)
    if pointer is None or pointer["decides"] != _decides(settings):
        return None
    filesystem, root = workspace.filesystem()
    with filesystem.open_input_file(f"{root}/{_path(pointer['revision'])}") as file:
        arrays = np.load(io.BytesIO(file.read()), allow_pickle=False)
        cells = Cells.from_arrays(dict(arrays))
    return FittedCells(pointer["fit"], cells, pointer["new"], pointer["similarity"])


def _decides(settings: CellSettings) -> str:
    return content_key(settings.encoder, settings.curate.cell_rows, settings.curate.cell_copies)


def _path(revision: str) -> str:
    return f"fitted/cells/{revision}.npz"


def _save(workspace: Workspace, fitted: FittedCells, settings: CellSettings) -> None:
    cells = fitted.cells
    if cells.revision == _NOTHING.revision:
        return
    if not workspace.exists(_path(cells.revision)):
        sink = io.BytesIO()
        arrays: dict[str, Any] = dict(cells.to_arrays())
        np.savez_compressed(sink, **arrays)
        workspace.write_bytes(_path(cells.revision), sink.getvalue())
    pointer = {
        "decides": _decides(settings),
        "revision": cells.revision,
        "fit": fitted.fit,
        "new": fitted.new,
        "similarity": fitted.similarity,
    }
    before = workspace.read_json(_POINTER)
    if before != pointer:
        workspace.write_json(_POINTER, pointer)
    if before is not None and before["revision"] != cells.revision:
        filesystem, root = workspace.filesystem()
        with suppress(FileNotFoundError):
            filesystem.delete_file(f"{root}/{_path(before['revision'])}")


@dataclass(frozen=True)
class _Placing:
    """What the tasks share."""

    workspace: Workspace
    tables: Mapping[str, Snapshot]
    pool: Sequence[str]
    settings: CellSettings
    fitted: FittedCells


def _fitted_anew(
    context: RunContext, settings: CellSettings, tables: Mapping[str, Snapshot]
) -> FittedCells:
    """Cells fitted on the pool as it is, which are the workspace's from now on."""
    cells = next(context.each(fit_on_sample, context.workspace, [(tables, settings)]))
    fitted = FittedCells(cells.revision, cells)
    _save(context.workspace, fitted, settings)
    return fitted


def fit_on_sample(
    workspace: Workspace, tables: Mapping[str, Snapshot], settings: CellSettings
) -> Cells:
    """Fit cells for all rows that have a vector; runs in a worker."""
    rows, cap = _usable_rows(workspace, tables, settings), settings.curate.cell_rows
    full = cap if rows <= cap else max(1, round(cap * FULL_ROWS / CAP_ROWS))
    share = sample_rows(rows, full_rows=full) / max(rows, 1)
    uids, vectors = drawn_vectors(workspace, tables, settings, share)
    if not uids:  # nothing has a vector, or a draw of very few rows came out empty
        uids, vectors = drawn_vectors(workspace, tables, settings, 1.0)
    if not uids:
        return _NOTHING
    copies = settings.curate.cell_copies
    return fit_cells(vectors, rows=max(rows, 1), full_rows=full, copies=copies)


def _usable_rows(
    workspace: Workspace, tables: Mapping[str, Snapshot], settings: CellSettings
) -> int:
    parts = scan_files(workspace, "embeddings", tables["embeddings"].paths, ["encoder", "reason"])
    return sum(pc.sum(is_usable(part, settings)).as_py() or 0 for part in parts)


def _place(context: RunContext, placing: _Placing) -> Placement:
    """Place what has no place yet; commits the table of places."""
    placement = Placement()
    places = snapshot(context.workspace, "places")
    placing = replace(placing, tables={**placing.tables, "places": places})
    buckets = [(bucket,) for bucket in placing.tables["occurrences"].files]

    def placed() -> Iterator[Manifest]:
        for done in context.each(_place_bucket, placing, buckets):
            placement.add(done.placement)
            removed = {"places": done.removed} if done.removed else {}
            yield Manifest(done.files, removed, {"rows": done.placement.rows})

    commit_stream(placed(), context.committer("places"), stage="place", unit="rows")
    return placement


def _place_bucket(placing: _Placing, bucket: int | None) -> PlacedBucket:
    return place_bucket(
        placing.workspace,
        placing.tables,
        bucket,
        placing.pool,
        placing.settings,
        placing.fitted.cells,
        placing.fitted.fit,
    )


def _over(placement: Placement, settings: CellSettings) -> list[int]:
    cap = settings.curate.cell_rows
    return sorted(cell for cell, found in placement.cells.items() if found.rows > cap)


def _split(context: RunContext, placing: _Placing, over: Sequence[int]) -> FittedCells:
    """Divide the cells that are over the cap."""
    places = snapshot(context.workspace, "places")
    tables = {**placing.tables, "places": places}
    found = divisions(context, tables, placing.settings, over)
    cells = placing.fitted.cells
    for cell in over:  # ascending, so that ids do not depend on which was divided first
        cells = cells.with_split(cell, found[cell])
    logger.info("cells: %d split, %d in all", len(over), len(cells.ids))
    return replace(placing.fitted, cells=cells)
