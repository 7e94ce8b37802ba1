"""Which stages of a run there was something to do for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from mixup.ledger import StageCounts
from mixup.stages.run import StageState

logger = logging.getLogger(__name__)


@dataclass
class Progress:
    """The stages that ran and those that had nothing to do.

    Attributes:
        ran: The counts of those that ran, in order.
        skipped: The names of the others.
    """

    ran: list[StageCounts] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def run(self, name: str, state: StageState | None, stage: Callable[[], StageCounts]) -> None:
        """Run a stage unless it is current."""
        self.run_all(name, state, lambda: [stage()])

    def run_all(
        self, name: str, state: StageState | None, stages: Callable[[], Iterable[StageCounts]]
    ) -> None:
        """Run stages that are one piece of work unless it is current."""
        if state is not None and state.is_current:
            self.skip(name)
            return
        logger.info("%s: started", name)
        self.ran.extend(stages())

    def skip(self, name: str) -> None:
        """Note that a stage has nothing to do."""
        logger.info("%s: nothing to do", name)
        self.skipped.append(name)
