"""Tracing a pair of MIXTURE: its target, its variants, the articles behind it, and its split."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mixup.operations.places import occurrence, occurrences_of
from mixup.operations.view import View


def pair_of(view: View, key: str) -> dict[str, Any]:
    """A pair and what it was made from.

    Returns:
        JSON data: the columns of the pair; ``members``, the rows its target was made from, with
        where they occur; ``variants`` with their degradations and classes; ``articles``, the
        segments of raw text behind it with their places; and ``left_out``, what it nearly repeats
        in another split, or None.
    """
    pair = view.rows("mixture", "pair", key)[0]
    provenance = json.loads(pair["provenance"])
    names = ("task", "split", "rule", "rating", "rating_source", "licence", "plan", "keeps_facts")
    leaks = view.rows("leaks", "pair", key)
    return {
        **{name: pair[name] for name in names},
        "tokens": pair["tokens"],
        "input": pair["input"],
        "output": pair["output"],
        "thought": pair["cot"],
        "target": provenance["target"],
        "members": [
            {"uid": uid, "occurrences": occurrences_of(view, uid)} for uid in pair["members"]
        ],
        "variants": provenance["variants"],
        "articles": [
            segment for origin in provenance["origins"] if (segment := _segment(view, origin))
        ],
        "left_out": leaks[0] if leaks else None,
        "releases": [],
    }


def mixture_fate(view: View, uid: str) -> dict[str, Any] | None:
    """What became of a record as a row of a mixture; None where there is none."""
    rows = view.rows("targets", "uid", uid)
    if not rows:
        return None
    names = ("split", "rating", "rating_source", "pair", "duplicate_of", "reason")
    found = {name: rows[0][name] for name in names}
    leaks = view.rows("leaks", "pair", found["pair"]) if found["pair"] else []
    return {**found, "left_out": leaks[0] if leaks else None}


def _segment(view: View, origin: str) -> dict[str, Any] | None:
    """The segment that an item was made from, and its place; None where it is a row of a pool."""
    rows = view.rows("segments", "segment", origin)
    return _place(view, rows[0]) if rows else None


def _place(view: View, row: Mapping[str, Any]) -> dict[str, Any]:
    file = view.files.get(row["file"], {})
    place = occurrence(file, {**row, "path": file.get("path")})
    names = ("segment", "article", "title", "number", "text")
    return {**{name: row[name] for name in names}, "place": place}
