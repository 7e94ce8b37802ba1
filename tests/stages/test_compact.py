import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from stored_tables import (
    KEYS,
    commit,
    commit_one_by_one,
    committer,
    compact_here,
    embeddings,
    records,
    rows_of,
)

from mixup.errors import TableError
from mixup.records import bucket_of
from mixup.stages.compact import ENOUGH_FILES, TARGET_BYTES, compact, merged, merges
from mixup.stages.run import RunContext
from mixup.tables import (
    StoredFile,
    changed_buckets,
    read_files,
    snapshot,
    stored_files,
    version,
)
from mixup.workspace import Workspace, ensure_workspace


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return ensure_workspace(str(tmp_path / "w"), buckets=2)


def files(*sizes: int, bucket: int | None = 0) -> list[StoredFile]:
    return [StoredFile(f"{bucket}-{n:04d}", bucket, 1, size) for n, size in enumerate(sizes)]


def sizes(groups) -> list[list[int]]:
    return [[file.bytes for file in group] for group in groups]


def test_enough_small_files_of_a_bucket_become_one():
    assert merges(files(*[10] * (ENOUGH_FILES - 1))) == []
    assert sizes(merges(files(*[10] * ENOUGH_FILES))) == [[10] * ENOUGH_FILES]


def test_buckets_are_not_mixed():
    each = ENOUGH_FILES - 1
    assert merges([*files(*[10] * each, bucket=0), *files(*[10] * each, bucket=1)]) == []
    both = merges([*files(*[10] * 8, bucket=1), *files(*[10] * 9, bucket=None)])
    assert [{file.bucket for file in group} for group in both] == [{1}, {None}]


def test_large_files_are_left_alone_and_no_file_passes_the_target():
    half = TARGET_BYTES // 2
    assert merges(files(*[half] * 20)) == []
    groups = merges(files(*[half - 1] * 9, *[1000] * 3))
    assert all(sum(file.bytes for file in group) <= TARGET_BYTES for group in groups)
    assert sum(len(group) for group in groups) == 12
    assert sizes(merges(files(*[10] * 7, half))) == []


def test_a_group_holds_no_more_files_than_can_be_open():
    groups = merges(files(*[10] * 600))
    assert [len(group) for group in groups] == [256, 256, 88]
    assert [len(group) for group in merges(files(*[10] * 257))] == [256]


def test_what_was_merged_is_not_merged_again(workspace):
    commit_one_by_one(workspace, "records", [records(KEYS[n::12]) for n in range(12)])
    compact_here(workspace, "records")
    now = version(workspace, "records")
    compact_here(workspace, "records")
    assert version(workspace, "records") == now
    assert [len(paths) for paths in snapshot(workspace, "records").files.values()] == [1, 1]


@pytest.mark.parametrize(("name", "make"), [("records", records), ("embeddings", embeddings)])
def test_the_rows_are_the_same_and_sorted(workspace, name, make):
    commit_one_by_one(workspace, name, [make(KEYS[n::12]) for n in range(12)])
    before = rows_of(workspace, name)
    compact_here(workspace, name)
    assert rows_of(workspace, name) == before
    for bucket in (0, 1):
        (path,) = snapshot(workspace, name).in_bucket(bucket)
        keys = read_files(workspace, name, [path], ["uid"])["uid"].to_pylist()
        assert keys == [key for key in KEYS if bucket_of(key, 2) == bucket]


def test_several_row_groups_are_merged_in_order(workspace, monkeypatch):
    """Row groups of 4 rows in, of 5 out: no file is held whole."""
    monkeypatch.setattr("mixup.commits.ROW_GROUP_ROWS", 4)
    lone = Workspace(workspace.uri, 1)
    commit_one_by_one(lone, "embeddings", [embeddings(KEYS[n::8]) for n in range(8)])
    monkeypatch.setattr("mixup.commits.ROW_GROUP_ROWS", 5)
    before = rows_of(lone, "embeddings")
    compact_here(lone, "embeddings")
    assert rows_of(lone, "embeddings") == before
    (path,) = snapshot(lone, "embeddings").paths
    merged_file = pq.ParquetFile(lone.path(f"tables/embeddings/{path}"))
    groups = [merged_file.metadata.row_group(n).num_rows for n in range(merged_file.num_row_groups)]
    assert groups == [5] * 12
    assert merged_file.read(["uid"])["uid"].to_pylist() == KEYS


def test_the_log_says_that_no_data_changed(workspace):
    commit_one_by_one(workspace, "records", [records(KEYS[n::8]) for n in range(8)])
    compact_here(workspace, "records", token=3)
    log = Path(workspace.table_uri("records")) / "_delta_log"
    entries = [json.loads(line) for line in max(log.glob("*.json")).read_text().splitlines()]
    actions = [entry.get("add") or entry.get("remove") for entry in entries]
    changes = [action["dataChange"] for action in actions if action]
    assert changes == [False] * 9
    table = DeltaTable(workspace.table_uri("records"))
    assert json.loads(table.history(1)[0]["mixup"])["token"] == 3
    (one, two) = stored_files(table, "records")
    assert one.rows + two.rows == 60


def test_a_reader_still_skips_by_the_statistics(workspace):
    commit_one_by_one(workspace, "records", [records(KEYS[n::8]) for n in range(8)])
    compact_here(workspace, "records")
    table = DeltaTable(workspace.table_uri("records"))
    found = table.to_pyarrow_table(filters=[("uid", "=", KEYS[17])])
    assert found["uid"].to_pylist() == [KEYS[17]]


def test_a_passed_token_is_refused(workspace):
    commit_one_by_one(workspace, "records", [records(KEYS[n::8]) for n in range(8)])
    committer(workspace, "records", token=2).fence()
    before = rows_of(workspace, "records")
    with pytest.raises(TableError, match="fencing token 2 has passed this run's 1"):
        compact_here(workspace, "records", token=1)
    assert rows_of(workspace, "records") == before


def test_a_file_that_was_changed_from_outside_is_not_merged(workspace):
    commit_one_by_one(workspace, "records", [records(KEYS[n::8]) for n in range(8)])
    stored = stored_files(DeltaTable(workspace.table_uri("records")), "records")
    (group, _) = merges(stored)
    pq.write_table(records(KEYS[:1]), workspace.path(f"tables/records/{group[0].path}"))
    with pytest.raises(TableError, match="was changed from outside"):
        merged(workspace, "records", group)


def test_a_bucket_without_new_rows_does_not_look_changed(workspace):
    """What a later stage has consumed stays consumed: only the bucket that grew is looked at."""
    commit_one_by_one(workspace, "records", [records(KEYS[n:50:10]) for n in range(10)])
    compact_here(workspace, "records")
    consumed = version(workspace, "records")
    grown = [key for key in KEYS[50:] if bucket_of(key, 2) == 1]
    commit_one_by_one(workspace, "records", [records([key]) for key in grown])
    assert len(grown) >= ENOUGH_FILES
    compact_here(workspace, "records")
    now = snapshot(workspace, "records")
    assert len(now.in_bucket(1)) == 1
    assert changed_buckets(workspace, now, consumed) == [1]


def test_without_small_files_ray_is_left_alone(workspace):
    commit(workspace, "records", records(KEYS))
    before = version(workspace, "records")
    compact(RunContext(workspace, "run", 1), "records", "embeddings")
    assert version(workspace, "records") == before
