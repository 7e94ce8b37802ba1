"""What operations and runs say to a person: lines of plain text, safe to print on a terminal.

Text that came with the data goes through ``visible``: an escape sequence or a right-to-left
override in it could otherwise change what the terminal shows.
"""

from __future__ import annotations

import shutil
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mixup.report.wording import FATES, duration, fate_label, percent, visible

LABEL = 13
_SHORT_CHARS = 280


def width() -> int:
    """Columns to write to: the terminal's, within what reads well."""
    return max(60, min(shutil.get_terminal_size((100, 24)).columns, 120))


def refresh_lines(
    release: str, manifest: Mapping[str, Any], *, is_new: bool, seconds: float
) -> list[str]:
    """The summary of a finished refresh.

    Args:
        release: The folder of the release.
        manifest: Its manifest.
        is_new: Whether this run made it.
        seconds: The run's wall time.
    """
    report = labeled("report", f"{release}/report.html")
    if not is_new:
        workspace = release.partition("/releases/")[0]
        upshot = f"nothing to do: {workspace} is up to date (looked for {duration(seconds)})"
        return [upshot, labeled("release", release), rows_line(manifest["counts"]), report]
    fates = manifest["fates"]
    return [
        labeled("release", release),
        rows_line(manifest["counts"]),
        labeled("wanted", _wanted(manifest["counts"])),
        "",
        f"{sum(fates.values()):,} occurrences came in; each has one fate:",
        *table_lines(_fate_rows(fates)),
        "",
        "time:",
        *table_lines(_second_rows(manifest, seconds)),
        "",
        report,
    ]


def labeled(label: str, text: str) -> str:
    """A line that begins with a label, aligned with others."""
    return f"{label:<{LABEL}}{text}"


def rows_line(counts: Mapping[str, int]) -> str:
    """The rows of a release."""
    parts = f"{counts['distilled']:,} distilled, {counts['originals']:,} originals"
    return labeled("rows", f"{counts['rows']:,}: {parts}")


def _wanted(counts: Mapping[str, int]) -> str:
    total = counts["wanted_distilled"] + counts["wanted_originals"]
    parts = f"{counts['wanted_distilled']:,} distilled, {counts['wanted_originals']:,} originals"
    short = {
        name: counts[f"wanted_{name}"] - counts[name]
        for name in ("distilled", "originals")
        if counts[name] < counts[f"wanted_{name}"]
    }
    if not short:
        return f"{total:,}: {parts}; reached"
    missing = " and ".join(f"{count:,} {name}" for name, count in short.items())
    return f"{total:,}: {parts}; too few passed, {missing} short"


def _fate_rows(fates: Mapping[str, int]) -> list[tuple[str, ...]]:
    order = {name: place for place, name in enumerate(FATES)}
    total = sum(fates.values())
    shown = sorted(fates.items(), key=lambda fate: (order[fate[0].partition(":")[0]], -fate[1]))
    return [
        (fate_label(name), f"{n:,}", percent(n / total if total else None)) for name, n in shown
    ]


def _second_rows(manifest: Mapping[str, Any], total: float) -> list[tuple[str, ...]]:
    stages = [(stage["stage"], duration(stage["seconds"])) for stage in manifest["stages"]]
    skipped = [(name, "nothing to do") for name in manifest["skipped"]]
    return [*skipped, *stages, ("in all", duration(total))]


def table_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as aligned columns: the first to the left, the others to the right."""
    if not rows:
        return []
    wide = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            cell.ljust(wide[at]) if at == 0 else cell.rjust(wide[at]) for at, cell in enumerate(row)
        ).rstrip()
        for row in rows
    ]


def byte_count(size: int) -> str:
    """Bytes in the unit that reads well."""
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"


def moment(seconds: float) -> str:
    """A time of this machine's zone, from seconds since the epoch."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def short(text: str) -> str:
    """The beginning of a long text."""
    return text if len(text) <= _SHORT_CHARS else f"{text[:_SHORT_CHARS].rstrip()} …"


def indented(text: str, indent: int = 2) -> list[str]:
    """Data as wrapped, indented lines."""
    lines: list[str] = []
    for line in visible(text).expandtabs(4).split("\n"):
        lines += textwrap.wrap(line, width() - indent, break_on_hyphens=False) or [""]
    return [f"{' ' * indent}{line}".rstrip() for line in lines]


def config_lines(rows: Iterable[tuple[str, str, str]]) -> list[str]:
    """Every key of a config with its default and documentation, grouped by section.

    Args:
        rows: What ``config.describe`` yields: a section has an empty default.
    """
    known = list(rows)
    top = [row for row in known if "." not in row[0] and row[1]]
    lines = ["config keys (in the file, or as section.key=value):"]
    for key, default, text in [*top, *(row for row in known if row not in top)]:
        if not default and "." not in key:
            lines += ["", *textwrap.wrap(f"{key}: {text}", width())]
            continue
        lines.append(f"  {key}{_default(key, default)}")
        lines += textwrap.wrap(text, width(), initial_indent=" " * 6, subsequent_indent=" " * 6)
    return lines


def _default(key: str, default: str) -> str:
    if default == "required":
        return "  (required with its section)" if key.count(".") > 1 else "  (required)"
    return f" = {default}" if default else "  (section)"
