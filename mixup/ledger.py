"""Counts that must add up, and the one fate of every ingested occurrence."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from mixup.errors import LedgerError

logger = logging.getLogger(__name__)

FATE_ORIGINAL = "original"
FATE_MERGED = "merged"
FATE_DUPLICATE = "duplicate"
FATE_QUARANTINED = "quarantined"
FATE_LEFT_OUT = "left_out"


def left_out(reason: str) -> str:
    """The fate of an occurrence that is in no release for a reason."""
    return f"{FATE_LEFT_OUT}:{reason}"


@dataclass(frozen=True)
class StageCounts:
    """What came into a stage, in the stage's own unit, and where all of it went.

    Attributes:
        stage: The stage's name.
        unit: What is counted: occurrences, records, clusters, samples.
        rows_in: The units that came in.
        parts: The disjoint groups into which they went, by name; dropped groups included.
        dropped: The names of the parts that count as dropped.
        seconds: The stage's wall time.
    """

    stage: str
    unit: str
    rows_in: int
    parts: Mapping[str, int]
    dropped: tuple[str, ...] = ()
    seconds: float = 0.0
    extra: Mapping[str, int] = field(default_factory=dict)

    @property
    def rows_out(self) -> int:
        """The units that were not dropped."""
        return self.rows_in - self.rows_dropped

    @property
    def rows_dropped(self) -> int:
        """The units in the dropped parts."""
        return sum(self.parts.get(name, 0) for name in self.dropped)

    def check(self) -> StageCounts:
        """Return the counts if the parts add up to what came in.

        Raises:
            LedgerError: If they do not.
        """
        total = sum(self.parts.values())
        if total != self.rows_in:
            raise LedgerError(
                f"stage {self.stage}: {self.rows_in} {self.unit} came in, but the parts "
                f"{dict(self.parts)} add up to {total}"
            )
        return self

    def log(self) -> StageCounts:
        """Write the stage's one closing line to the log."""
        parts = ", ".join(f"{name} {count}" for name, count in self.parts.items() if count)
        logger.info(
            "%s: %d %s in, %d dropped, %.1f s (%s)",
            self.stage,
            self.rows_in,
            self.unit,
            self.rows_dropped,
            self.seconds,
            parts,
        )
        return self


def check_fates(fates: Mapping[str, int], occurrences: int) -> None:
    """Check that every occurrence, quarantined rows included, has exactly one fate.

    Raises:
        LedgerError: If the fates do not add up to the occurrences.
    """
    total = sum(fates.values())
    if total != occurrences:
        raise LedgerError(f"{occurrences} rows came in, but {total} have a fate: {dict(fates)}")
