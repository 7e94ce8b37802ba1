"""Cover as a stream: per bucket what is missing → the work → outcomes written → committed.

This is the shape of every stage whose work needs actors. Nothing here grows with the pool but the
work itself: the driver holds one manifest per written block, and commits it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mixup.stages.manifests import Manifest

TASK_CPUS = 0.1
"""CPUs that Ray books for a light task, so that actors which hold the rest cannot starve it."""


@dataclass(frozen=True)
class ActorPool:
    """The actors that do a stage's work.

    Attributes:
        actor: A class whose instances map a batch (a table) to a table.
        arguments: Of its constructor.
        size: How many actors.
        batch_rows: Rows of a batch.
        cpus: CPUs of each.
        gpus: GPUs of each.
        calls: Batches that an actor works on at the same time, in as many threads.
    """

    actor: type
    arguments: tuple[Any, ...]
    size: int
    batch_rows: int
    cpus: float
    gpus: float = 0.0
    calls: int = 1


def cover_buckets(
    buckets: Sequence[int | None],
    missing: Callable[[pa.Table], Iterator[pa.Table]],
    work: ActorPool | None,
    write: Callable[[pa.Table], pa.Table],
) -> Iterator[Manifest]:
    """Manifests of what a stage did for some buckets, as its blocks are written.

    Args:
        buckets: The buckets to look at; none of them, and Ray is left alone.
        missing: Maps a table with a ``bucket`` column to blocks of rows that need work. Runs in
            light tasks, one bucket each.
        work: The actors, or None where writing is all there is to do.
        write: Maps a block of finished rows to the table of its manifest. Runs in light tasks.
    """
    import ray

    if not buckets:
        return
    rows = [{"bucket": bucket} for bucket in buckets]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        missing, batch_size=1, batch_format="pyarrow", num_cpus=TASK_CPUS
    )
    if work is not None:
        dataset = _cut(dataset, work.batch_rows)
        dataset = dataset.map_batches(
            work.actor,
            fn_constructor_args=work.arguments,
            compute=ray.data.ActorPoolStrategy(
                size=work.size,
                max_concurrent_calls_per_actor=work.calls,
                enable_true_multi_threading=work.calls > 1,
            ),
            batch_size=work.batch_rows,
            batch_format="pyarrow",
            num_cpus=work.cpus,
            num_gpus=work.gpus,
        )
    yield from manifests_of(
        dataset.map_batches(write, batch_size=None, batch_format="pyarrow", num_cpus=TASK_CPUS)
    )


def _cut(dataset: Any, rows: int) -> Any:
    """Cut a stream into blocks of at most some rows, by light tasks.

    All that one task yields becomes one block, which one actor would work off and hand on whole:
    nothing would be committed before its end. ``repartition`` gives no way to say what its tasks
    book, and a whole CPU is more than the actors leave free on a laptop, so that is set on the
    logical operator; ``tests/ray/test_cover.py`` fails where a Ray release moves it.
    """
    cut = dataset.repartition(target_num_rows_per_block=rows)
    cut._logical_plan.dag.ray_remote_args["num_cpus"] = TASK_CPUS
    return cut


def manifests_of(dataset: Any) -> Iterator[Manifest]:
    """The manifests of a Ray Data stream, as its tasks end.

    A batch that is fetched ahead is handed on when the next one is there: each would be committed
    by one too late, and lost with the driver.
    """
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for text in batch["manifest"].to_pylist():
            yield Manifest.from_json(text)
