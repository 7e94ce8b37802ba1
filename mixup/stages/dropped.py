"""How much of a pool may be dropped as defective, checked over tables at every run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow.compute as pc

from mixup.errors import MixupError
from mixup.stages.recorded_files import pool_counts
from mixup.stages.run import RunContext
from mixup.tables import scan_files, snapshot
from mixup.workspace import Workspace


def check_quarantine(context: RunContext, limit: float) -> None:
    """Check the share of quarantined rows over the whole pool, whichever run read its files.

    Raises:
        MixupError: If it is above the limit.
    """
    rows, quarantined = pool_counts(context.workspace, context.pool)
    if quarantined > limit * max(rows, 1):
        raise MixupError(
            f"{quarantined} of the pool's {rows} rows are in the quarantine, more than "
            f"max_dropped_share={limit}; look at the quarantine table, mend the input or raise it"
        )


def check_outcomes(
    workspace: Workspace,
    table: str,
    revision: tuple[str, str],
    reasons: Sequence[str],
    limit: float,
) -> None:
    """Check the share of outcomes with a defect, whichever run made them.

    Args:
        workspace: The workspace.
        table: The table of the outcomes.
        revision: The column that tells whose outcomes they are, and its value today.
        reasons: The reasons that are defects.
        limit: The largest share.

    Raises:
        MixupError: If the share is larger.
    """
    column, value = revision
    rows, found = 0, Counter[str]()
    for part in scan_files(workspace, table, snapshot(workspace, table).paths, [column, "reason"]):
        mine = part.filter(pc.equal(part[column], value))
        rows += mine.num_rows
        found.update(mine["reason"].to_pylist())
    bad = {reason: found[reason] for reason in reasons if found[reason]}
    if sum(bad.values()) > limit * max(rows, 1):
        named = ", ".join(f"{reason} {count}" for reason, count in bad.items())
        raise MixupError(
            f"{sum(bad.values())} of {rows} rows of table {table} have a defect ({named}), more "
            f"than max_dropped_share={limit}; mend the input or the config, or raise it"
        )
