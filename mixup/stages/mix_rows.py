"""The rows of MIXTURE on their way to their cells: pool rows and items alike, with their origin."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mixup.mixture.degraded import VariantSettings
from mixup.mixture.fusion_groups import FusionSettings
from mixup.mixture.items import CONSTRUCTION
from mixup.mixture.splits import SplitShares
from mixup.records import TURNS
from mixup.stages.cell import CellSettings
from mixup.stages.cell_rows import joined, visible_in, write_by_cell
from mixup.stages.cell_tasks import CellWork
from mixup.stages.pieces import Piece, PieceWriter
from mixup.stages.pool import pool_by_age
from mixup.stages.pool_rows import pool_rows, vectors_of
from mixup.tables import read_files

MIX_ROWS = pa.schema(
    [
        ("partition", pa.int32()),
        ("visitor", pa.bool_()),
        ("uid", pa.string()),
        ("rank", pa.int64()),
        ("offset", pa.int64()),
        ("task", pa.string()),
        ("rating", pa.int8()),
        ("vector", pa.list_(pa.float32())),
        ("rating_source", pa.string()),
        ("licence", pa.string()),
        ("contaminated", pa.bool_()),
        ("turns", TURNS),
        ("article", pa.string()),
        ("origin", pa.string()),
        ("rule", pa.string()),
    ]
)
"""A row of a cell. ``article`` is what splits go by, ``origin`` the segment or pool row that it was
made from, ``rule`` how."""

_OF_ALL = ("uid", "rank", "offset", "task", "rating", "vector", "licence", "contaminated")
POOL = "pool"
"""The rule of a row that is as it was in the pool."""


@dataclass(frozen=True)
class MixSettings:
    """All that decides pairs besides the rows.

    Attributes:
        cells: The cells, the encoder, the rater and the evaluation questions.
        tasks: The task types that are used.
        seed: The seed of every draw.
        variants: How targets are degraded.
        fusion: Which targets are fused.
        shares: The splits.
        thought_share: The share of pairs with a chain of thought.
        neighbors: Most low-rated neighbors of a target that are looked at.
        neighbor_floor: Their least similarity.
        near_duplicate: The similarity from which two targets of one task are the same.
        licences: The licences that are allowed; None: all.
        classes: The class of unrated rows by the fingerprint of their file.
        items: The fingerprints under which items made from text are recorded.
        rated_by: The source of observed ratings, ``column`` or ``judge``.
        teacher: The revision of who made the items.
    """

    cells: CellSettings
    tasks: tuple[str, ...]
    seed: int
    variants: VariantSettings
    fusion: FusionSettings
    shares: SplitShares
    thought_share: float
    neighbors: int
    neighbor_floor: float
    near_duplicate: float
    licences: tuple[str, ...] | None
    classes: Mapping[str, int]
    items: Collection[str]
    rated_by: str
    teacher: str


MixWork = CellWork[MixSettings]


def stage_mix_rows(work: MixWork, bucket: int) -> list[Piece]:
    """Write the rows of one bucket as pieces of the cells that are worked on; runs in a worker."""
    workspace, tables, settings = work.workspace, work.tables, work.settings
    places = read_files(workspace, "places", tables["places"].in_bucket(bucket))
    places = visible_in(places, work.cells)
    rows = pool_rows(workspace, tables, bucket, work.pool, settings.cells)
    rows = joined(rows.filter(pc.is_in(rows["uid"], places["uid"])), places, ["cell", "visits"])
    occurrences = pool_by_age(workspace, tables, bucket, work.pool)
    rows = joined(rows, occurrences, ["extra"])
    rows = _with_origin(rows, settings)
    records = read_files(
        workspace, "records", tables["records"].in_bucket(bucket), ["uid", "task", "turns"]
    )
    rows = joined(rows, records, ["task", "turns"])
    writer = PieceWriter(workspace, work.folder, f"mix-{bucket:05d}")
    names = [name for name in rows.column_names if name not in ("uid", "extra")]
    for part in vectors_of(workspace, tables, bucket, rows["uid"].combine_chunks(), settings.cells):
        write_by_cell(writer, joined(part, rows, names), work.cells, MIX_ROWS, _OF_ALL)
    writer.flush()
    return writer.pieces


def _with_origin(rows: pa.Table, settings: MixSettings) -> pa.Table:
    """The rows with where they come from, and with the class that their file gives them."""
    found = [_origin(row, settings) for row in rows.select(["uid", "file", "extra"]).to_pylist()]
    origin = {name: [one[name] for one in found] for name in ("article", "origin", "rule")}
    for name, values in origin.items():
        rows = rows.append_column(name, pa.array(values, pa.string()))
    by_file = pa.array([settings.classes.get(file) for file in rows["file"].to_pylist()], pa.int8())
    observed = rows["rating"].combine_chunks()
    source = pc.if_else(
        pc.is_valid(observed),
        settings.rated_by,
        pc.if_else(pc.is_valid(by_file), CONSTRUCTION, pa.scalar(None, pa.string())),
    )
    place = rows.schema.get_field_index("rating")
    rows = rows.set_column(place, "rating", pc.coalesce(observed, by_file))
    return rows.append_column("rating_source", source)


def _origin(row: Mapping[str, Any], settings: MixSettings) -> dict[str, str]:
    if row["file"] not in settings.items:
        return {"article": row["uid"], "origin": row["uid"], "rule": POOL}
    extra = json.loads(row["extra"])
    return {"article": extra["article"], "origin": extra["segment"], "rule": extra["rule"]}


def placed_first(rows: pa.Table) -> pa.Table:
    """The rows of a cell, oldest first."""
    return rows.sort_by([("rank", "ascending"), ("offset", "ascending"), ("uid", "ascending")])
