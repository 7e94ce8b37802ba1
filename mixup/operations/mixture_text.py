"""What a finished mixture says to a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixup.mixture.splits import SPLITS
from mixup.operations.text import labeled, table_lines
from mixup.report.wording import duration, percent, sentence, words

_SHOWN_FATES = 12


def mixture_lines(
    mixture: str, manifest: Mapping[str, Any], *, is_new: bool, seconds: float
) -> list[str]:
    """The summary of a finished mixture.

    Args:
        mixture: Its folder.
        manifest: Its manifest.
        is_new: Whether this run made it.
        seconds: The run's wall time.
    """
    counts = manifest["counts"]
    place = [labeled("mixture", mixture), labeled("pairs", f"{counts['pairs']:,}")]
    report = labeled("report", f"{mixture}/report.html")
    if not is_new:
        workspace = mixture.partition("/mixtures/")[0]
        upshot = f"nothing to do: {workspace} is up to date (looked for {duration(seconds)})"
        return [upshot, *place, report]
    return [
        *place,
        *table_lines(_pair_rows(counts["by_task"])),
        "",
        f"{counts['rows']:,} rows and items came in; each has one fate:",
        *table_lines(_fate_rows(manifest["fates"])),
        *_made_lines(manifest["made"]),
        "",
        "time:",
        *table_lines(_second_rows(manifest, seconds)),
        "",
        report,
    ]


def _pair_rows(by_task: Mapping[str, Mapping[str, int]]) -> list[tuple[str, ...]]:
    rows = [
        (task, *(f"{found[split]:,}" for split in SPLITS), f"{sum(found.values()):,}")
        for task, found in by_task.items()
    ]
    return [("task", *SPLITS, "all"), *rows]


def _fate_rows(fates: Mapping[str, int]) -> list[tuple[str, ...]]:
    total = sum(fates.values())
    ordered = sorted(fates.items(), key=lambda fate: (fate[0] != "paired", -fate[1], fate[0]))
    rows = [
        (sentence(words(name)), f"{n:,}", percent(n / total if total else None))
        for name, n in ordered[:_SHOWN_FATES]
    ]
    if rest := sum(n for _, n in ordered[_SHOWN_FATES:]):
        rows.append(("Other reasons", f"{rest:,}", percent(rest / total)))
    return rows


def _made_lines(made: Mapping[str, Mapping[str, int]]) -> list[str]:
    """What the teacher made of the text: its yield by task type."""
    if not made:
        return []
    rows = [
        (
            task,
            f"{found.get('made', 0):,} of {sum(found.values()):,}",
            percent(found.get("made", 0) / sum(found.values())),
        )
        for task, found in made.items()
    ]
    return ["", "items that the teacher made of the text:", *table_lines(rows)]


def _second_rows(manifest: Mapping[str, Any], total: float) -> list[tuple[str, ...]]:
    stages = [(stage["stage"], duration(stage["seconds"])) for stage in manifest["stages"]]
    skipped = [(name, "nothing to do") for name in manifest["skipped"]]
    return [*skipped, *stages, ("in all", duration(total))]
