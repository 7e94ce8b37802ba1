"""What a finished library says to a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixup.operations.text import labeled, table_lines
from mixup.quality.transition import RATING_CLASSES
from mixup.report.wording import duration, percent, sentence, words


def reference_lines(
    library: str, manifest: Mapping[str, Any], *, is_new: bool, seconds: float
) -> list[str]:
    """The summary of a finished library.

    Args:
        library: Its folder.
        manifest: Its manifest.
        is_new: Whether this run made it.
        seconds: The run's wall time.
    """
    rows = f"{manifest['counts']['rows']:,} rated rows vote (revision {manifest['revision'][:12]})"
    place = [labeled("library", library), labeled("rows", rows)]
    if not is_new:
        workspace = library.partition("/libraries/")[0]
        upshot = f"nothing to do: {workspace} is up to date (looked for {duration(seconds)})"
        return [upshot, *place]
    return [
        *place,
        *table_lines(_task_rows(manifest["tasks"])),
        "",
        f"{manifest['counts']['rows_in']:,} rows came in; each has one fate:",
        *table_lines(_fate_rows(manifest["fates"])),
        *_quarantine_lines(manifest["quarantine"]),
        "",
        "time:",
        *table_lines(_second_rows(manifest, seconds)),
        "",
        f"a refresh takes it by rate.library=[{library!r}], train-grpo by library.paths",
    ]


def _task_rows(tasks: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Of each task type its rows by class, and with whose T they are read."""
    classes = [str(rating) for rating in range(RATING_CLASSES)]
    rows = [
        (
            task,
            f"{found['rows']:,}",
            *(f"{found['ratings'].get(rating, 0):,}" for rating in classes),
            "its own" if found["own_fit"] else "that of all",
        )
        for task, found in tasks.items()
    ]
    return [("task", "rows", *(f"class {rating}" for rating in classes), "T and p"), *rows]


def _fate_rows(fates: Mapping[str, int]) -> list[tuple[str, ...]]:
    total = sum(fates.values())
    ordered = sorted(fates.items(), key=lambda fate: (fate[0] != "in_library", -fate[1], fate[0]))
    return [(sentence(words(name)), f"{n:,}", percent(n / total)) for name, n in ordered]


def _quarantine_lines(quarantine: Mapping[str, int]) -> list[str]:
    """Rows of the files that could not be read; they are no records."""
    if not quarantine:
        return []
    rows = [(sentence(words(name)), f"{n:,}") for name, n in sorted(quarantine.items())]
    return ["", "rows of the files that could not be read:", *table_lines(rows)]


def _second_rows(manifest: Mapping[str, Any], total: float) -> list[tuple[str, ...]]:
    stages = [(stage["stage"], duration(stage["seconds"])) for stage in manifest["stages"]]
    skipped = [(name, "nothing to do") for name in manifest["skipped"]]
    return [*skipped, *stages, ("in all", duration(total))]
