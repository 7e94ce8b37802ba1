"""Licences of rows that are made from several sources, as SPDX-like expressions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

UNKNOWN = "unknown"

_MAX_DEPTH = 20  # texts come from strangers' files; deeper nesting is taken as one plain name


def union(licences: Iterable[str | None]) -> str:
    """The licence of a row made from all of these: distinct parts, sorted, joined by " AND ".

    AND and OR are operators when written in capitals. A missing or blank licence is the part
    "unknown", and so is the union of nothing. Parts are compared without regard to case. An
    expression with OR is one part, in parentheses where it stands beside others, since AND binds
    more tightly.
    """
    parts: dict[str, str] = {}
    for licence in licences:
        for part in _parts(licence):
            name = part.casefold()
            parts[name] = min(part, parts.get(name, part))
    texts = [parts[name] for name in sorted(parts)] or [UNKNOWN]
    if len(texts) > 1:
        texts = [f"({text})" if len(_split(text, "OR")) > 1 else text for text in texts]
    return " AND ".join(texts)


def allowed(licence: str, allow: Sequence[str] | None) -> bool:
    """Whether every part of a licence, or one alternative of a part with OR, is in the list.

    Case does not matter, but AND and OR are capitals. None allows everything; "unknown" is
    allowed only where it is listed.
    """
    if allow is None:
        return True
    text = _bare(licence)
    alternatives = _split(text, "OR")
    if len(alternatives) > 1:
        return any(allowed(part, allow) for part in alternatives)
    parts = _split(text, "AND")
    if len(parts) > 1:
        return all(allowed(part, allow) for part in parts)
    return (text or UNKNOWN).casefold() in {name.strip().casefold() for name in allow}


def _parts(licence: str | None) -> list[str]:
    text = _bare(licence or "")
    if not text or text.casefold() == UNKNOWN:
        return [UNKNOWN]
    if len(_split(text, "OR")) > 1:
        return [text]
    parts = _split(text, "AND")
    return parts if len(parts) == 1 else [inner for part in parts for inner in _parts(part)]


def _bare(text: str) -> str:
    """The text without white space and parentheses around the whole."""
    text = " ".join(text.split())
    for _ in range(_MAX_DEPTH):
        if not (text.startswith("(") and _closes_at(text) == len(text) - 1):
            break
        text = text[1:-1].strip()
    return text


def _closes_at(text: str) -> int:
    """The place where the parenthesis opened at the start is closed, -1 for never."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return place
    return -1


def _split(text: str, operator: str) -> list[str]:
    """The operands of an operator that stands outside all parentheses."""
    operands: list[list[str]] = [[]]
    depth = deepest = 0
    for word in text.split():
        if word == operator and depth == 0:
            operands.append([])
        else:
            operands[-1].append(word)
        depth += word.count("(") - word.count(")")
        deepest = max(deepest, depth)
    if deepest > _MAX_DEPTH:
        return [text]
    return [" ".join(words) for words in operands]
