"""Checkpoints of a training in the workspace: a folder a step, each either whole or not there.

Every rank writes its own part, into one folder where the ranks share a disk, else into a folder of
its own that it uploads. When all have, rank 0 writes the record and makes the folder visible. So a
worker or driver that is killed at any moment leaves the checkpoint before. What a run goes on from
is the last whole one, whoever wrote it: a restarted worker and a restarted job do the same.

Optimizer states are DeepSpeed's files, which are pickles: go on from checkpoints of your own only.
The weights that are exported are safetensors.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pyarrow import fs

from mixup.errors import TrainingError
from mixup.lock import ensure_held
from mixup.records import content_key
from mixup.workspace import Workspace, is_full

logger = logging.getLogger(__name__)

FOLDER = "checkpoints"
RECORD = "checkpoint.json"
WEIGHTS = "weights"
"""The part of a checkpoint that can be exported: safetensors, written for a best and a last one."""
_NAME = re.compile(r"^step-\d{8}$")


@dataclass(frozen=True)
class CheckpointRecord:
    """What is said of a checkpoint.

    Attributes:
        step: The optimizer steps that were done, which is the position in the plan too.
        steps: The steps of the whole training.
        world: The workers that wrote it.
        stage: The ZeRO stage that they ran at.
        plan: The fingerprint of the plan of batches.
        loss: The held-out loss at this step; None where none was measured.
        has_weights: Whether it holds weights that can be exported.
        run: The run that wrote it.
    """

    step: int
    steps: int
    world: int
    stage: int
    plan: str
    loss: float | None
    has_weights: bool
    run: str

    @property
    def is_final(self) -> bool:
        """Whether the training was over."""
        return self.step >= self.steps

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"step-{self.step:08d}"


@dataclass(frozen=True)
class Ranks:
    """The processes that write a checkpoint together.

    Attributes:
        rank: The caller's, from 0.
        world: How many there are.
        local_rank: The caller's among those of its machine.
        barrier: Waits for all.
        agree: What rank 0 gives it, on all ranks, which all must call. What a rank reads of a
            folder by itself may be older than what another does.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    barrier: Callable[[], object] = lambda: None
    agree: Callable[[Any], Any] = lambda given: given


@dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints of one training.

    Attributes:
        workspace: Where they are.
        training: The training's folder in ``checkpoints/``.
        run: The run that writes.
        token: Its fencing token; a run whose lock has passed to another one publishes nothing.
    """

    workspace: Workspace
    training: str
    run: str = ""
    token: int = -1

    @property
    def folder(self) -> str:
        """The folder, relative to the workspace."""
        return f"{FOLDER}/{self.training}"

    def records(self) -> list[CheckpointRecord]:
        """The records of all whole checkpoints, by step."""
        found = []
        for name in self.workspace.list(self.folder):
            if _NAME.match(name):
                record = self.workspace.read_json(f"{self.folder}/{name}/{RECORD}")
                if record is not None:
                    found.append(CheckpointRecord(**record))
        return sorted(found, key=lambda record: record.step)

    def last(self) -> CheckpointRecord | None:
        """The last whole checkpoint."""
        return max(self.records(), key=lambda record: record.step, default=None)

    def best(self) -> CheckpointRecord | None:
        """The one of the lowest held-out loss; the earliest of equals."""
        return best_of(self.records())

    def save(self, record: CheckpointRecord, write: Callable[[Path], None], ranks: Ranks) -> None:
        """Write a checkpoint; called by every rank at once.

        Args:
            record: What is said of it, the same on all ranks.
            write: Writes the caller's part into a folder, which others may write into too.
            ranks: The processes that take part.

        Raises:
            TrainingError: If the disk is full.
            TableError: If the lock has passed to another run.
        """
        try:
            if self.workspace.is_local:
                self._save_shared(record, write, ranks)
            else:
                self._save_uploaded(record, write, ranks)
        except Exception as error:
            if not (is_full(error) or _is_cut_off(error)):
                raise
            raise TrainingError(
                f"no space left for the checkpoint of step {record.step} in {self.workspace.uri}; "
                "make room, and the same command goes on from the last one"
            ) from error
        if ranks.rank == 0:
            self._prune()
        ranks.barrier()

    def _save_shared(
        self, record: CheckpointRecord, write: Callable[[Path], None], ranks: Ranks
    ) -> None:
        root = Path(self.workspace.path(self.folder))
        staged = root / f"{record.name}.{content_key(self.run)[:8]}.tmp"
        if ranks.rank == 0:
            shutil.rmtree(staged, ignore_errors=True)  # of a worker that was killed while it wrote
            staged.mkdir(parents=True)
        ranks.barrier()
        write(staged)
        ranks.barrier()
        if ranks.rank == 0:
            self._ensure_held()
            (staged / RECORD).write_text(json.dumps(asdict(record)), encoding="utf-8")
            target = root / record.name
            shutil.rmtree(target, ignore_errors=True)
            staged.rename(target)

    def _save_uploaded(
        self, record: CheckpointRecord, write: Callable[[Path], None], ranks: Ranks
    ) -> None:
        target = f"{self.folder}/{record.name}"
        filesystem, root = self.workspace.filesystem()
        with tempfile.TemporaryDirectory(prefix="mixup-checkpoint-") as folder:
            write(Path(folder))
            fs.copy_files(folder, f"{root}/{target}", fs.LocalFileSystem(), filesystem)
        ranks.barrier()
        if ranks.rank == 0:
            self._ensure_held()
            self.workspace.write_json(f"{target}/{RECORD}", asdict(record))

    def _ensure_held(self) -> None:
        if self.token >= 0:
            ensure_held(self.workspace, self.token)

    def _prune(self) -> None:
        """Delete all but the best and the last; a record goes first, so that none is half there."""
        records = self.records()
        kept = {found.step for found in (best_of(records), records[-1]) if found is not None}
        filesystem, root = self.workspace.filesystem()
        for record in records:
            if record.step in kept:
                continue
            place = f"{root}/{self.folder}/{record.name}"
            if self.workspace.is_local:  # under a name by which the vacuum frees it after a kill
                Path(place).rename(f"{place}.{content_key(self.run)[:8]}.tmp")
                place = f"{place}.{content_key(self.run)[:8]}.tmp"
            else:
                filesystem.delete_file(f"{place}/{RECORD}")
            filesystem.delete_dir(place)

    @contextmanager
    def opened(self, record: CheckpointRecord, ranks: Ranks = Ranks()) -> Iterator[Path]:
        """A checkpoint as a local folder, for the block; each machine downloads it once."""
        place = self.workspace.path(f"{self.folder}/{record.name}")
        if self.workspace.is_local:
            yield Path(place)
            return
        key = content_key(self.run, self.training, record.step)[:12]
        folder = Path(tempfile.gettempdir()) / f"mixup-checkpoint-{key}"
        if ranks.local_rank == 0:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            filesystem, _ = self.workspace.filesystem()
            fs.copy_files(place, str(folder), filesystem, fs.LocalFileSystem())
        ranks.barrier()
        try:
            yield folder
            ranks.barrier()  # not after a failure: others would take it for one of their own
        finally:
            if ranks.local_rank == 0:
                shutil.rmtree(folder, ignore_errors=True)


def _is_cut_off(error: Exception) -> bool:
    """Whether a file could not be written to its end: PyTorch writes in C++ and gives no errno."""
    said = str(error)
    return any(name in said for name in ("PytorchStreamWriter", "inline_container", "os error 28"))


def best_of(records: list[CheckpointRecord]) -> CheckpointRecord | None:
    """The one of the lowest held-out loss among those that can be exported, or None."""
    measured = [found for found in records if found.loss is not None and found.has_weights]
    return min(measured, key=lambda found: (found.loss, found.step), default=None)


def check_resumable(record: CheckpointRecord, *, plan: str, world: int, stage: int) -> None:
    """Check that workers can go on from a checkpoint.

    Source: DeepSpeed 0.19.8. Under stage 0 every file holds the whole state. Under the others it is
    divided among the workers, and what would divide it anew (`elastic_checkpoint`, stages 1 and 2)
    refuses the state of PyTorch's AdamW.

    Raises:
        TrainingError: If they cannot; says what can be changed.
    """
    if record.plan != plan:
        raise TrainingError(
            f"the checkpoint of step {record.step} is of other examples or batches (plan "
            f"{record.plan[:12]}, now {plan[:12]}); delete its folder to start again"
        )
    if record.stage != stage:
        raise TrainingError(
            f"the checkpoint of step {record.step} is of ZeRO stage {record.stage}, not {stage}; "
            f"set zero.stage={record.stage}, or delete the checkpoint's folder to start again"
        )
    if record.world != world and stage > 0:
        raise TrainingError(
            f"the checkpoint of step {record.step} was written by {record.world} worker(s), and "
            f"its ZeRO-{stage} state cannot be divided among {world}; set workers.count="
            f"{record.world}, or delete the checkpoint's folder to start again"
        )
