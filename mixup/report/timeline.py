"""Who worked when: the arithmetic of spans, from what actors recorded to busy shares and lanes.

A span is (name, start, end) in seconds of the wall clock of the machine that did the work, so spans
of several machines agree only as well as their clocks do. A name is the kind of work, with the
actor after a colon where there are several: ``generate:1``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

ENGINE = "generate"
SPANS_DRAWN = 2_000
_FIRST_STEP = 1 / 4_000  # of the whole: narrower than a pixel on any screen

Interval = tuple[float, float]


@dataclass(frozen=True)
class SpanRow:
    """One stretch of work of a lane, in seconds from the first work on record."""

    name: str
    start: float
    end: float


@dataclass(frozen=True)
class Timeline:
    """The stretches that are drawn.

    Attributes:
        spans: By lane and start; those of a lane do not overlap.
        resolution: Waits of at most so many seconds are drawn as work.
    """

    spans: tuple[SpanRow, ...] = ()
    resolution: float = 0.0


@dataclass(frozen=True)
class EngineUse:
    """How busy the engines were.

    Attributes:
        engines: Engines on record.
        wall: Seconds of the whole stage, engine start included; None if spans were left out.
        window: Seconds from the first batch's start to the last one's end, over all engines.
        busy: Seconds of work, summed over the engines.
        longest_wait: The longest time in the window in which some engine had no batch.
        tokens: Tokens that were generated.
        reward_busy: Seconds in which at least one reward component or encoder worked.
        overlap: Those of them in which an engine worked too.
    """

    engines: int
    wall: float | None
    window: float
    busy: float
    longest_wait: float
    tokens: int | None
    reward_busy: float
    overlap: float

    @property
    def share(self) -> float | None:
        """The part of the stage in which an engine worked, on average over the engines."""
        return self.busy / (self.wall * self.engines) if self.wall else None

    @property
    def window_share(self) -> float | None:
        """The same from the first batch to the last."""
        return self.busy / (self.window * self.engines) if self.window else None

    @property
    def overlap_share(self) -> float | None:
        """The part of the reward work that went on beside generation."""
        return self.overlap / self.reward_busy if self.reward_busy else None

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens for each second of the stage; None if that or the tokens are not known."""
        return self.tokens / self.wall if self.wall and self.tokens is not None else None


def kind_of(name: str) -> str:
    """The kind of work of a span's name: what stands before the first colon."""
    return name.partition(":")[0]


def merge(intervals: Iterable[Interval], gap: float = 0.0) -> list[Interval]:
    """Intervals that overlap, touch, or lie at most ``gap`` apart, as one; sorted by start.

    Those that end before they start or are not finite say nothing and are left out.
    """
    found: list[Interval] = []
    for start, end in sorted(i for i in intervals if i[0] <= i[1] and all(map(math.isfinite, i))):
        if found and start - found[-1][1] <= gap:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def length(intervals: Iterable[Interval]) -> float:
    """Seconds that intervals cover; a second covered twice counts once."""
    return sum(end - start for start, end in merge(intervals))


def overlap(first: Iterable[Interval], second: Iterable[Interval]) -> float:
    """Seconds that both sets of intervals cover."""
    first, second = merge(first), merge(second)
    return length(first) + length(second) - length([*first, *second])


def waits(intervals: Iterable[Interval], start: float, end: float) -> list[float]:
    """Lengths of the stretches of [start, end] that no interval covers, in order."""
    edges = [start]
    for low, high in merge(intervals):
        edges += [min(max(low, start), end), min(max(high, start), end)]
    edges.append(end)
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return [right - left for left, right in pairs if right > left]


def lanes(spans: Iterable[tuple[str, float, float]]) -> dict[str, list[Interval]]:
    """The merged intervals of each name: engines first, then by the start of their work."""
    found: dict[str, list[Interval]] = {}
    for name, start, end in spans:
        found.setdefault(name, []).append((start, end))
    merged = {name: whole for name, part in found.items() if (whole := merge(part))}
    order = sorted(merged, key=lambda name: (kind_of(name) != ENGINE, merged[name][0][0], name))
    return {name: merged[name] for name in order}


def timeline_of(spans: Iterable[tuple[str, float, float]], limit: int = SPANS_DRAWN) -> Timeline:
    """The lanes of spans, seconds from the first one, in at most ``limit`` stretches.

    Where there are more, those with the shortest waits between them are drawn as one. A lane keeps
    at least one stretch, so more lanes than ``limit`` stay more.
    """
    found = lanes(spans)
    if not found:
        return Timeline()
    first = min(part[0][0] for part in found.values())
    last = max(part[-1][1] for part in found.values())
    gap, step = 0.0, (last - first) * _FIRST_STEP
    while sum(map(len, found.values())) > max(limit, len(found)):
        gap = max(step, 2 * gap)
        found = {name: merge(part, gap) for name, part in found.items()}
    rows = [
        SpanRow(name, round(start - first, 3), round(end - first, 3))
        for name, part in found.items()
        for start, end in part
    ]
    return Timeline(tuple(rows), gap)


def engine_use(
    spans: Sequence[tuple[str, float, float]], wall: float | None, tokens: int | None
) -> EngineUse | None:
    """How busy the engines were; None if no engine is on record.

    Args:
        spans: What the actors of the distill stage recorded.
        wall: Seconds of the stage; None if spans are missing, as shares would be too small then.
        tokens: Tokens that were generated.
    """
    found = lanes(spans)
    engines = {name: part for name, part in found.items() if kind_of(name) == ENGINE}
    if not engines:
        return None
    start = min(part[0][0] for part in engines.values())
    end = max(part[-1][1] for part in engines.values())
    rewards = _all_but(found, engines)
    return EngineUse(
        engines=len(engines),
        wall=wall,
        window=end - start,
        busy=sum(length(part) for part in engines.values()),
        longest_wait=max([0.0, *(w for part in engines.values() for w in waits(part, start, end))]),
        tokens=tokens,
        reward_busy=length(rewards),
        overlap=overlap(rewards, [i for part in engines.values() for i in part]),
    )


def _all_but(
    found: Mapping[str, list[Interval]], engines: Mapping[str, list[Interval]]
) -> list[Interval]:
    return [i for name, part in found.items() if name not in engines for i in part]
