"""The chain on a tiny model: MIXTURE, a library, a cold start, GRPO, and a refresh by its model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from made_mixture import rows_of, write_articles
from tiny_grpo import FAR, grpo_config
from tiny_training import tiny_config

from mixup.grpo_config import GrpoConfig
from mixup.mixture_config import MixtureConfig
from mixup.models.folders import model_revision
from mixup.pipelines.build_mixture import build_mixture
from mixup.pipelines.build_reference import build_reference
from mixup.pipelines.refresh import refresh
from mixup.pipelines.refresh_plan import make_plan
from mixup.pipelines.train_grpo import train_grpo
from mixup.pipelines.train_sft import train_sft
from mixup.reference_config import ReferenceConfig
from mixup.refresh_config import RefreshConfig
from mixup.stages.library_folder import library_at
from mixup.training.grpo.rollouts import TABLE
from mixup.training_config import SftConfig
from mixup.workspace import open_workspace

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(600)]

MINILM = {"model": "bundled:minilm", "actor_cpus": 1.0}
SAMPLES = 2


@dataclass(frozen=True)
class Chain:
    """The configs of the five jobs: of one workspace, but for the library's and the refresh's."""

    mixture: MixtureConfig
    library: ReferenceConfig
    sft: SftConfig
    grpo: GrpoConfig
    refresh: RefreshConfig

    def jobs(self) -> list[Callable[[], Any]]:
        return [
            lambda: build_mixture(self.mixture),
            lambda: build_reference(self.library),
            lambda: train_sft(self.sft),
            lambda: train_grpo(self.grpo),
            lambda: refresh(self.refresh),
        ]

    def described(self, model: str) -> dict[str, Any]:
        """What a model of the workspace says of itself."""
        folder = Path(self.mixture.workspace) / "models" / model
        return json.loads((folder / "training.json").read_text())

    def manifest(self) -> dict[str, Any]:
        place = Path(self.refresh.workspace) / "releases"
        name = json.loads((place / "current.json").read_text())["release"]
        return json.loads((place / name / "manifest.json").read_text())

    def release(self) -> Path:
        return Path(self.refresh.workspace) / "releases" / self.manifest()["release"]

    def table(self, name: str) -> list[dict[str, Any]]:
        """A table of the refresh's workspace."""
        return rows_of(open_workspace(self.refresh.workspace), name)


def chain_in(folder: Path, base: Path, pairs: Path) -> Chain:
    """The jobs that start from articles, a random model and rated rows."""
    write_articles(folder / "articles.jsonl", 12)
    trained = folder / "trained"
    mixture = MixtureConfig.model_validate(
        {
            "workspace": str(trained),
            "text": {"paths": [str(folder / "articles.jsonl")]},
            "variants": {"mean": 2.0, "most": 3},
            "embed": MINILM,
            "commit_interval_s": 0.5,
        }
    )
    learned = ("examples={paths: [], window: 1024}", "workers.count=1")
    briefly = ("optimizer.batch=4", "optimizer.micro_batch=1", "optimizer.max_steps=3")
    asked = "prompts={paths: [], max_tokens: 900}"
    drawn = ("rollouts={prompts: 2, group: 2, minibatches: 1, max_tokens: 20}", "held_out.paths=[]")
    once = {"samples": SAMPLES, "max_tokens": 24, "context_tokens": 1024, "batch_clusters": 8}
    engine = {"engine_cpus": 1.0, "engine_gpus": 0, "engine_memory_gb": 1.5}
    library = ReferenceConfig.model_validate(
        {
            "workspace": str(folder / "library"),
            "ingest": {"paths": [str(pairs / "rated.jsonl")]},
            "embed": {**MINILM, "similarity": FAR},
            "commit_interval_s": 0.5,
        }
    )
    return Chain(
        mixture=mixture,
        library=library,
        sft=tiny_config(trained, base, pairs, *learned, *briefly, "name=distiller"),
        # Without a model of its own it takes what the cold start has made.
        grpo=grpo_config(
            *(trained, base, pairs, "model=null", asked, *drawn),
            *("workers={count: 1, cpus: 1.0}", "optimizer.max_steps=2"),
            f"library.paths=[{library.workspace}]",
        ),
        refresh=RefreshConfig.model_validate(
            {
                "workspace": str(folder / "refreshed"),
                "ingest": {"paths": [str(pairs / "rated.jsonl")], "licence": "CC0-1.0"},
                "embed": {**MINILM, "similarity": FAR},
                "rate": {"type": "column"},
                "distill": {"model": str(trained / "models" / "tiny"), **once, **engine},
                "commit_interval_s": 0.5,
            }
        ),
    )


