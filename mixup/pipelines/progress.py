"""A run of a job that writes a workspace: how it starts, and which stages had something to do."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from mixup.actors.resources import check_place, cluster
from mixup.config import RayConfig
from mixup.ledger import StageCounts
from mixup.lock import acquire
from mixup.stages.run import RunContext, StageState
from mixup.stages.summary import stage_record
from mixup.stages.vacuum import clean_up
from mixup.workspace import Workspace

logger = logging.getLogger(__name__)


class RunConfig(Protocol):
    """What the config of every job that writes a workspace has."""

    @property
    def workspace_shared(self) -> bool:
        """Whether a local workspace lies where all nodes find it."""
        ...

    @property
    def commit_interval_s(self) -> float:
        """Least seconds between two commits."""
        ...

    @property
    def stall_timeout_s(self) -> float:
        """Seconds without a finished row after which a stage has failed."""
        ...

    @property
    def ray(self) -> RayConfig:
        """The cluster."""
        ...

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """The config as data."""
        ...


@contextmanager
def started_run(
    workspace: Workspace, config: RunConfig, pool: Sequence[str] = ()
) -> Iterator[RunContext]:
    """A run that holds the workspace's lock for the block, and has cleaned it up.

    Args:
        workspace: The workspace.
        config: The job's config, which is stored with the run.
        pool: The fingerprints of the pool's files, as far as they are known.

    Raises:
        TableError: If another run holds the lock.
    """
    run = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
    with acquire(workspace, run) as lease:
        context = RunContext(
            workspace,
            run,
            lease.token,
            tuple(pool),
            config.commit_interval_s,
            config.stall_timeout_s,
        )
        workspace.write_json(f"runs/{run}/config.json", config.model_dump(mode="json"))
        logger.info("run %s in %s", run, workspace.uri)
        clean_up(context, lease)
        yield context


@contextmanager
def cluster_of(context: RunContext, config: RunConfig) -> Iterator[None]:
    """The cluster that a run works on, for the block.

    Raises:
        ConfigError: If not all of its nodes find the workspace.
    """
    with cluster(config.ray):
        check_place(context.workspace, shared=config.workspace_shared)
        yield


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

    def note_end(self, context: RunContext, **made: str) -> None:
        """Write what the run made, under its kind, and what its stages did, beside its config."""
        document = {**made, "stages": [stage_record(counts) for counts in self.ran]}
        context.workspace.write_json(
            f"runs/{context.run}/summary.json", {**document, "ended": time.time()}
        )
