"""Library: rated rows → the folder of a library, with T and p of each task type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from mixup.ledger import StageCounts
from mixup.reference_config import FitConfig
from mixup.stages.cell import CellSettings
from mixup.stages.library_fit import (
    CountedTask,
    Fitting,
    check_rated,
    count_task,
    fit_library_of,
)
from mixup.stages.library_rows import (
    OVER_MAX_ROWS,
    Drawing,
    RatedSource,
    count_bucket,
    draw_bucket,
)
from mixup.stages.outcomes import NO_EMBEDDING
from mixup.stages.pieces import STAGING, by_partition, staging
from mixup.stages.rate import BAD_RATING
from mixup.stages.reference import Reference, write_reference
from mixup.stages.run import RunContext, Stopwatch

IN_LIBRARY = "in_library"
REPEATED = "duplicate"
"""The row is in a source that was named before, too."""
NEAR_DUPLICATE = "near_duplicate"
_OF_TASK = "task:"


@dataclass(frozen=True)
class LibraryMade:
    """A library that was written.

    Attributes:
        revision: A key of its rows and of what was fitted on them.
        dimension: Numbers of a vector.
        tasks: Of each task type its rows, their ratings and sources, and what was fitted.
        effective_votes: The worth of votes of all rows; None where ratings cannot tell.
        counts: Where the rows of all sources went.
    """

    revision: str
    dimension: int
    tasks: Mapping[str, Mapping[str, Any]]
    effective_votes: float | None
    counts: StageCounts


def make_library(
    context: RunContext,
    sources: Sequence[RatedSource],
    settings: CellSettings,
    fit: FitConfig,
    folder: str,
) -> LibraryMade:
    """Write the library of the rated rows of some sources.

    Args:
        context: The run.
        sources: Where the rows come from; of a row in two of them the first's rating counts.
        settings: What decides the fit.
        fit: How many rows are taken and needed.
        folder: Where the files go, in the workspace.

    Raises:
        ConfigError: If too few rows are rated, or all have one class.
        LedgerError: If a row is neither in the library nor left out for a reason.
    """
    watch = Stopwatch()
    places = [(at, bucket) for at, source in enumerate(sources) for bucket in source.buckets]
    found: Counter[str] = Counter()
    for counts in context.each(count_bucket, sources, places):
        found += counts
    of_task = {
        name.removeprefix(_OF_TASK): n for name, n in found.items() if name.startswith(_OF_TASK)
    }
    tasks = sorted(of_task)
    shares = [min(1.0, fit.max_rows / of_task[task]) for task in tasks]
    staged = f"{STAGING}/{context.run}-library"
    drawing = Drawing(context.workspace, sources, tasks, shares, staged)
    with staging(context.workspace, staged):
        drawn = list(context.each(draw_bucket, drawing, places))
        parts = by_partition(chain.from_iterable(pieces for pieces, _ in drawn))
        fitting = Fitting(drawing, settings)
        groups = [(pieces,) for _, pieces in sorted(parts.items())]
        counted = sorted(context.each(count_task, fitting, groups), key=lambda one: one.task)
        check_rated(counted, settings)
        arguments = [(counted, fit.min_task_rated, folder)]
        reference = next(context.each(write_library, fitting, arguments))
    left = {name: n for name, n in sorted(found.items()) if not name.startswith(_OF_TASK)}
    counts = StageCounts(
        stage="library",
        unit="records",
        rows_in=found.total(),
        parts={
            IN_LIBRARY: sum(task.rows for task in counted),
            NEAR_DUPLICATE: sum(task.near_duplicates for task in counted),
            REPEATED: sum(task.repeated for task in counted),
            OVER_MAX_ROWS: sum(over for _, over in drawn),
            **left,
        },
        dropped=(BAD_RATING, NO_EMBEDDING),
        seconds=watch.seconds,
    ).check()
    return LibraryMade(
        revision=reference["revision"],
        dimension=reference["dimension"],
        tasks=reference["tasks"],
        effective_votes=reference["effective_votes"],
        counts=counts.log(),
    )


def write_library(
    fitting: Fitting, counted: Sequence[CountedTask], least: int, folder: str
) -> dict[str, Any]:
    """Fit the library and write it into a folder of the workspace; what there is to say of it.

    Runs in a worker.
    """
    reference = fit_library_of(fitting, counted, least)
    write_reference(fitting.drawing.workspace, folder, reference)
    return {
        "revision": reference.revision,
        "dimension": int(reference.vectors_LD.shape[1]),
        "tasks": {task.task: _about(task, reference) for task in counted},
        "effective_votes": reference.fit.effective_votes,
    }


def _about(task: CountedTask, reference: Reference) -> dict[str, Any]:
    own = reference.fit.tasks.get(task.task)
    return {
        "rows": task.rows,
        "ratings": dict(task.ratings),
        "sources": dict(task.sources),
        "own_fit": own is not None,
        "effective_votes": None if own is None else own.effective_votes,
    }
