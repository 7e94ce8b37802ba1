"""Items cut from a segment by rule, without a model: at most one for each task type."""

from __future__ import annotations

from collections.abc import Sequence

from mixup.mixture.items import ItemOutcome, Segment
from mixup.text.tasks import TASKS


def items_of(segment: Segment, *, seed: int, tasks: Sequence[str] = TASKS) -> list[ItemOutcome]:
    """One outcome for each task type: an item cut from the segment, or the reason for none.

    A function of (segment key, seed, text). Items are class 5 by construction.
    """
    raise NotImplementedError
