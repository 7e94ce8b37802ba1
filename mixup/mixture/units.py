"""A body's units: the sentences of prose, the lines of a list, the blocks of code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from mixup.mixture.prose import sentences

_FENCE = "```"
_CODE_LINE = re.compile(
    r"^(?: {2,}|\t)\S|[{};]\s*$|^(?:def|class|import|from|for|if|while|return) "
)
_CODE_LINES = 2


class Unit(NamedTuple):
    """A piece of a body, and what stands between it and the next one; "" after the last."""

    text: str
    gap: str


def units_of(body: str) -> list[Unit]:
    """The units of a body, in order; ``joined`` gives the body again, up to spaces.

    Code, fenced or by the look of its lines, is cut at blank lines only, and never inside a fence.
    """
    if has_code(body):
        return _blocks(body)
    units: list[Unit] = []
    for line in body.split("\n"):
        found = sentences(line) or [line]
        units.extend(Unit(sentence, " ") for sentence in found)
        units[-1] = Unit(units[-1].text, "\n")
    return _without_empty(units)


def has_code(body: str) -> bool:
    """Whether a body holds code: a fence, or two or more lines that look like it."""
    lines = body.split("\n")
    return _FENCE in body or sum(bool(_CODE_LINE.search(line)) for line in lines) >= _CODE_LINES


def joined(units: Sequence[Unit]) -> str:
    """The text of units, with their gaps between them."""
    return "".join(part for unit in units for part in unit).strip()


def _blocks(body: str) -> list[Unit]:
    units: list[Unit] = []
    is_open = False
    for block in body.split("\n\n"):
        if is_open:
            units[-1] = Unit(f"{units[-1].text}\n\n{block}", "\n\n")
        else:
            units.append(Unit(block, "\n\n"))
        is_open ^= block.count(_FENCE) % 2 == 1
    return _without_empty(units)


def _without_empty(units: Sequence[Unit]) -> list[Unit]:
    kept: list[Unit] = []
    for unit in units:
        if unit.text.strip():
            kept.append(unit)
        elif kept and "\n" in unit.gap:
            kept[-1] = Unit(kept[-1].text, kept[-1].gap + "\n")
    if kept:
        kept[-1] = Unit(kept[-1].text, "")
    return kept
