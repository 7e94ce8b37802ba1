"""The refresh job on the bundled sample: what comes out, and what the next nights do."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import DEMO, ROOT, Job, short

from mixup.config_file import load_config
from mixup.lock import acquire
from mixup.pipelines.refresh_plan import make_plan, pool_of
from mixup.records import TABLES
from mixup.refresh_config import RefreshConfig
from mixup.stages.curate import curate_and_cluster
from mixup.stages.run import RunContext
from mixup.workspace import open_workspace

pytestmark = pytest.mark.timeout(600)  # the first test has the whole job before it

DEFECTS = ROOT / "mixup" / "sample" / "defects.jsonl"


def keys_of(job: Job, name: str) -> list[tuple]:
    table = job.table(name).select(list(TABLES[name].key))
    return [tuple(row.values()) for row in table.to_pylist()]


def defects() -> dict[str, dict]:
    return {row["id"]: row for row in map(json.loads, DEFECTS.read_text().splitlines())}


def uid_by_sample_id(job: Job) -> dict[str, str]:
    rows = job.table("occurrences").select(["uid", "extra"]).to_pylist()
    return {json.loads(row["extra"]).get("id"): row["uid"] for row in rows}


def test_every_key_has_one_outcome(demo: Job):
    for name in demo.tables():
        keys = keys_of(demo, name)
        assert len(keys) == len(set(keys)), name
    records = set(keys_of(demo, "records"))
    for name in ("embeddings", "ratings", "curation"):
        assert {(key[0],) for key in keys_of(demo, name)} == records, name
    clusters = {key[0] for key in keys_of(demo, "clusters")}
    sampled = Counter(demo.table("samples")["cluster"].to_pylist())
    assert sampled == Counter(dict.fromkeys(clusters, 1))
    with_text = [row["sample"] for row in demo.table("samples").to_pylist() if row["text"]]
    scored = Counter(demo.table("rewards")["sample"].to_pylist())
    assert scored == Counter(dict.fromkeys(with_text, 4))


def test_every_occurrence_has_one_fate(demo: Job):
    manifest = demo.manifest()
    fates, counts = manifest["fates"], manifest["counts"]
    quarantined = len(keys_of(demo, "quarantine"))
    assert fates["quarantined"] == quarantined == 6
    assert sum(fates.values()) == counts["occurrences"]
    assert counts["occurrences"] == len(keys_of(demo, "occurrences")) + quarantined
    assert fates["original"] == counts["originals"] > 0
    assert fates["duplicate"] == counts["occurrences"] - quarantined - counts["records"]
    for stage in manifest["stages"]:
        assert sum(stage["parts"].values()) == stage["rows_in"], stage


def test_the_planted_defects_are_found(demo: Job):
    uids, curation = uid_by_sample_id(demo), demo.table("curation").to_pylist()
    by_uid = {row["uid"]: row for row in curation}
    planted = defects()
    for key, row in planted.items():
        if row["defect"] == "exact_duplicate":
            assert uids[key] == uids[row["of"]], key
    near = [key for key, row in planted.items() if row["defect"] == "near_duplicate"]
    found = [
        key
        for key in near
        if "duplicate" in (by_uid[uids[key]]["tier"], by_uid[uids[planted[key]["of"]]]["tier"])
    ]
    assert len(found) >= 0.6 * len(near)
    poor = [key for key, row in planted.items() if row["tier"] == "low"]
    kept = [key for key in poor if by_uid[uids[key]]["tier"] == "high"]
    assert len(kept) <= 0.02 * len(poor)


def test_clusters_hold_what_belongs_together(demo: Job):
    planted, subjects = defects(), {}
    for key, uid in uid_by_sample_id(demo).items():
        if key in planted:
            subjects[uid] = planted[key]["subject"]
    clusters = demo.table("clusters").to_pylist()
    pure = [len({subjects.get(uid) for uid in row["members"]}) == 1 for row in clusters]
    assert len(clusters) >= 60
    assert sum(pure) >= 0.9 * len(pure)
    assert all(2 <= len(row["members"]) <= 6 for row in clusters)


def test_the_release_can_be_used_as_it_is(demo: Job):
    release, manifest = demo.release(), demo.manifest()
    data = pq.read_table(release / "data").to_pylist()
    assert len(data) == manifest["counts"]["rows"]
    for row in data:
        roles = [turn["role"] for turn in row["messages"]]
        assert roles[-1] == "assistant"
        assert all(turn["content"].strip() for turn in row["messages"])
        assert row["licence"] == "CC0-1.0"
    lineage = pq.read_table(release / "lineage.parquet").to_pylist()
    assert {row["id"] for row in lineage} == {row["id"] for row in data}
    card = (release / "README.md").read_text()
    assert card.startswith("---\n")
    assert "data/*.parquet" in card
    fields = {"counts", "fates", "tables", "models", "config", "versions", "seconds"}
    assert fields <= set(manifest)
    page = (release / "report.html").read_text()
    assert "http-equiv" in page
    assert manifest["counts"]["distilled"] == 0 or "distilled" in page


def test_nothing_poor_passes_as_good(demo: Job):
    """The untrained distiller keeps no format without constraint, and the page says so."""
    digest = json.loads((demo.release() / "digest.json").read_text())
    free = digest["compliance"]["unconstrained"]
    assert free["total"] == len(keys_of(demo, "clusters"))
    assert free["ok"] <= 0.1 * free["total"]
    assert demo.manifest()["counts"]["distilled"] <= free["ok"]
    assert sum(digest["rejects"].values()) >= free["total"] - free["ok"]


def test_rewards_overlap_with_generation_and_each_other(demo: Job):
    run = demo.manifest()["run"]
    spans = json.loads((demo.workspace / "runs" / run / "spans.json").read_text())
    by_name: dict[str, list[tuple[float, float]]] = {}
    for name, start, end in spans:
        by_name.setdefault(name, []).append((start, end))
    assert set(by_name) == {"generate", "encode", "quality", "alignment", "format", "coverage"}
    assert len(by_name["generate"]) >= 3

    def overlap(first: str, second: str) -> float:
        return sum(
            max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
            for a in by_name[first]
            for b in by_name[second]
        )

    assert overlap("encode", "generate") > 0
    during = [
        name for name in ("quality", "alignment", "coverage") if overlap(name, "generate") > 0
    ]
    assert during
    # The format component waits for no vectors: it runs while the encoder works.
    assert overlap("format", "encode") > 0


def backwards(
    function: Callable[..., Any], shared: object, arguments: Iterable[tuple], stall: object
) -> Iterator[Any]:
    """A runner that makes the calls in this process, the last one first."""
    for rest in reversed(list(arguments)):
        yield function(shared, *rest)


def test_many_cells_come_to_the_same_whoever_does_them_and_when(demo: Job, tmp_path: Path):
    cells = ("curate.cell_rows=90", "distill.max_clusters=1")
    by_ray = Job(tmp_path / "ray")
    shutil.copytree(demo.workspace, by_ray.workspace)
    by_ray.run(*cells)
    stage = by_ray.stage("curate")
    assert stage is not None
    assert stage["extra"]["cells"] == stage["extra"]["cells_done"] >= 8
    here = Job(tmp_path / "here")
    shutil.copytree(demo.workspace, here.workspace)
    plan = make_plan(load_config(RefreshConfig, str(DEMO), [*short(), *cells]))
    workspace = open_workspace(str(here.workspace))
    with acquire(workspace, "here") as lease:
        context = RunContext(
            workspace, "here", lease.token, pool_of(plan), commit_interval_s=0.0, runner=backwards
        )
        curate_and_cluster(context, plan.cells())
    for name, key in (("curation", "uid"), ("clusters", "cluster"), ("places", "uid")):
        found = [job.table(name).sort_by(key).to_pylist() for job in (by_ray, here)]
        assert found[0] == found[1], name


def test_a_second_night_has_nothing_to_do_and_starts_no_ray(demo: Job):
    before = demo.release()
    start = time.monotonic()
    # An address where nothing listens: a run that reached for Ray would fail.
    output = demo.run(RAY_ADDRESS="127.0.0.1:1")
    assert time.monotonic() - start < 20
    assert "nothing to do" in output
    assert demo.release() == before


def new_rows(path: Path) -> None:
    """Fifty rows that are new: one pair that says the same, and 48 that stand alone."""
    words = [
        "anchors", "barges", "candles", "dials", "easels", "fences", "gloves", "hinges", "inkwells",
        "jars", "kettles", "ladders", "mirrors", "needles", "ovens", "pulleys", "quilts", "ropes",
        "saddles", "tiles", "urns", "valves", "whistles", "yokes",
    ]  # fmt: skip
    rows = []
    for number, word in enumerate(words):
        for place in ("in 1850", "on a farm"):
            rows.append(
                {
                    "instruction": f"Who used {word} {place}, and what for? ({number})",
                    "output": f"People who needed {word} used them {place}, {number * 7} of them.",
                    "licence": "CC0-1.0",
                }
            )
    for start in ("How do I", "how can i"):
        rows.append(
            {
                "instruction": f"{start} remove a beetroot stain from a wooden chopping board?",
                "output": "rub salt and lemon" if start == "how can i" else "Use lemon and salt.",
                "licence": "CC0-1.0",
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_new_rows_cost_only_their_own_work(demo: Job, tmp_path: Path):
    before = {row["sample"]: row["text"] for row in demo.table("samples").to_pylist()}
    old_clusters = {row["cluster"]: row for row in demo.table("clusters").to_pylist()}
    embedded = demo.rows("embeddings")
    new_rows(tmp_path / "new.jsonl")
    demo.run(f'ingest.paths=["bundled:sample", "{tmp_path / "new.jsonl"}"]')
    assert demo.rows("embeddings") == embedded + 50
    for name in ("ingest", "embed", "rate"):
        stage = demo.stage(name)
        assert stage is not None
        assert stage["rows_in"] == 50, name
    clusters = {row["cluster"]: row for row in demo.table("clusters").to_pylist()}
    samples = {row["sample"]: row for row in demo.table("samples").to_pylist()}
    assert {key: samples[key]["text"] for key in before} == before
    fresh = set(clusters) - set(old_clusters)
    assert fresh, "the planted pair makes a new cluster"
    distilled_now = {row["cluster"] for key, row in samples.items() if key not in before}
    assert distilled_now == fresh
    stage = demo.stage("distill")
    assert stage is not None
    assert stage["rows_in"] == len(fresh)
    # A cluster goes only when it lost a member.
    tiers = {row["uid"]: row["tier"] for row in demo.table("curation").to_pylist()}
    for key in set(old_clusters) - set(clusters):
        assert any(tiers[uid] != "low" for uid in old_clusters[key]["members"]), key
    assert sum(demo.manifest()["fates"].values()) == demo.manifest()["counts"]["occurrences"]


def test_the_config_names_its_mistakes(tmp_path: Path):
    job = Job(tmp_path / "workspace", DEMO, ())
    assert "did you mean 'distill.samples'" in job.run("distill.sampels=3", expect=2)
    assert "does not exist" in job.run('ingest.paths=["/no/such/file.jsonl"]', expect=2)
    assert "unknown bundled model" in job.run("distill.model=bundled:gpt", expect=2)
    assert not (tmp_path / "workspace").exists()


def test_a_pool_that_is_mostly_broken_fails_every_night(tmp_path: Path):
    """What the first run committed must not let the second one pass."""
    lines = ["{broken"] * 3 + [json.dumps({"instruction": "Say hi.", "output": "Hi."})] * 7
    (tmp_path / "pool.jsonl").write_text("\n".join(lines))
    job = Job(tmp_path / "workspace")
    for _ in range(2):
        output = job.run(f'ingest.paths=["{tmp_path / "pool.jsonl"}"]', expect=1)
        assert "3 of the pool's 10 rows are in the quarantine" in output
    assert job.table("quarantine")["reason"].to_pylist() == ["not_json"] * 3
