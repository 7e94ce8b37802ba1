import json
from pathlib import Path

import pytest

from mixup.errors import ConfigError
from mixup.training.metrics import (
    FlopCount,
    MetricsLog,
    check_plugins,
    peak_flops,
    read_metrics,
    read_progress,
)
from mixup.workspace import Workspace


def test_lines_are_there_at_once_and_survive_a_cut(tmp_path):
    workspace = Workspace(str(tmp_path))
    log = MetricsLog(workspace, "t")
    log.add("train", 1, {"loss": 2.0})
    log.add("train", 2, {"loss": float("nan")})
    path = Path(tmp_path) / "t" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"kind": "train", "st')  # the writer was killed here
    found = read_metrics(workspace, "t")
    assert [(row["step"], row["loss"]) for row in found] == [(1, 2.0), (2, None)]


def test_lines_after_the_checkpoint_are_written_again(tmp_path):
    workspace = Workspace(str(tmp_path))
    first = MetricsLog(workspace, "t")
    for step in (1, 2, 3):
        first.add("train", step, {"loss": float(step)})
    again = MetricsLog(workspace, "t", after=1)
    again.add("train", 2, {"loss": 2.5})
    assert [row["loss"] for row in read_metrics(workspace, "t")] == [1.0, 2.5]


def test_progress_is_one_whole_document(tmp_path):
    workspace = Workspace(str(tmp_path))
    assert read_progress(workspace, "t") is None
    log = MetricsLog(workspace, "t")
    log.progress({"step": 1, "steps": 4})
    log.progress({"step": 2, "steps": 4})  # too early to be written
    log.flush()
    found = read_progress(workspace, "t")
    assert found is not None
    assert (found["step"], found["steps"]) == (2, 4)


def test_lines_are_plain_json(tmp_path):
    workspace = Workspace(str(tmp_path))
    MetricsLog(workspace, "t").add("generation", 1, {"answer": "two\nlines\u2028 é"})
    (line,) = (Path(tmp_path) / "t" / "metrics.jsonl").read_bytes().splitlines()
    assert json.loads(line)["answer"] == "two\nlines\u2028 é"


def test_operations_of_a_step_by_hand():
    # 10 weights of which 4 are trained: 4·10 + 2·4 = 48 a token; attention 6·2·3·(2² + 1²).
    count = FlopCount(weights=10, trained=4, layers=2, hidden=3)
    assert count.of_step([2, 1]) == 48 * 3 + 6 * 2 * 3 * 5
    everything = FlopCount(weights=10, trained=10, layers=0, hidden=3)
    assert everything.of_step([1]) == 6 * 10  # the usual 6 N


def test_peaks_by_name():
    assert peak_flops("NVIDIA H200") == 989e12
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA L40S") == 362e12
    assert peak_flops("NVIDIA L4") == 121e12
    assert peak_flops("cpu") is None


def test_a_plug_in_without_its_package_is_named(monkeypatch):
    monkeypatch.setattr("mixup.training.metrics.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="the package wandb is not installed"):
        check_plugins(["wandb"], Workspace("/nowhere"))
    check_plugins([], Workspace("/nowhere"))
    with pytest.raises(ConfigError, match="an object store does not take"):
        check_plugins(["tensorboard"], Workspace("s3://bucket/w"))