@pytest.fixture(scope="module")
def chain(
    ray_cluster: None, distiller: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Chain:
    """All five jobs, run to their ends."""
    made = chain_in(tmp_path_factory.mktemp("chain"), distiller, pairs)
    for job in made.jobs():
        assert job().is_new
    return made


def test_each_job_begins_with_what_the_one_before_has_made(chain):
    start, learner = chain.described("distiller"), chain.described("tiny")
    trained = Path(chain.mixture.workspace)
    pairs = Counter(row["split"] for row in rows_of(open_workspace(str(trained)), "mixture"))
    assert (start["examples"], start["steps"]) == (pairs["sft"], 3)
    assert (learner["prompts"], learner["steps"]) == (pairs["rl"], 2)
    assert start["base_revision"] == model_revision(chain.sft.model)
    assert learner["base_revision"] == model_revision(str(trained / "models" / "distiller"))
    [distiller] = [one for one in chain.manifest()["models"] if one["role"] == "distiller"]
    assert distiller["revision"] == model_revision(str(trained / "models" / "tiny"))


def test_both_trainings_have_changed_the_weights(chain):
    from safetensors.torch import load_file

    models = Path(chain.mixture.workspace) / "models"
    folders = [Path(chain.sft.model), models / "distiller", models / "tiny"]
    base, start, learner = [load_file(folder / "model.safetensors") for folder in folders]
    for before, after in ((base, start), (start, learner)):
        assert before.keys() == after.keys()
        assert all(not before[name].equal(after[name]) for name in before)


def test_the_rollouts_answer_the_pairs_of_the_mixture(chain):
    workspace = open_workspace(chain.mixture.workspace)
    asked = {row["pair"] for row in rows_of(workspace, "mixture") if row["split"] == "rl"}
    rollouts = rows_of(workspace, TABLE)
    assert Counter(row["step"] for row in rollouts) == {0: 4, 1: 4}
    assert {row["prompt"] for row in rollouts} <= asked


def test_the_rewards_are_by_the_built_library(chain):
    library = library_at(chain.library.workspace)
    assert library is not None
    assert chain.described("tiny")["library"] == library.revision
    for row in rows_of(open_workspace(chain.mixture.workspace), TABLE):
        values = {part["component"]: part["value"] for part in row["rewards"]}
        assert values["quality"] is not None


def test_every_sample_is_of_the_trained_distiller(chain):
    distiller = make_plan(chain.refresh).distiller
    clusters = [row["cluster"] for row in chain.table("clusters")]
    assert clusters
    found = {row["sample"]: row for row in chain.table("samples")}
    assert set(found) == {
        distiller.sample_key(cluster, index) for cluster in clusters for index in range(SAMPLES)
    }
    assert {row["distiller"] for row in found.values()} == {distiller.revision}
    assert all(row["text"] or row["reason"] for row in found.values())


def test_the_release_holds_originals_and_every_row_has_one_fate(chain):
    manifest = chain.manifest()
    counts, fates = manifest["counts"], manifest["fates"]
    # Two updates of a random model teach it nothing: what it says may not get into a release.
    assert (counts["distilled"], fates["merged"]) == (0, 0)
    rated = Path(chain.refresh.ingest.paths[0]).read_text().splitlines()
    assert sum(fates.values()) == counts["occurrences"] == len(rated)
    assert fates["original"] == counts["originals"] == counts["rows"] > 0
    for stage in manifest["stages"]:
        assert sum(stage["parts"].values()) == stage["rows_in"], stage
    rows = pq.read_table(chain.release() / "data").to_pylist()
    assert len(rows) == counts["rows"]
    assert {row["id"] for row in rows} <= {row["uid"] for row in chain.table("records")}


def test_walked_again_the_chain_has_nothing_to_do(chain, monkeypatch):
    import ray

    monkeypatch.setattr(ray, "init", None)  # it must not be needed
    assert [job().is_new for job in chain.jobs()] == [False] * 5
