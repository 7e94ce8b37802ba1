"""Fitting the pool's own reference library: T and p from counts over cells, and the rows that vote.

Each cell counts the ratings of its rated rows and of their neighbors, near-duplicates left out; the
counts of all cells are summed. So the fit is linear in the pool, each cell is seen once, and no
task holds more than a cell and, at the end, the library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mixup.quality.transition import UNRATED
from mixup.stages.cell import Cell, CellSettings
from mixup.stages.cell_rows import cells_of
from mixup.stages.embed import vectors_to_arrow
from mixup.stages.pieces import Piece, PieceWriter
from mixup.stages.pool_fit import fit_pool
from mixup.stages.pool_rows import uniform
from mixup.stages.rating_counts import RatingCounts, count_rows
from mixup.stages.reference import fit_reference, save_reference
from mixup.stages.regression_fit import PANEL_ROWS, DrawnRows
from mixup.workspace import Workspace

LIBRARY_ROWS = 200_000
"""Most rows of a library, drawn by their keys: reward actors hold all of them."""

BALLOT_ROWS = 1_000_000
"""About so many rows have their ballots counted at most, which bounds what the driver holds."""


@dataclass(frozen=True)
class CountedCells:
    """The counts of some cells, and the rows of them that are in the library and in the panel."""

    counts: RatingCounts
    pieces: Sequence[Piece]
    panel: Sequence[Piece]

    def plus(self, other: CountedCells) -> CountedCells:
        """Both."""
        counts = RatingCounts.sum([self.counts, other.counts])
        pieces, panel = [*self.pieces, *other.pieces], [*self.panel, *other.panel]
        return CountedCells(counts, pieces, panel)


@dataclass(frozen=True)
class Shares:
    """Which shares of a pool's rows are drawn at a fit, by their keys.

    Attributes:
        library: Of the rated rows, for the library.
        ballots: Of all rows, for the ballots.
        panel: Of all rows, for the panel.
    """

    library: float
    ballots: float
    panel: float

    @classmethod
    def of(cls, *, rows: int, rated: int) -> Shares:
        """The shares of a pool of so many rows."""
        return cls(
            library=min(1.0, LIBRARY_ROWS / max(rated, 1)),
            ballots=min(1.0, BALLOT_ROWS / max(rows, 1)),
            panel=min(1.0, PANEL_ROWS / max(rows, 1)),
        )


def count_cells(
    workspace: Workspace,
    settings: CellSettings,
    pieces: Sequence[Piece],
    folder: str,
    shares: Shares,
) -> CountedCells:
    """Count the ratings of some cells, and draw rows of the library and of the panel.

    Runs in a worker.
    """
    parts: list[RatingCounts] = []
    name = f"{pieces[0].partition:07d}"
    library = PieceWriter(workspace, folder, f"library-{name}")
    panel = PieceWriter(workspace, folder, f"panel-{name}")
    for cell in cells_of(workspace, pieces):
        near, home = cell.visitors, len(cell.uids)
        vectors = cell.vectors_ND
        counted = count_rows(
            np.concatenate([vectors, near.vectors_MD]) if near.uids else vectors,
            np.concatenate([cell.ratings_N, near.ratings_M]),
            np.concatenate([cell.ages_N, near.ages_M]),
            [*cell.uids, *near.uids],
            home,
            settings,
            _cast(cell, settings, shares.ballots),
        )
        parts.append(counted.counts)
        _draw(library, cell, counted.voters[counted.voters < home], shares.library)
        if settings.curate.predictor == "regression":
            _draw(panel, cell, counted.cast, shares.panel)
    library.flush()
    panel.flush()
    return CountedCells(RatingCounts.sum(parts), library.pieces, panel.pieces)


def _cast(cell: Cell, settings: CellSettings, share: float) -> np.ndarray:
    """The rows of a cell, visitors included, that may become originals, of a share of all."""
    drawn = np.array([uniform(uid) < share for uid in cell.uids], dtype=bool)
    kept = drawn & ~cell.contaminated_N
    if settings.only_rated:
        kept &= cell.ratings_N != UNRATED
    return np.concatenate([kept, np.zeros(len(cell.visitors.uids), dtype=bool)])


def _draw(writer: PieceWriter, cell: Cell, rows: np.ndarray, share: float) -> None:
    drawn = [row for row in rows.tolist() if uniform(cell.uids[row]) < share]
    if drawn:
        columns = {
            "partition": pa.array([0] * len(drawn), pa.int32()),
            "uid": [cell.uids[row] for row in drawn],
            "rating": pa.array(cell.ratings_N[drawn], pa.int8()),
            "vector": vectors_to_arrow(cell.vectors_ND[drawn]),
        }
        writer.add(pa.table(columns))


def save_library(
    workspace: Workspace, settings: CellSettings, counted: CountedCells, rated: int
) -> None:
    """Make the library of what all cells counted the current one; runs in a worker.

    Args:
        workspace: The workspace.
        settings: What decides.
        counted: Of all cells.
        rated: How many rows of the pool are rated, near-duplicates among them.
    """
    library = DrawnRows.read(workspace, counted.pieces)
    panel = DrawnRows.read(workspace, counted.panel) if counted.panel else library.none()
    save_library_of(workspace, settings, counted.counts, library, panel, rated=rated)


def save_library_of(
    workspace: Workspace,
    settings: CellSettings,
    counts: RatingCounts,
    library: DrawnRows,
    panel: DrawnRows,
    *,
    rated: int,
) -> None:
    """Make the library of some rated rows, and of what was counted, the current one.

    Args:
        workspace: The workspace.
        settings: What decides.
        counts: Of all rows.
        library: The rated rows that vote.
        panel: Rows that stand for the pool.
        rated: How many rows are rated, near-duplicates among them.
    """
    decides, encoder = settings.scoring(), settings.encoder
    fit = fit_pool(counts, library, panel, settings)
    reference = fit_reference(library.uids, library.vectors_ND, library.ratings_N, fit, decides)
    save_reference(workspace, reference, decides, rated=rated, encoder=encoder)
