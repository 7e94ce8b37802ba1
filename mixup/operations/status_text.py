"""What a workspace's status says to a person, on one screen."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from mixup.operations.status import LockState, RunState, Status
from mixup.operations.text import (
    LABEL,
    byte_count,
    labeled,
    moment,
    rows_line,
    table_lines,
    width,
)
from mixup.report.wording import duration, words

_DAY_S = 86_400
_SHOWN_REASONS = 4
_STAGES = {
    **dict.fromkeys(("files", "occurrences", "records", "quarantine"), "ingest"),
    "embeddings": "embed",
    "ratings": "rate",
    "contamination": "decontaminate",
    **dict.fromkeys(("places", "curation", "clusters"), "curate"),
    **dict.fromkeys(("samples", "rewards"), "distill"),
    "segments": "segment",
    "candidates": "teach",
    **dict.fromkeys(("targets", "mixture"), "mix"),
    "tokens": "tokenize",
}


def status_lines(status: Status, *, color: bool = False) -> list[str]:
    """A workspace at a glance.

    Args:
        status: What was found.
        color: Whether to mark states with colors, for a terminal that shows them.
    """
    paint = _paint if color else _plain
    return [
        labeled("workspace", f"{status.uri}{_disk_words(status.disk_bytes)}"),
        *_release_lines(status),
        *_mixture_lines(status),
        *_library_lines(status),
        *([labeled("models", ", ".join(status.models))] if status.models else []),
        *_run_lines(status.last_run, status.lock, paint),
        *_lock_lines(status.lock, paint),
        "",
        *_table_lines(status),
        *_reason_lines(status),
    ]


_COLORS = {"good": "32", "bad": "31", "busy": "36"}


def _paint(text: str, kind: str) -> str:
    return f"\x1b[{_COLORS[kind]}m{text}\x1b[0m"


def _plain(text: str, kind: str) -> str:
    return text


_Paint = Callable[[str, str], str]


def _disk_words(size: int | None) -> str:
    return "" if size is None else f"  ({byte_count(size)})"


def _release_lines(status: Status) -> list[str]:
    if status.release is None:
        return [labeled("release", "none yet")]
    name = status.release.rsplit("/", 1)[-1]
    more = f"  ({status.releases:,} there)" if status.releases > 1 else ""
    lines = [labeled("release", f"{name}{more}")]
    if status.manifest:
        made = datetime.fromisoformat(status.manifest["created_at"]).timestamp()
        lines += [labeled("made", f"{moment(made)}{_ago(made)}")]
        lines += [rows_line(status.manifest["counts"])]
    return lines


def _mixture_lines(status: Status) -> list[str]:
    if status.mixture is None:
        return []
    pairs = "" if status.pairs is None else f"  ({status.pairs:,} pairs)"
    return [labeled("mixture", f"{status.mixture.rsplit('/', 1)[-1]}{pairs}")]


def _library_lines(status: Status) -> list[str]:
    if status.library is None:
        return []
    return [labeled("library", status.library.rsplit("/", 1)[-1])]


def _ago(seconds: float) -> str:
    past = time.time() - seconds
    if past < 0:  # made on a machine whose clock is ahead
        return ""
    return f", {past / _DAY_S:.0f} days ago" if past > 2 * _DAY_S else f", {duration(past)} ago"


def _run_lines(run: RunState | None, lock: LockState | None, paint: _Paint) -> list[str]:
    if run is None:
        return [labeled("last run", "none yet")]
    lines = [labeled("last run", run.run)]
    since = "" if run.started is None else f" since {moment(run.started)}"
    if run.ended is not None:
        took = "" if run.started is None else f" after {duration(run.ended - run.started)}"
        lines.append(labeled("", f"{paint('ended', 'good')} {moment(run.ended)}{took}"))
        return [*lines, labeled("", f"with {run.release}")]
    if lock is not None and lock.holder.run == run.run and lock.is_alive is not False:
        lines.append(labeled("", f"{paint('running', 'busy')}{since}"))
    else:
        lines.append(labeled("", f"{paint('did not finish', 'bad')}; run the job again"))
    if run.training is not None:
        lines.append(labeled("", training_words(run.training)))
    elif run.table is not None and run.committed is not None:
        stage = f"{_STAGES.get(run.table, run.table)} (table {run.table})"
        lines.append(labeled("", f"last commit by {stage}{_ago(run.committed)}"))
    return lines


def training_words(progress: Mapping[str, Any]) -> str:
    """How far a training is, as one line."""
    parts = [f"training step {progress['step']:,} of {progress['steps']:,}"]
    if (loss := progress.get("loss")) is not None:
        parts.append(f"loss {loss:.4f}")
    if (held_out := progress.get("held_out_loss")) is not None:
        parts.append(f"held-out loss {held_out:.4f}")
    if (rate := progress.get("tokens_per_second")) is not None:
        parts.append(f"{rate:,.0f} tokens/s")
    return ", ".join(parts)


def _lock_lines(lock: LockState | None, paint: _Paint) -> list[str]:
    if lock is None:
        return [labeled("lock", "free")]
    holder = lock.holder
    lines = [
        labeled("lock", f"held by run {holder.run}"),
        labeled("", f"process {holder.pid} on {holder.host} since {moment(holder.since)}"),
    ]
    if lock.is_alive is False:
        ended = paint("that process has ended", "bad")
        lines.append(labeled("", f"{ended}; the next run takes it over"))
    elif lock.is_alive is None and lock.beat_s is not None:
        lines.append(labeled("", f"last heartbeat {duration(max(lock.beat_s, 0.0))} ago"))
    return lines


def _table_lines(status: Status) -> list[str]:
    if not status.tables:
        return ["  no table yet"]
    rows = [
        (name, f"{state.rows:,}", byte_count(state.bytes), str(state.version))
        for name, state in status.tables.items()
    ]
    lines = table_lines([("table", "rows", "size", "version"), *rows])
    states, read = status.superseded
    if states:
        lines.append(
            f"{read:,} of the rows were read of {states:,} file(s) in an earlier state; they stay "
            "and do not count"
        )
    return lines


def _reason_lines(status: Status) -> list[str]:
    """What is without a value, by table: the most frequent reasons."""
    lines: list[str] = []
    for name, reasons in status.reasons.items():
        if reasons is None:
            lines.append(labeled(name, "not counted here: too many files"))
            continue
        shown = [f"{words(reason)} {n:,}" for reason, n in list(reasons.items())[:_SHOWN_REASONS]]
        if more := len(reasons) - len(shown):
            shown.append(f"{more} other reasons")
        if shown:
            text = textwrap.wrap(", ".join(shown), width() - LABEL)
            lines += [labeled(name if at == 0 else "", line) for at, line in enumerate(text)]
    return ["", "rows without a value, by reason:", *lines] if lines else []
