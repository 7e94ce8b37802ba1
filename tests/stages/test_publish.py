import json
import uuid
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from blake3 import blake3
from made_pool import (
    GOOD_SCORES,
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

from mixup.records import uid_of
from mixup.selection.mixing import seeded_order
from mixup.stages import publish as publishing
from mixup.stages.publish import (
    COLUMNS,
    POINTER,
    ReleaseFiles,
    current_release,
    point_to,
    write_data,
)
from mixup.text.parse import parse_distilled

LOW = [Row(f"a{n}", topic=0, variant=n, overall=2, licence="MIT") for n in range(3)]
HIGH = [Row(f"h{n}", topic=2, variant=n, overall=9) for n in range(4)]
AGAIN = [
    Row("a0", topic=0, variant=0, licence="GPL-3.0", file="file-2"),
    Row("h0", topic=2, variant=0, file="file-2"),
]
FILES = ("file-1", "file-2")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    made = make_workspace(tmp_path_factory.mktemp("publish") / "w", buckets=3)
    add(made, [*LOW, *HIGH, *AGAIN])
    curate(made, FILES)
    key = cluster_of(made)
    add_samples(made, [Sample(key, 0), Sample(key, 1, scores={**GOOD_SCORES, "quality": 1.0})])
    return made


def cluster_of(workspace) -> str:
    (row,) = rows_of(workspace, "clusters")
    return row["cluster"]


def write(workspace, *, seed: int = 0, pool=FILES, originals=HIGH):
    key = cluster_of(workspace)
    uids = [row.uid for row in originals]
    quality = {uid: 0.5 + place / 10 for place, uid in enumerate(uids)} | {key: 0.9}
    target = workspace.path(f"written/{uuid.uuid4().hex}")
    selection = (uids, [key], quality)
    files = write_data(workspace, snapshots(workspace), pool, selection, JUDGE, seed, target)
    return files, Path(target)


def data_of(folder: Path) -> list[dict]:
    parts = sorted((folder / "data").iterdir())
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def test_a_release_holds_originals_and_distilled_rows(workspace):
    files, folder = write(workspace)
    found = {row["id"]: row for row in data_of(folder)}
    assert files.rows == len(found) == 5
    key = cluster_of(workspace)
    assert set(found) == {key, *(row.uid for row in HIGH)}
    for row in HIGH:
        original = found[row.uid]
        assert original["kind"] == "original"
        assert [(turn["role"], turn["content"]) for turn in original["messages"]] == row.turns
        assert original["licence"] == "CC0-1.0"
    assert found[HIGH[0].uid]["source"] == ["source-file-1", "source-file-2"]
    assert found[HIGH[1].uid]["quality"] == pytest.approx(0.6)
    (shown,) = files.examples
    assert (shown.cluster, shown.verdict) == (key, "released")
    assert len(shown.samples) == 2
    assert list(found[key]) == list(COLUMNS)


def test_the_distilled_row_is_the_best_sample_with_all_licences(workspace):
    _, folder = write(workspace)
    key = cluster_of(workspace)
    (row,) = [row for row in data_of(folder) if row["kind"] == "distilled"]
    best = parse_distilled(Sample(key, 1).output, "qa")
    assert [(turn["role"], turn["content"]) for turn in row["messages"]] == list(best.turns)
    assert uid_of(best.turns) != key == row["id"]
    assert row["licence"] == "GPL-3.0 AND MIT"
    assert row["source"] == ["source-file-1", "source-file-2"]
    assert row["quality"] == pytest.approx(0.9)


def test_lineage_leads_from_every_row_to_every_occurrence(workspace):
    _, folder = write(workspace)
    lineage = pq.read_table(folder / "lineage.parquet").to_pylist()
    key = cluster_of(workspace)
    distilled = [row for row in lineage if row["kind"] == "distilled"]
    assert {row["id"] for row in distilled} == {key}
    assert {row["sample"] for row in distilled} == {Sample(key, 1).key}
    assert [row["member"] for row in distilled].count(LOW[0].uid) == 2
    assert {row["member"] for row in distilled} == {row.uid for row in LOW}
    originals = [row for row in lineage if row["kind"] == "original"]
    assert all(row["id"] == row["member"] and row["sample"] is None for row in originals)
    assert len(lineage) == 9
    occurrences = {(row["file"], row["offset"]) for row in rows_of(workspace, "occurrences")}
    assert {(row["file"], row["offset"]) for row in lineage} == occurrences
    assert {row["path"] for row in lineage} == {"/file-1.jsonl", "/file-2.jsonl"}
    assert {row["licence"] for row in distilled} == {"MIT", "GPL-3.0"}


def test_occurrences_outside_of_the_pool_are_not_named(workspace):
    _, folder = write(workspace, pool=("file-1",))
    lineage = pq.read_table(folder / "lineage.parquet").to_pylist()
    assert {row["file"] for row in lineage} == {"file-1"}
    found = {row["id"]: row for row in data_of(folder)}
    assert found[HIGH[0].uid]["source"] == ["source-file-1"]


def test_hashes_and_licences_are_those_of_the_files(workspace):
    files, folder = write(workspace)
    written = {str(path.relative_to(folder)) for path in folder.rglob("*.parquet")}
    assert set(files.hashes) == written
    for name, found in files.hashes.items():
        assert blake3((folder / name).read_bytes()).hexdigest(length=16) == found
    assert files.licences == {"CC0-1.0": 4, "GPL-3.0 AND MIT": 1}


def test_the_same_release_is_the_same_bytes(workspace):
    first, _ = write(workspace)
    second, _ = write(workspace)
    assert first == second


def test_the_order_depends_on_the_seed_and_the_keys_only(workspace):
    orders = {}
    for name, seed, originals in (
        ("a", 0, HIGH),
        ("b", 0, HIGH[::-1]),
        ("c", 1, HIGH),
        ("d", 0, HIGH[:3]),
    ):
        _, folder = write(workspace, seed=seed, originals=originals)
        orders[name] = [row["id"] for row in data_of(folder)]
    assert orders["a"] == orders["b"]
    assert orders["a"] != orders["c"]
    assert orders["d"] == [key for key in orders["a"] if key != HIGH[3].uid]
    assert orders["a"] == [orders["a"][place] for place in seeded_order(orders["a"], 0)]


def test_a_large_release_has_several_shards(workspace, monkeypatch):
    monkeypatch.setattr(publishing, "_SHARD_ROWS", 2)
    files, folder = write(workspace)
    names = sorted(path.name for path in (folder / "data").iterdir())
    assert names == [f"train-{n:05d}-of-00003.parquet" for n in range(3)]
    assert len(data_of(folder)) == files.rows == 5


def test_an_empty_release_is_a_table_without_rows(workspace):
    target = workspace.path("empty")
    files = write_data(workspace, snapshots(workspace), FILES, ([], [], {}), JUDGE, 0, target)
    assert files == ReleaseFiles(files.hashes, {}, 0)
    (part,) = (Path(target) / "data").iterdir()
    assert pq.read_table(part).column_names == list(COLUMNS)


def test_the_pointer_names_the_release_and_what_it_was_made_from(tmp_path):
    workspace = make_workspace(tmp_path / "w")
    assert current_release(workspace) is None
    point_to(workspace, "one", {"seed": 1})
    pointer = current_release(workspace)
    assert pointer is not None
    name, first = pointer
    assert name == "one"
    point_to(workspace, "two", {"seed": 1})
    assert current_release(workspace) == ("two", first)
    point_to(workspace, "two", {"seed": 2})
    assert current_release(workspace) not in (None, ("two", first))
    assert json.loads(Path(workspace.path(POINTER)).read_text())["release"] == "two"
