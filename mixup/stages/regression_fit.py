"""The regression of a reference library, and the panel of rows that stands for the pool under it.

Both are kept with the library (``stages.reference``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mixup.quality.panel import Panel
from mixup.quality.regression import Regression
from mixup.stages.embed import vectors_from_arrow, vectors_to_arrow
from mixup.stages.pieces import Piece
from mixup.workspace import Workspace

PANEL_ROWS = 20_000
"""About so many rows of a pool are in its panel."""


@dataclass(frozen=True)
class DrawnRows:
    """Rows that were drawn of a pool, or of rated files.

    Attributes:
        uids: N uids.
        vectors_ND: Unit vectors.
        ratings_N: Observed ratings 0-5, -1 for unrated.
    """

    uids: list[str]
    vectors_ND: np.ndarray
    ratings_N: np.ndarray

    def none(self) -> DrawnRows:
        """No row, with vectors of the same dimension."""
        return DrawnRows([], self.vectors_ND[:0], self.ratings_N[:0])

    @classmethod
    def read(cls, workspace: Workspace, pieces: Sequence[Piece]) -> DrawnRows:
        """The rows of drawn pieces, at least one, by uid."""
        rows = pa.concat_tables([piece.read(workspace) for piece in pieces]).sort_by("uid")
        ratings = rows["rating"].to_numpy().astype(np.int64)
        return cls(rows["uid"].to_pylist(), vectors_from_arrow(rows["vector"]), ratings)


@dataclass(frozen=True)
class RegressionFit:
    """What tells quality instead of votes.

    Attributes:
        regression: The models.
        panel: What they say of rows of the pool; none of them where the library is of other files.
    """

    regression: Regression
    panel: Panel


def save_regression(workspace: Workspace, folder: str, fit: RegressionFit) -> None:
    """Write both into a library's folder."""
    panel = pa.table(
        {
            "own": pa.array(fit.panel.own_P, pa.int8()),
            "shares": vectors_to_arrow(fit.panel.shares_PC),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(panel, sink, compression="zstd")
    workspace.write_bytes(f"{folder}/panel.parquet", sink.getvalue().to_pybytes())
    workspace.write_json(f"{folder}/regression.json", fit.regression.as_json())


def load_regression(workspace: Workspace, folder: str) -> RegressionFit | None:
    """Read both; None where votes tell quality."""
    found = workspace.read_json(f"{folder}/regression.json")
    if found is None:
        return None
    regression = Regression.from_json(found)
    filesystem, root = workspace.filesystem()
    table = pq.read_table(f"{root}/{folder}/panel.parquet", filesystem=filesystem)
    shares = vectors_from_arrow(table["shares"]).reshape(-1, len(regression.classes))
    own = table["own"].to_numpy().astype(np.int64)
    return RegressionFit(regression, Panel(regression.classes, shares, own))
