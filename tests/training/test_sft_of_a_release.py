"""A release of a refresh is what a model learns, by the job and another config."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_pool import (
    JUDGE,
    Row,
    Sample,
    add,
    add_samples,
    curate,
    make_workspace,
    rows_of,
    snapshots,
)
from tiny_training import tiny_config

from mixup.pipelines.sft_plan import make_plan, up_to_date
from mixup.pipelines.train_sft import train_sft
from mixup.stages.publish import point_to, write_data
from mixup.workspace import Workspace

LOW = [Row(f"a{n}", topic=0, variant=n, overall=2) for n in range(3)]
HIGH = [Row(f"h{n}", topic=2, variant=n, overall=9) for n in range(4)]


@pytest.fixture
def refreshed(tmp_path: Path) -> Workspace:
    """A workspace with a release: one cluster, distilled, and originals."""
    made = make_workspace(tmp_path / "refreshed", buckets=3)
    add(made, [*LOW, *HIGH])
    curate(made)
    (cluster,) = rows_of(made, "clusters")
    add_samples(made, [Sample(cluster["cluster"])])
    release(made, "first", HIGH[:3])
    return made


def release(workspace: Workspace, name: str, originals: list[Row]) -> None:
    (cluster,) = rows_of(workspace, "clusters")
    uids = [row.uid for row in originals]
    quality = dict.fromkeys([*uids, cluster["cluster"]], 0.9)
    chosen = (uids, [cluster["cluster"]], quality)
    folder = workspace.path(f"releases/{name}")
    write_data(workspace, snapshots(workspace), ["file-1"], chosen, JUDGE, 0, folder)
    point_to(workspace, name, name)


@pytest.mark.thorough
@pytest.mark.usefixtures("ray_cluster")
def test_the_current_release_of_a_workspace_is_learned(refreshed, tiny_model, examples, tmp_path):
    config = tiny_config(
        *(tmp_path / "training", tiny_model, examples, f"examples.paths=['{refreshed.uri}']"),
        *("examples.template=plain", "examples.window=256", "workers.count=1"),
        "optimizer={batch: 4, micro_batch: 2, epochs: 2.0}",
    )
    assert train_sft(config).is_new
    model = Path(config.workspace) / "models" / "tiny"
    described = json.loads((model / "training.json").read_text())
    assert (described["examples"], described["left_out"]) == (4, {})
    assert (described["step"], described["steps"]) == (2, 2)
    assert (model / "model.safetensors").is_file()
    places = {row["place"] for row in rows_of(Workspace(config.workspace), "tokens")}
    assert len(places) == 4
    assert all(place.startswith(f"{refreshed.uri}/releases/first/data/") for place in places)
    assert not train_sft(config).is_new

    release(refreshed, "second", HIGH)  # other examples, so another model by the same command
    assert not up_to_date(Workspace(config.workspace), make_plan(config))
