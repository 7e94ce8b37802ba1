"""Rows of a user's pool as targets and as the distiller's items."""

from __future__ import annotations

from collections.abc import Sequence

from mixup.mixture.items import Item
from mixup.records import Turn

TARGET_FLOOR = 4
"""The lowest compressed rating, 0 to 5, of a target. Source: spec 2.2, step 4 (tau)."""


def is_target(rating: int) -> bool:
    """Whether an item of this compressed rating is a target; -1 (unrated) never is.

    The others stay rated for the reference library.
    """
    return rating >= TARGET_FLOOR


def item_of_turns(turns: Sequence[Turn], task: str) -> Item:
    """A pool row as an item that the distiller could write.

    Raises:
        RecordError: With the reason why it cannot be a target (see ``POOL_REASONS``).
    """
    raise NotImplementedError
