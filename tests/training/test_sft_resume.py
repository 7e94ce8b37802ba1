"""A node, a worker or the job is killed: the run ends as an undisturbed one, to the bit."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from job_processes import end, finish, session_of, start, wait_for_step
from tiny_training import tiny_job, write_tiny_model

from mixup.training.checkpoints import CheckpointStore
from mixup.training.metrics import read_metrics
from mixup.workspace import Workspace

STEPS = 60


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough that a step takes a moment."""
    return write_tiny_model(tmp_path_factory.mktemp("model") / "m", hidden=128)


def write_job(place: Path, model: Path, examples: Path, **changed: object) -> Path:
    job = tiny_job(place / "w", model, examples)
    job["optimizer"] |= {"max_steps": STEPS, "epochs": 100.0}
    job["checkpoints"] = {"every_steps": 5}
    job["lora"] = {"rank": 4, "dropout": 0.1}  # dropout draws random numbers
    job["ray"] = {"cpus": 2, "object_store_gb": 0.3}
    path = place / "job.yaml"
    path.write_text(json.dumps(job | changed))
    return path


def training(place: Path) -> str | None:
    names = Workspace(str(place / "w")).list("checkpoints")
    return names[0] if names else None


@pytest.fixture(scope="module")
def undisturbed(model: Path, examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("undisturbed")
    process = start("train-sft", write_job(place, model, examples))
    try:
        finish(process)
    finally:
        end(process)
    return place


def state(place: Path) -> dict[str, object]:
    """Everything in the last checkpoint, tensor by tensor; and the losses of all steps."""
    import torch

    workspace = Workspace(str(place / "w"))
    name = training(place)
    assert name is not None
    store = CheckpointStore(workspace, name)
    last = store.last()
    assert last is not None
    assert last.is_final
    folder = Path(workspace.uri) / store.folder / last.name
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*.pt*")):
        flatten(str(path.relative_to(folder)), torch.load(path, weights_only=False), found)
    return {**found, "losses": losses_of(place)}


def losses_of(place: Path) -> list[tuple[int, float]]:
    """Step and loss of every step; each is there once."""
    lines = read_metrics(Workspace(str(place / "w")), f"checkpoints/{training(place)}")
    losses = [(row["step"], row["loss"]) for row in lines if row["kind"] == "train"]
    assert [step for step, _ in losses] == list(range(1, STEPS + 1))
    return losses


def flatten(name: str, value: object, into: dict[str, object]) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            flatten(f"{name}/{key}", item, into)
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            flatten(f"{name}/{place}", item, into)
    else:
        into[name] = value


def assert_same(one: dict[str, object], other: dict[str, object]) -> None:
    import numpy as np
    import torch

    assert one.keys() == other.keys()
    tensors = 0
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            tensors += 1
            assert torch.equal(value, other[name]), name  # type: ignore[reportArgumentType]
        elif isinstance(value, np.ndarray):
            assert np.array_equal(value, other[name]), name  # type: ignore[reportArgumentType]
        elif isinstance(value, int | float | str | list):
            assert value == other[name], name
    assert tensors > 20


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_node_that_is_killed_changes_nothing(undisturbed, two_nodes, model, examples, tmp_path):
    """Two nodes with a worker each; one is killed, and another one takes its place."""
    nodes = two_nodes(1)  # so that each has room for one worker
    job = write_job(tmp_path, model, examples, ray={"address": nodes.address})
    process = start("train-sft", job)
    try:
        wait_for_step(process, tmp_path / "w", 12)
        nodes.do("kill")
        nodes.do("add")
        finish(process)
    finally:
        end(process)
    assert_same(state(undisturbed), state(tmp_path))


@pytest.mark.thorough  # the killed node takes its worker with it
@pytest.mark.timeout(600)
def test_a_killed_worker_changes_nothing(undisturbed, model, examples, tmp_path):
    process = start("train-sft", write_job(tmp_path, model, examples))
    try:
        wait_for_step(process, tmp_path / "w", 12)
        workers = [
            other for other in session_of(process) if "RayTrainWorker" in " ".join(other.cmdline())
        ]
        assert len(workers) == 2, [other.cmdline() for other in session_of(process)]
        workers[1].kill()
        finish(process)
    finally:
        end(process)
    assert_same(state(undisturbed), state(tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_job_goes_on_by_the_same_command(undisturbed, model, examples, tmp_path):
    job = write_job(tmp_path, model, examples)
    process = start("train-sft", job)
    try:
        wait_for_step(process, tmp_path / "w", 12)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        end(process)
    name = training(tmp_path)
    assert name is not None
    last = CheckpointStore(Workspace(str(tmp_path / "w")), name).last()
    assert last is not None
    assert 10 <= last.step < STEPS
    process = start("train-sft", job)
    try:
        log = finish(process)
    finally:
        end(process)
    assert f"train: started at step {last.step} of {STEPS}" in log
    assert "tokenize: nothing to do" in log
    assert_same(state(undisturbed), state(tmp_path))


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_another_number_of_workers_goes_on_under_stage_0(model, examples, tmp_path):
    """Two workers, and the rest of the steps by one: the same up to rounding."""
    plain = {"lora": None, "zero": {"stage": 0}}
    process = start("train-sft", write_job(tmp_path, model, examples, **plain))
    try:
        wait_for_step(process, tmp_path / "w", 12)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        end(process)
    whole = tmp_path / "whole"
    whole.mkdir()
    one = {"workers": {"count": 1, "cpus": 1.0}}
    for place, changed in ((tmp_path, plain | one), (whole, plain)):
        process = start("train-sft", write_job(place, model, examples, **changed))
        try:
            finish(process)
        finally:
            end(process)
    mine, theirs = (dict(losses_of(place)) for place in (tmp_path, whole))
    assert mine == pytest.approx(theirs, abs=1e-3)
