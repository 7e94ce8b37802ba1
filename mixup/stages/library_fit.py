"""Fitting a rated library: T and p of each task type, and of all of them together.

One task holds the rows of one task type, at most ``fit.max_rows``, so that neighbors are exact. The
counts of ratings add up, and those of all rows are the sum: a row's neighbors are of its own task
type there too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from mixup.errors import ConfigError
from mixup.stages.cell import CellSettings
from mixup.stages.embed import vectors_from_arrow
from mixup.stages.library_rows import Drawing
from mixup.stages.pieces import Piece, PieceWriter
from mixup.stages.pool_fit import fit_pool
from mixup.stages.rating_counts import RatingCounts, count_rows, fit_ratings
from mixup.stages.reference import Reference, TaskFit, fit_reference
from mixup.stages.regression_fit import DrawnRows


@dataclass(frozen=True)
class CountedTask:
    """What the rows of one task type say of ratings.

    Attributes:
        task: The task type.
        counts: The counts of its rows.
        pieces: The rows that vote, in the columns of ``CANDIDATES``.
        rows: How many vote.
        repeated: Rows that a source named before holds too.
        near_duplicates: Rows that are nearly an older one.
        ratings: Voters by class.
        sources: Voters by the source of their rating.
    """

    task: str
    counts: RatingCounts
    pieces: Sequence[Piece]
    rows: int
    repeated: int
    near_duplicates: int
    ratings: Mapping[str, int]
    sources: Mapping[str, int]


@dataclass(frozen=True)
class Fitting:
    """What the tasks share that fit.

    Attributes:
        drawing: Where the pieces lie, and of what.
        settings: What decides.
    """

    drawing: Drawing
    settings: CellSettings


def count_task(fitting: Fitting, pieces: Sequence[Piece]) -> CountedTask:
    """Count the ratings of one task type, near-duplicates once; runs in a worker.

    The oldest rated row of near-duplicates votes. A row that two sources hold counts as the first
    one's.
    """
    drawing = fitting.drawing
    partition = pieces[0].partition
    rows = pa.concat_tables([piece.read(drawing.workspace) for piece in pieces])
    order = ("place", "rank", "offset", "uid")
    rows = rows.sort_by([(name, "ascending") for name in order])
    uids = rows["uid"].to_pylist()
    first = {uid: at for at, uid in reversed(list(enumerate(uids)))}
    kept = rows.take(pa.array(sorted(first.values()), pa.int64()))
    found = count_rows(
        vectors_from_arrow(kept["vector"]),
        kept["rating"].to_numpy().astype(np.int64),
        np.arange(kept.num_rows),
        kept["uid"].to_pylist(),
        kept.num_rows,
        fitting.settings,
    )
    voters = kept.take(pa.array(found.voters, pa.int64()))
    writer = PieceWriter(drawing.workspace, drawing.folder, f"voters-{partition:05d}")
    writer.add(voters)
    writer.flush()
    return CountedTask(
        task=drawing.tasks[partition],
        counts=found.counts,
        pieces=writer.pieces,
        rows=voters.num_rows,
        repeated=rows.num_rows - kept.num_rows,
        near_duplicates=kept.num_rows - voters.num_rows,
        ratings=_counted(voters, "rating"),
        sources=_counted(voters, "source"),
    )


def _counted(rows: pa.Table, column: str) -> dict[str, int]:
    found = rows[column].value_counts().to_pylist()
    return {str(one["values"]): one["counts"] for one in sorted(found, key=lambda o: o["values"])}


def check_rated(counted: Sequence[CountedTask], settings: CellSettings) -> None:
    """Refuse a library that cannot tell good from bad.

    Raises:
        ConfigError: If too few rows are rated, or all have one class.
    """
    rows, least = sum(task.rows for task in counted), settings.curate.min_rated
    classes = {rating for task in counted for rating in task.ratings}
    if rows < least:
        raise ConfigError(
            f"{rows} rated rows are left for the library, at least {least} are needed "
            "(fit.min_rated); see what was left out, and where the ratings are (rate.field)"
        )
    if len(classes) < 2:
        raise ConfigError(
            f"all {rows} rated rows are of class {classes.pop()}; a library needs rows of two "
            "classes at least: add rows that are rated otherwise, or look at rate.scale"
        )


def fit_library_of(fitting: Fitting, counted: Sequence[CountedTask], least: int) -> Reference:
    """The library of all task types; runs in a worker that holds all its rows.

    Args:
        fitting: What decides.
        counted: The task types, in the order of their names.
        least: A task type of fewer rows has no fit of its own.
    """
    settings, workspace = fitting.settings, fitting.drawing.workspace
    parts = [DrawnRows.read(workspace, task.pieces) for task in counted]
    rows = DrawnRows(
        [uid for part in parts for uid in part.uids],
        np.concatenate([part.vectors_ND for part in parts]),
        np.concatenate([part.ratings_N for part in parts]),
    )
    counts = RatingCounts.sum([task.counts for task in counted])
    fit = fit_pool(counts, rows, rows.none(), settings)
    tasks = {task.task: found for task in counted if (found := _task_fit(task, settings, least))}
    return fit_reference(
        rows.uids,
        rows.vectors_ND,
        rows.ratings_N,
        replace(fit, tasks=tasks),
        settings.scoring(),
        [task.task for task in counted for _ in range(task.rows)],
    )


def _task_fit(task: CountedTask, settings: CellSettings, least: int) -> TaskFit | None:
    """The fit of one task type; None where too few of its rows are rated, or all alike."""
    if task.rows < least or len(task.ratings) < 2:
        return None
    fit = fit_ratings(task.counts, settings)
    return TaskFit(fit.transition, fit.effective_votes)
