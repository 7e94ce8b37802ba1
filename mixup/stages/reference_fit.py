"""Fitting the pool's own reference library: T and p from counts over cells, and the rows that vote.

Each cell counts the ratings of its rated rows and of their neighbors, near-duplicates left out; the
counts of all cells are summed. So the fit is linear in the pool, and no task holds more than a cell
and, at the end, the library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mixup.quality.consensus import consensus_counts
from mixup.quality.curation import library_rows
from mixup.quality.neighbors import top_k
from mixup.quality.shrinkage import rating_noise, transition_of
from mixup.quality.transition import (
    RATING_CLASSES,
    UNRATED,
    rating_pairs,
    transition_of_pairs,
)
from mixup.stages.cell import Cell, CellSettings
from mixup.stages.cell_rows import cells_of
from mixup.stages.embed import vectors_from_arrow, vectors_to_arrow
from mixup.stages.pieces import Piece, PieceWriter
from mixup.stages.pool_rows import uniform
from mixup.stages.reference import fit_reference, save_reference
from mixup.workspace import Workspace

LIBRARY_ROWS = 200_000
"""Most rows of a library, drawn by their keys: reward actors hold all of them."""


BOOTSTRAP = 100
"""Replicates of the bootstrap of T and p."""


@dataclass(frozen=True)
class RatingCounts:
    """What some rated rows and their neighbors say of ratings; counts of parts are added up.

    Attributes:
        pairs: ``rating_pairs`` of the rows.
        ratings_C: How many of these have each of the six ratings.
        triples_BCCC: ``consensus_counts`` of the rows.
    """

    pairs: np.ndarray
    ratings_C: np.ndarray
    triples_BCCC: np.ndarray

    @classmethod
    def sum(cls, parts: Sequence[RatingCounts]) -> RatingCounts:
        """The counts of all parts, at least one."""
        return cls(
            np.sum([part.pairs for part in parts], axis=0),
            np.sum([part.ratings_C for part in parts], axis=0),
            np.sum([part.triples_BCCC for part in parts], axis=0),
        )


@dataclass(frozen=True)
class CountedRows:
    """The counts of a cell's own rows, and which of its rows, visitors included, vote in it."""

    counts: RatingCounts
    voters: np.ndarray


@dataclass(frozen=True)
class CountedCells:
    """The counts of some cells, and the rows of them that are in the library."""

    counts: RatingCounts
    pieces: Sequence[Piece]


def count_rows(
    vectors_ND: np.ndarray,
    ratings_N: np.ndarray,
    ages_N: np.ndarray,
    uids_N: Sequence[str],
    home: int,
    settings: CellSettings,
) -> CountedRows:
    """Count the ratings of rows and of their nearest others, near-duplicates left out of both.

    Args:
        vectors_ND: Unit vectors.
        ratings_N: Observed ratings, -1 for unrated.
        ages_N: Distinct ranks, smallest = oldest.
        uids_N: The rows' uids.
        home: So many of the first rows are counted; the others are neighbors only.
        settings: What decides.
    """
    voters = library_rows(vectors_ND, ratings_N, ages_N, settings.similarity.near_duplicate)
    vectors, ratings = vectors_ND[voters], np.asarray(ratings_N)[voters]
    own = np.flatnonzero(voters < home)
    wanted = max(_TRIPLE, settings.curate.transition_neighbors)
    near = top_k(vectors[own], vectors, wanted, own_M=own).indices_MK
    observed = np.full((len(own), _TRIPLE), UNRATED)
    observed[:, : near.shape[1]] = ratings[near[:, :_TRIPLE]]
    ids = np.array([int(uids_N[int(row)][:16], 16) for row in voters[own]], np.uint64)
    counts = RatingCounts(
        rating_pairs(ratings, near[:, : settings.curate.transition_neighbors], own),
        np.bincount(ratings[own], minlength=RATING_CLASSES),
        consensus_counts(ratings[own], observed[:, 0], observed[:, 1], ids, replicates=BOOTSTRAP),
    )
    return CountedRows(counts, voters)


_TRIPLE = 2  # neighbors beside the row itself


def count_cells(
    workspace: Workspace, settings: CellSettings, pieces: Sequence[Piece], folder: str, share: float
) -> CountedCells:
    """Count the ratings of some cells, and draw a share of the rated rows; runs in a worker."""
    parts: list[RatingCounts] = []
    writer = PieceWriter(workspace, folder, f"library-{pieces[0].partition:07d}")
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
        )
        parts.append(counted.counts)
        _draw(writer, cell, counted.voters[counted.voters < home], share)
    writer.flush()
    return CountedCells(RatingCounts.sum(parts), writer.pieces)


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
    workspace: Workspace, settings: CellSettings, counted: Sequence[CountedCells], rated: int
) -> None:
    """Make the library of what all cells counted the current one; runs in a worker.

    Args:
        workspace: The workspace.
        settings: What decides.
        counted: Of all cells.
        rated: How many rows of the pool are rated, near-duplicates among them.
    """
    pieces = [piece for part in counted for piece in part.pieces]
    rows = pa.concat_tables([piece.read(workspace) for piece in pieces]).sort_by("uid")
    save_library_of(
        workspace,
        settings,
        RatingCounts.sum([part.counts for part in counted]),
        rows["uid"].to_pylist(),
        vectors_from_arrow(rows["vector"]),
        rows["rating"].to_numpy().astype(np.int64),
        rated=rated,
    )


def save_library_of(
    workspace: Workspace,
    settings: CellSettings,
    counts: RatingCounts,
    uids: list[str],
    vectors_LD: np.ndarray,
    ratings_L: np.ndarray,
    *,
    rated: int,
) -> None:
    """Make the library of some rated rows, and of what was counted, the current one."""
    transition = transition_of_pairs(
        counts.pairs, counts.ratings_C, smoothing=settings.curate.smoothing
    )
    chosen = transition_of(counts.triples_BCCC)
    if settings.curate.transition == "consensus" and chosen.transition is not None:
        transition = chosen.transition
    reference = fit_reference(
        uids, vectors_LD, ratings_L, transition=transition, decides=settings.scoring()
    )
    save_reference(workspace, reference, settings.scoring(), rating_noise(chosen), rated=rated)
