"""The whole job on a tiny model: two workers, an engine, reward actors; and its faults."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from job_processes import end, finish, is_at, start, wait_for_step
from tiny_grpo import grpo_config

from mixup.errors import ConfigError, ResourceError, WrongWeights
from mixup.grpo_config import GrpoConfig
from mixup.pipelines import train_grpo as pipeline
from mixup.pipelines.train_grpo import train_grpo
from mixup.tables import read_files, snapshot
from mixup.training.checkpoints import CheckpointStore
from mixup.training.grpo.pool import ObjectStorePush
from mixup.training.grpo.rollouts import TABLE, counting_rollouts
from mixup.training.metrics import read_metrics
from mixup.workspace import Workspace

pytestmark = pytest.mark.timeout(600)

LORA = "lora={rank: 4, alpha: 8}"


@pytest.fixture(scope="module")
def trained(
    ray_cluster: None, distiller: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory
) -> GrpoConfig:
    """Two workers, ZeRO-2, all weights of a tied model; run to the end once."""
    place = tmp_path_factory.mktemp("trained") / "workspace"
    config = grpo_config(place, distiller, pairs)
    done = train_grpo(config)
    assert done.is_new
    return config


def store_of(config: GrpoConfig) -> CheckpointStore:
    workspace = Workspace(config.workspace)
    (name,) = workspace.list("checkpoints")
    return CheckpointStore(workspace, name)


def lines(config: GrpoConfig, kind: str) -> list[dict[str, Any]]:
    store = store_of(config)
    return [row for row in read_metrics(store.workspace, store.folder) if row["kind"] == kind]


def rollouts(config: GrpoConfig) -> list[dict[str, Any]]:
    store = store_of(config)
    return counting_rollouts(store.workspace, store.training).to_pylist()


def all_rollouts(config: GrpoConfig) -> list[dict[str, Any]]:
    workspace = Workspace(config.workspace)
    return read_files(workspace, TABLE, snapshot(workspace, TABLE).paths).to_pylist()


@pytest.mark.slow
def test_every_step_is_written_down(trained):
    rows = rollouts(trained)
    assert Counter(row["step"] for row in rows) == dict.fromkeys(range(4), 16)
    for step in range(4):
        groups = Counter(row["prompt"] for row in rows if row["step"] == step)
        assert sorted(groups.values()) == [4, 4, 4, 4]
    assert {row["version"] - row["step"] for row in rows} == {0}
    assert {row["attempt"] for row in rows} == {1}
    assert len({row["seed"] for row in rows}) == len(rows)
    assert {len(row["rewards"]) for row in rows} == {4}
    assert all(0 < row["tokens"] <= 20 for row in rows)


@pytest.mark.slow
def test_advantages_are_those_of_the_rewards(trained):
    rows = rollouts(trained)
    differing = 0
    for step in range(4):
        for prompt in {row["prompt"] for row in rows if row["step"] == step}:
            group = [row for row in rows if (row["step"], row["prompt"]) == (step, prompt)]
            rewards = np.array([row["reward"] for row in group], dtype=float)
            deviation = max(rewards.std(ddof=1), trained.objective.floor)
            expected = (rewards - rewards.mean()) / deviation
            assert [row["advantage"] for row in group] == pytest.approx(expected, abs=1e-4)
            differing += rewards.std() > 0.001
    assert differing > 4  # there was something to compare


@pytest.mark.slow
def test_the_reward_is_the_mean_of_its_components(trained):
    weights = {"quality": 0.5, "alignment": 0.4, "format": 0.1, "coverage": 0.0}
    for row in rollouts(trained):
        values = {part["component"]: part["value"] for part in row["rewards"]}
        expected = sum(weight * values[name] for name, weight in weights.items())
        assert row["reward"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_the_run_is_measured(trained):
    steps = lines(trained, "train")
    assert [row["step"] for row in steps] == [1, 2, 3, 4]
    rows = rollouts(trained)
    for row in steps:
        own = [one for one in rows if one["step"] == row["step"] - 1]
        assert row["reward"] == pytest.approx(np.mean([one["reward"] for one in own]), abs=1e-5)
        assert row["mean_length"] == pytest.approx(np.mean([one["tokens"] for one in own]))
        assert row["gap_mean"] < 1e-5
        assert row["tokens_without_logprob"] == row["uncorrected"] == 0
        assert row["correction"] == pytest.approx(1.0, abs=1e-3)
        phases = {"push", "gate", "generate", "reward", "others", "train", "step"}
        assert {f"seconds/{name}" for name in phases} <= row.keys()
    assert steps[0]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert steps[-1]["kl"] > 1e-6  # the policy has moved
    assert [row["step"] for row in lines(trained, "held_out")] == [0, 2, 4]
    assert all(row["answers"] == 3 for row in lines(trained, "held_out"))
    histograms = lines(trained, "rewards")
    assert all(sum(row["format"]["histogram"]) == 16 for row in histograms)


@pytest.mark.slow
def test_the_model_is_exported_and_a_run_again_has_nothing_to_do(trained, distiller, monkeypatch):
    import ray
    import torch
    from transformers import AutoModelForCausalLM

    folder = Path(trained.workspace) / "models" / "tiny"
    before = AutoModelForCausalLM.from_pretrained(distiller)
    after = AutoModelForCausalLM.from_pretrained(folder)
    assert not torch.equal(before.lm_head.weight, after.lm_head.weight)
    described = json.loads((folder / "training.json").read_text())
    assert (described["steps"], described["prompts"]) == (4, 20)
    assert described["library"]
    monkeypatch.setattr(ray, "init", None)  # it must not be needed
    assert not train_grpo(trained).is_new


@pytest.mark.slow
def test_nothing_is_left_in_the_cluster(trained):
    wait_until_free(2.0)


def wait_until_free(cpus: float) -> None:
    import ray

    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU", 0.0) < cpus:
        assert time.monotonic() < deadline, ray.available_resources()
        time.sleep(0.2)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "overrides",
    [("workers.count=1", "engines.count=2", "engines.cpus=0.25"), ("zero.stage=3",)],
)
def test_the_same_is_learned_however_it_is_divided(trained, distiller, pairs, tmp_path, overrides):
    config = grpo_config(tmp_path / "w", distiller, pairs, *overrides)
    train_grpo(config)
    assert_learned_the_same(config, trained)


def assert_learned_the_same(one: GrpoConfig, other: GrpoConfig) -> None:
    mine, theirs = lines(one, "train"), lines(other, "train")
    for name, near in (("loss", 1e-4), ("reward", 1e-5), ("kl", 1e-5), ("mean_length", 1e-9)):
        found = [row[name] for row in mine]
        assert found == pytest.approx([row[name] for row in theirs], abs=near), name


@pytest.mark.thorough
def test_adapters_and_several_updates_a_step(ray_cluster, distiller, pairs, tmp_path):
    overrides = ("rollouts.minibatches=2", "optimizer.max_steps=2", "optimizer.learning_rate=0.01")
    config = grpo_config(tmp_path / "w", distiller, pairs, LORA, *overrides)
    train_grpo(config)
    first, second = lines(config, "train")
    assert first["kl"] > 1e-7  # the second update learns from a policy that has moved
    assert second["gap_mean"] < 1e-5
    assert (tmp_path / "w" / "models" / "tiny" / "model.safetensors").exists()


def stale_push(pool: Any, ranks: Any) -> Any:
    return StalePush(pool, is_sender=ranks.rank == 0)


class StalePush(ObjectStorePush):
    """Sends the first weights again and again, under the version that is asked for."""

    _first: list[tuple[str, Any]] | None = None

    def push(self, weights: Any, version: int) -> None:
        held = [(name, tensor.clone()) for name, tensor in weights]
        if self._first is None:
            self._first = held
        super().push(self._first, version)


def no_push(pool: Any, ranks: Any) -> Any:
    return NoPush(pool, is_sender=ranks.rank == 0)


class NoPush(ObjectStorePush):
    """Sends the first weights and nothing after them."""

    def push(self, weights: Any, version: int) -> None:
        if version == 0:
            super().push(weights, version)
            return
        for _ in weights:
            pass


@pytest.mark.parametrize(
    ("push", "said"),
    [
        pytest.param(
            stale_push,
            r"engine 0 does not hold the trainer's weights of version 1: .* tensors differ",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            no_push,
            r"engine 0 holds version 0 and was asked for version 1",
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_a_push_that_is_not_done_stops_the_run(
    ray_cluster, distiller, pairs, tmp_path, monkeypatch, push, said
):
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setitem(pipeline.PUSHES, "object_store", push)
    config = grpo_config(tmp_path / "w", distiller, pairs, "held_out.max_rows=0")
    with pytest.raises(WrongWeights, match=said):
        train_grpo(config)
    assert Counter(row["step"] for row in all_rollouts(config)) == {0: 16}  # and no step after


@pytest.fixture
def killer() -> Iterator[Callable[[GrpoConfig, int, str], None]]:
    """Kills the processes of a title once a training has come to a step."""
    threads: list[threading.Thread] = []

    def kill(config: GrpoConfig, step: int, title: str) -> None:
        def watch() -> None:
            workspace = Workspace(config.workspace)
            while not is_at(workspace, step):
                time.sleep(0.05)
            found = [
                child
                for child in psutil.Process().children(recursive=True)
                if title in " ".join(child.cmdline())
            ]
            found[0].kill()

        threads.append(threading.Thread(target=watch, daemon=True))
        threads[-1].start()

    yield kill
    for thread in threads:
        thread.join(timeout=1)
        assert not thread.is_alive()


def weights(config: GrpoConfig) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(Path(config.workspace) / "models" / "tiny" / "model.safetensors")


@pytest.mark.thorough
def test_a_killed_worker_changes_nothing(trained, distiller, pairs, tmp_path, killer):
    import torch

    config = grpo_config(tmp_path / "w", distiller, pairs)
    killer(config, 3, "RayTrainWorker")
    train_grpo(config)
    rows = rollouts(config)
    assert Counter(row["step"] for row in rows) == dict.fromkeys(range(4), 16)
    by_step = {row["step"]: row["attempt"] for row in rows}
    assert by_step[0] == by_step[1] == 1
    assert by_step[3] == 2  # after the checkpoint of step 2
    same = ("step", "prompt", "index", "text", "reward", "advantage")
    mine = sorted(tuple(row[name] for name in same[:4]) for row in rows)
    assert mine == sorted(tuple(row[name] for name in same[:4]) for row in rollouts(trained))
    expected = weights(trained)
    for name, found in weights(config).items():
        torch.testing.assert_close(found, expected[name], atol=1e-5, rtol=1e-4)


@pytest.mark.thorough
@pytest.mark.parametrize("title", ["EngineActor", "_EncoderActor"])
def test_a_dead_actor_is_replaced(trained, distiller, pairs, tmp_path, killer, title):
    config = grpo_config(tmp_path / "w", distiller, pairs)
    killer(config, 2, title)
    train_grpo(config)
    rows = rollouts(config)
    assert Counter(row["step"] for row in rows) == dict.fromkeys(range(4), 16)
    assert {row["attempt"] for row in rows} == {1}
    mine, theirs = lines(config, "train"), lines(trained, "train")
    assert [row["reward"] for row in mine] == pytest.approx(
        [row["reward"] for row in theirs], abs=1e-5
    )


@pytest.mark.thorough
def test_a_killed_job_goes_on_by_the_same_command(distiller, pairs, tmp_path):
    config = grpo_config(tmp_path / "w", distiller, pairs, "ray.cpus=2")
    process = start("train-grpo", tmp_path / "w.yaml", "ray.cpus=2")
    try:
        wait_for_step(process, config.workspace, 3)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        end(process)
    process = start("train-grpo", tmp_path / "w.yaml", "ray.cpus=2")
    try:
        log = finish(process)
    finally:
        end(process)
    assert "train: started at step 2 of 4" in log
    assert "prompts: nothing to do" in log
    rows = rollouts(config)
    assert Counter(row["step"] for row in rows) == dict.fromkeys(range(4), 16)
    attempts = {row["step"]: row["attempt"] for row in rows}
    assert attempts == {0: 1, 1: 1, 2: 2, 3: 2}


@pytest.mark.thorough
def test_what_is_short_is_said_and_nothing_is_held(ray_cluster, distiller, pairs, tmp_path):
    config = grpo_config(tmp_path / "w", distiller, pairs, "workers.cpus=1.0")
    with pytest.raises(ResourceError, match=r"needs 2\.95: GRPO engines 1 x 0\.5 CPU"):
        train_grpo(config)
    wait_until_free(2.0)


@pytest.mark.slow
def test_quality_without_a_library_is_refused(distiller, pairs, tmp_path):
    config = grpo_config(tmp_path / "w", distiller, pairs, "library.paths=[]")
    with pytest.raises(ConfigError, match="quality has weight, but .* has no reference library"):
        train_grpo(config)
