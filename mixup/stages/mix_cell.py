"""One cell of MIXTURE: its rows become targets or variants, and targets become pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixup.errors import RecordError
from mixup.mixture.pool import is_target, item_of_turns
from mixup.mixture.splits import split_of
from mixup.quality.neighbors import near_duplicate_of
from mixup.records import TABLES
from mixup.selection.acceptance import CONTAMINATED
from mixup.selection.licences import allowed
from mixup.stages.embed import vectors_from_arrow
from mixup.stages.mix_pairs import LOW, MixCell, pair_row, pairs_of, turns_of
from mixup.stages.mix_rows import MixSettings, placed_first

NEAR_DUPLICATE = "near_duplicate"
UNRATED = "unrated"
OTHER_TASK = "other_task"
LICENCE = "licence"


def mix_cell(number: int, rows: pa.Table, settings: MixSettings) -> tuple[pa.Table, pa.Table]:
    """The rows of the tables ``mixture`` and ``targets`` for one cell.

    A function of the cell's rows and the settings: neither the order of the rows nor what other
    cells hold matters.

    Args:
        number: The cell's id.
        rows: Its rows and visitors, in the columns of ``MIX_ROWS``.
        settings: What decides.
    """
    rows = placed_first(rows)
    own = rows.filter(pc.invert(rows["visitor"]))
    listed = own.drop_columns(["vector"]).to_pylist()
    splits = [
        split_of(row["article"], seed=settings.seed, shares=settings.shares) for row in listed
    ]
    cell = MixCell(number, listed, vectors_from_arrow(own["vector"]), splits)
    for place, row in enumerate(listed):
        _look_at(cell, place, row, settings)
    _leave_out_duplicates(cell, rows, settings)
    made = [pair_row(cell, pair, members) for pair, members in pairs_of(cell, settings)]
    return (
        pa.Table.from_pylist(made, schema=TABLES["mixture"].file_schema),
        pa.Table.from_pylist(_target_rows(cell), schema=TABLES["targets"].file_schema),
    )


def _look_at(cell: MixCell, place: int, row: dict[str, Any], settings: MixSettings) -> None:
    """Decide whether a row may be a target."""
    reason = _reason_of(row, settings)
    if reason is None:
        try:
            cell.items[place] = item_of_turns(turns_of(row), row["task"])
            return
        except RecordError as error:
            reason = error.reason
    cell.reasons[place] = reason


def _reason_of(row: dict[str, Any], settings: MixSettings) -> str | None:
    if row["rating"] is None:
        return UNRATED
    if row["contaminated"]:
        return CONTAMINATED
    if row["task"] not in settings.tasks:
        return OTHER_TASK
    if not allowed(row["licence"], settings.licences):
        return LICENCE
    return None if is_target(row["rating"]) else LOW


def _leave_out_duplicates(cell: MixCell, rows: pa.Table, settings: MixSettings) -> None:
    """Of near-duplicate targets of one task the oldest stays; it may be at home elsewhere.

    So no two splits hold near-duplicates of one task.
    """
    known = rows.select(["visitor", "uid", "task", "rating", "licence", "contaminated"]).to_pylist()
    homes = np.cumsum([not row["visitor"] for row in known]) - 1
    leads = [
        _reason_of(row, settings) is None if row["visitor"] else int(home) in cell.items
        for row, home in zip(known, homes, strict=True)
    ]
    for task in settings.tasks:
        places = [at for at, row in enumerate(known) if leads[at] and row["task"] == task]
        if len(places) < 2:
            continue
        vectors = vectors_from_arrow(rows["vector"].take(pa.array(places)))
        leader = near_duplicate_of(vectors, np.arange(len(places)), settings.near_duplicate)
        for at, found in enumerate(leader.tolist()):
            if found != at and not known[places[at]]["visitor"]:
                row = int(homes[places[at]])
                cell.duplicates[row] = known[places[found]]["uid"]
                cell.reasons[row] = NEAR_DUPLICATE
                del cell.items[row]


def _target_rows(cell: MixCell) -> list[dict[str, Any]]:
    return [
        {
            "uid": row["uid"],
            "cell": cell.number,
            "task": row["task"],
            "split": cell.splits[place],
            "rating": row["rating"],
            "rating_source": row["rating_source"],
            "pair": cell.pairs.get(place),
            "duplicate_of": cell.duplicates.get(place),
            "reason": cell.reasons.get(place),
        }
        for place, row in enumerate(cell.rows)
    ]
