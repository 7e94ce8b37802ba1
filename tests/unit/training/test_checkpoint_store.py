"""The store's own behavior, with small files in place of a model's."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mixup.errors import TableError, TrainingError
from mixup.lock import acquire
from mixup.training.checkpoints import (
    CheckpointRecord,
    CheckpointStore,
    Ranks,
    best_of,
    check_resumable,
)
from mixup.workspace import Workspace, ensure_workspace


def record(step: int, loss: float | None = None, **changed) -> CheckpointRecord:
    has_weights = changed.pop("has_weights", loss is not None)
    values = {"steps": 9, "world": 2, "stage": 2, "plan": "p" * 32, "run": "r"} | changed
    return CheckpointRecord(step=step, loss=loss, has_weights=has_weights, **values)


@pytest.fixture
def store(tmp_path) -> CheckpointStore:
    return CheckpointStore(Workspace(str(tmp_path)), "t", run="r")


def save(store: CheckpointStore, found: CheckpointRecord, text: str = "state") -> None:
    store.save(found, lambda folder: write(folder, text), Ranks())


def write(folder: Path, text: str) -> None:
    (folder / "state").write_text(text)


def names(store: CheckpointStore) -> list[str]:
    return store.workspace.list(store.folder)


def test_there_is_nothing_before_the_first(store):
    assert store.records() == []
    assert store.last() is None
    assert store.best() is None


def test_the_last_and_the_best_are_kept(store):
    for step, loss in ((1, 2.0), (2, 1.0), (3, None), (4, 1.5)):
        save(store, record(step, loss))
    assert names(store) == ["step-00000002", "step-00000004"]
    assert store.last() == record(4, 1.5)
    assert store.best() == record(2, 1.0)


def test_what_has_no_weights_is_never_the_best():
    assert best_of([record(1, 0.5, has_weights=False), record(2, 0.7)]) == record(2, 0.7)
    assert best_of([record(1, 0.7), record(2, 0.7)]) == record(1, 0.7)
    assert best_of([record(1)]) is None


def test_a_checkpoint_that_was_not_finished_is_not_there(store):
    save(store, record(1))

    def killed(folder: Path) -> None:
        write(folder, "half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.save(record(2), killed, Ranks())
    assert store.last() == record(1)
    save(store, record(2), "whole")  # its leftovers are in nobody's way
    with store.opened(record(2)) as folder:
        assert (folder / "state").read_text() == "whole"
    assert names(store) == ["step-00000002"]


def test_only_rank_0_makes_it_visible(store):
    order: list[str] = []
    ranks = [Ranks(rank, 2, rank, lambda: order.append("barrier")) for rank in (0, 1)]
    root = Path(store.workspace.uri) / store.folder
    root.mkdir(parents=True)

    def first(folder: Path) -> None:
        store.save(record(1), lambda staged: write_rank(staged, 1, order), ranks[1])
        assert names(store) == [folder.name]
        write_rank(folder, 0, order)

    store.save(record(1), first, ranks[0])
    assert names(store) == ["step-00000001"]
    with store.opened(record(1)) as folder:
        assert {path.name for path in folder.iterdir()} == {"rank0", "rank1", "checkpoint.json"}


def write_rank(folder: Path, rank: int, order: list[str]) -> None:
    order.append(f"write {rank}")
    (folder / f"rank{rank}").write_text("state")


def test_a_full_disk_is_named(store):
    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(TrainingError, match="no space left for the checkpoint of step 1"):
        store.save(record(1), full, Ranks())


def test_a_run_whose_lock_has_passed_publishes_nothing(tmp_path):
    workspace = ensure_workspace(str(tmp_path), buckets=1)
    with acquire(workspace, "old") as old:
        mine = CheckpointStore(workspace, "t", run="old", token=old.token)
        save(mine, record(1))
    with acquire(workspace, "new"), pytest.raises(TableError, match="has passed to"):
        save(mine, record(2))
    assert mine.last() == record(1)


@pytest.mark.parametrize(("stage", "was", "now"), [(2, 2, 2), (3, 2, 2), (0, 2, 5), (0, 5, 1)])
def test_what_can_be_gone_on_from(stage, was, now):
    found = record(1, stage=stage, world=was)
    check_resumable(found, plan=found.plan, world=now, stage=stage)


@pytest.mark.parametrize(
    ("stage", "was", "now", "said"),
    [
        (3, 2, 1, "set workers.count=2, or"),
        (3, 1, 2, "cannot be divided among 2"),
        (2, 1, 2, "set workers.count=1, or"),
        (1, 4, 2, "was written by 4 worker"),
    ],
)
def test_what_cannot_be_divided_says_what_can(stage, was, now, said):
    found = record(1, stage=stage, world=was)
    with pytest.raises(TrainingError, match=said):
        check_resumable(found, plan=found.plan, world=now, stage=stage)


def test_another_stage_or_plan_is_refused():
    with pytest.raises(TrainingError, match="set zero.stage=2"):
        check_resumable(record(1), plan=record(1).plan, world=2, stage=3)
    with pytest.raises(TrainingError, match="other examples or batches"):
        check_resumable(record(1), plan="q" * 32, world=2, stage=2)
