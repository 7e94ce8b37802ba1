import dataclasses
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from mixup import commits, tables
from mixup.commits import Committer, Completion, last_completion, write_by_bucket, write_file
from mixup.errors import TableError
from mixup.records import TABLES, bucket_of, content_key
from mixup.tables import (
    Snapshot,
    changed_buckets,
    ensure_table,
    read_files,
    row_count,
    scan_files,
    snapshot,
    version,
)
from mixup.workspace import Workspace, ensure_workspace

KEYS = sorted(content_key(number) for number in range(40))


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return ensure_workspace(str(tmp_path / "w"), buckets=4)


def committer(workspace: Workspace, *names: str, token: int = 1, interval_s: float = 0.0):
    return Committer(
        workspace, token=token, run=f"run-{token}", tables=names, interval_s=interval_s
    )


def records(keys, task: str = "qa") -> pa.Table:
    rows = [
        {
            "uid": key,
            "task": task,
            "turns": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            "tokens": 2,
        }
        for key in keys
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["records"].file_schema)


def uids(workspace: Workspace) -> list[str]:
    found = read_files(workspace, "records", snapshot(workspace, "records").paths, ["uid"])
    return found["uid"].to_pylist()


def commit_records(workspace: Workspace, keys, token: int = 1) -> None:
    writer = committer(workspace, "records", token=token)
    writer.add(write_by_bucket(workspace, "records", records(keys)))
    writer.commit()


def test_a_table_that_is_not_there_is_empty(workspace):
    assert snapshot(workspace, "records") == Snapshot("records", -1)
    assert version(workspace, "records") == -1
    assert row_count(workspace, "records") == 0
    assert last_completion(workspace, "records", "ingest") is None
    empty = read_files(workspace, "records", (), ["uid", "task"])
    assert (empty.num_rows, empty.column_names) == (0, ["uid", "task"])


def test_making_a_table_twice_is_once(workspace):
    ensure_table(workspace, "records")
    ensure_table(workspace, "records")
    assert version(workspace, "records") == 0
    assert snapshot(workspace, "records").files == {}
    assert row_count(workspace, "records") == 0


@pytest.mark.parametrize("name", list(TABLES))
def test_every_table_is_made_with_its_schema(workspace, name):
    made = ensure_table(workspace, name)
    assert made.schema().to_arrow() is not None
    assert [field.name for field in made.schema().fields] == TABLES[name].schema.names
    assert made.metadata().partition_columns == TABLES[name].partition_by


def test_what_is_committed_is_read_by_us_and_by_any_delta_reader(workspace):
    commit_records(workspace, KEYS)
    assert sorted(uids(workspace)) == KEYS
    assert row_count(workspace, "records") == len(KEYS)
    theirs = DeltaTable(workspace.table_uri("records")).to_pyarrow_table()
    assert sorted(theirs["uid"].to_pylist()) == KEYS
    placed = dict(zip(theirs["uid"].to_pylist(), theirs["bucket"].to_pylist(), strict=True))
    assert placed == {key: bucket_of(key, workspace.buckets) for key in KEYS}
    ours = read_files(workspace, "records", snapshot(workspace, "records").paths)
    by_uid = [("uid", "ascending")]
    assert theirs.drop_columns(["bucket"]).sort_by(by_uid).to_pylist() == (
        ours.sort_by(by_uid).to_pylist()
    )


def test_a_table_without_buckets_is_read_alike(workspace):
    rows = {name: pa.nulls(2, field.type) for name, field in _fields("files").items()}
    rows["fingerprint"] = pa.array(["b", "a"])
    writer = committer(workspace, "files")
    writer.add([write_file(workspace, "files", pa.table(rows), None)])
    writer.commit()
    assert list(snapshot(workspace, "files").files) == [None]
    assert snapshot(workspace, "files").buckets == []
    theirs = DeltaTable(workspace.table_uri("files")).to_pyarrow_table()
    assert theirs["fingerprint"].to_pylist() == ["a", "b"]


def _fields(name: str) -> dict[str, pa.Field]:
    return {field.name: field for field in TABLES[name].file_schema}


def test_files_are_found_by_bucket_and_sorted_by_key(workspace):
    commit_records(workspace, reversed(KEYS))
    now = snapshot(workspace, "records")
    assert now.buckets == sorted({bucket_of(key, 4) for key in KEYS})
    for bucket in now.buckets:
        found = read_files(workspace, "records", now.in_bucket(bucket), ["uid"])["uid"].to_pylist()
        assert found == [key for key in KEYS if bucket_of(key, 4) == bucket]
    assert now.in_bucket(99) == ()
    assert len(now.paths) == len(now.buckets)


def test_an_earlier_version_can_be_read_on(workspace):
    commit_records(workspace, KEYS[:10])
    old = snapshot(workspace, "records")
    commit_records(workspace, KEYS[10:])
    assert read_files(workspace, "records", old.paths, ["uid"]).num_rows == 10
    assert len(uids(workspace)) == 40


def test_scanning_yields_row_groups(workspace, monkeypatch):
    monkeypatch.setattr(commits, "ROW_GROUP_ROWS", 3)
    one = Workspace(workspace.uri, 1)
    commit_records(one, KEYS)
    parts = list(scan_files(one, "records", snapshot(one, "records").paths, ["task", "uid"]))
    assert [part.num_rows for part in parts] == [3] * 13 + [1]
    assert parts[0].column_names == ["task", "uid"]


def test_only_changed_buckets_are_named(workspace):
    commit_records(workspace, KEYS[:20])
    first = version(workspace, "records")
    now = snapshot(workspace, "records")
    assert changed_buckets(workspace, now, first) == []
    assert changed_buckets(workspace, now, -1) == list(now.files)
    commit_records(workspace, KEYS[-1:])
    now = snapshot(workspace, "records")
    assert changed_buckets(workspace, now, first) == [bucket_of(KEYS[-1], 4)]
    assert changed_buckets(workspace, now, now.version) == []


def test_all_buckets_are_named_when_the_old_version_is_gone(workspace):
    commit_records(workspace, KEYS[:20])
    first = version(workspace, "records")
    commit_records(workspace, KEYS[20:])
    DeltaTable(workspace.table_uri("records")).create_checkpoint()
    log = workspace.path("tables/records/_delta_log")
    for name in workspace.list("tables/records/_delta_log"):
        if name in (f"{number:020d}.json" for number in range(first + 1)):
            shutil.move(f"{log}/{name}", f"{workspace.uri}/{name}")
    now = snapshot(workspace, "records")
    assert changed_buckets(workspace, now, first) == now.buckets


def test_a_version_that_never_was_counts_as_gone(workspace):
    commit_records(workspace, KEYS)
    now = snapshot(workspace, "records")
    assert changed_buckets(workspace, now, now.version + 50) == now.buckets


def test_no_table_has_no_changed_buckets(workspace):
    assert changed_buckets(workspace, snapshot(workspace, "records"), 3) == []


@pytest.mark.parametrize(("name", "bucket"), [("records", None), ("files", 0)])
def test_a_file_needs_a_bucket_exactly_where_its_table_has_them(workspace, name, bucket):
    with pytest.raises(TableError, match=f"table {name} and bucket {bucket} do not fit"):
        write_file(workspace, name, records([]), bucket)


def test_a_file_needs_every_column(workspace):
    with pytest.raises(TableError, match=r"lack the columns \['task', 'tokens'\]"):
        write_file(workspace, "records", records(KEYS).drop_columns(["task", "tokens"]), 0)


def test_no_rows_write_no_file(workspace):
    assert write_by_bucket(workspace, "records", records([])) == []


def test_statistics_are_those_of_the_rows(workspace):
    ensure_table(workspace, "records")
    (found,) = write_by_bucket(Workspace(workspace.uri, 1), "records", records(KEYS))
    assert json.loads(found.stats) == {
        "numRecords": 40,
        "minValues": {"uid": KEYS[0]},
        "maxValues": {"uid": KEYS[-1]},
        "nullCount": {"uid": 0},
    }
    path = workspace.path(f"tables/records/{found.path}")
    assert pq.read_metadata(path).num_rows == found.rows == 40
    assert (found.table, found.bucket) == ("records", 0)


def test_a_reader_skips_files_by_the_statistics_and_loses_nothing(workspace):
    commit_records(workspace, KEYS)
    table = DeltaTable(workspace.table_uri("records"))
    found = table.to_pyarrow_table(filters=[("uid", "=", KEYS[17])])
    assert found["uid"].to_pylist() == [KEYS[17]]


def test_replacing_is_one_commit_of_delete_and_add(workspace):
    commit_records(workspace, KEYS[:20])
    before = snapshot(workspace, "records")
    writer = committer(workspace, "records", interval_s=60.0)
    writer.add(
        write_by_bucket(workspace, "records", records(KEYS[:20], task="mcq")),
        {"records": before.paths},
    )
    writer.commit()
    assert version(workspace, "records") == before.version + 1
    table = DeltaTable(workspace.table_uri("records")).to_pyarrow_table()
    assert sorted(table["uid"].to_pylist()) == KEYS[:20]
    assert set(table["task"].to_pylist()) == {"mcq"}
    assert read_files(workspace, "records", before.paths, ["task"])["task"].to_pylist()[0] == "qa"


def test_commits_wait_for_the_interval(workspace, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(commits.time, "monotonic", lambda: now[0])
    writer = committer(workspace, "records", interval_s=5.0)
    for second, key in enumerate(KEYS[:20]):
        now[0] = 100.0 + second
        writer.add(write_by_bucket(workspace, "records", records([key])))
    assert version(workspace, "records") == 3
    assert len(uids(workspace)) == 16
    writer.commit()
    assert len(uids(workspace)) == 20
    writer.commit()
    assert version(workspace, "records") == 4


def test_tables_are_committed_in_the_order_in_which_they_are_named(workspace, monkeypatch):
    order = []
    writer = committer(workspace, "clusters", "records", interval_s=60.0)
    write = writer._write
    monkeypatch.setattr(
        writer, "_write", lambda name, *a, **k: (order.append(name), write(name, *a, **k))
    )
    clusters = pa.table(
        {name: pa.nulls(1, field.type) for name, field in _fields("clusters").items()}
    ).set_column(0, "cluster", pa.array([KEYS[0]]))
    writer.add(write_by_bucket(workspace, "records", records(KEYS)))
    writer.add(write_by_bucket(workspace, "clusters", clusters))
    writer.commit()
    assert order == ["clusters", "records"]


def test_a_commit_says_who_made_it_and_what_it_holds(workspace):
    commit_records(workspace, KEYS, token=3)
    table = DeltaTable(workspace.table_uri("records"))
    (newest,) = table.history(1)
    document = json.loads(newest["mixup"])
    assert document["run"] == "run-3"
    assert document["token"] == 3
    assert document["rows"] == 40
    assert document["files"] == len(snapshot(workspace, "records").paths)
    assert table.transaction_version(commits.FENCE) == 3


def test_a_crash_between_writing_and_committing_leaves_an_orphan_and_no_row(workspace):
    commit_records(workspace, KEYS[:5])
    orphans = write_by_bucket(workspace, "records", records(KEYS[5:]))
    assert all(workspace.exists(f"tables/records/{file.path}") for file in orphans)
    assert sorted(uids(workspace)) == KEYS[:5]
    theirs = DeltaTable(workspace.table_uri("records")).to_pyarrow_table()
    assert sorted(theirs["uid"].to_pylist()) == KEYS[:5]
    commit_records(workspace, KEYS[5:])
    assert sorted(uids(workspace)) == KEYS


def test_a_passed_token_is_refused_and_nothing_is_doubled(workspace):
    slow = committer(workspace, "records", token=1, interval_s=60.0)
    slow.add(write_by_bucket(workspace, "records", records(KEYS)))
    commit_records(workspace, KEYS, token=2)
    with pytest.raises(TableError, match="fencing token 2 has passed this run's 1"):
        slow.commit()
    with pytest.raises(TableError, match="fencing token 2 has passed"):
        slow.complete("records", Completion("ingest", "f", {}, {}, "run-1"))
    assert sorted(uids(workspace)) == KEYS
    assert last_completion(workspace, "records", "ingest") is None


def test_a_token_that_passes_while_a_commit_is_made_is_refused(workspace, monkeypatch):
    slow = committer(workspace, "records", token=1, interval_s=60.0)
    slow.add(write_by_bucket(workspace, "records", records(KEYS)))
    stale = DeltaTable(workspace.table_uri("records"))
    commit_records(workspace, KEYS, token=2)
    monkeypatch.setattr(commits, "DeltaTable", lambda uri: stale)
    with pytest.raises(TableError, match="another writer committed meanwhile"):
        slow.commit()
    monkeypatch.undo()
    assert sorted(uids(workspace)) == KEYS


def test_the_same_token_may_commit_again(workspace):
    commit_records(workspace, KEYS[:5], token=4)
    commit_records(workspace, KEYS[5:], token=4)
    assert sorted(uids(workspace)) == KEYS


def test_the_newest_completion_of_a_stage_is_found(workspace):
    writer = committer(workspace, "records")
    for number, stage in enumerate(["ingest", "other", "ingest", "other"]):
        counts = {"rows": number}
        writer.complete("records", Completion(stage, f"f{number}", {"files": 1}, counts, "r"))
    found = last_completion(workspace, "records", "ingest")
    assert found == Completion("ingest", "f2", {"files": 1}, {"rows": 2}, "r")
    assert last_completion(workspace, "records", "embed") is None
    assert last_completion(workspace, "samples", "distill") is None


def test_completing_commits_what_is_pending_first(workspace):
    writer = committer(workspace, "records", interval_s=60.0)
    writer.add(write_by_bucket(workspace, "records", records(KEYS)))
    writer.complete("records", Completion("ingest", "f", {}, {}, "r"))
    assert sorted(uids(workspace)) == KEYS
    assert last_completion(workspace, "records", "ingest") is not None
    assert row_count(workspace, "records") == 40


def test_columns_that_came_later_are_added_and_null_in_older_files(workspace, monkeypatch):
    now = TABLES["places"]
    fields = [field for field in now.schema if field.name != "visits"]
    older = {**TABLES, "places": dataclasses.replace(now, schema=pa.schema(fields))}
    for module in (tables, commits):
        monkeypatch.setattr(module, "TABLES", older)
    rows = pa.table({"uid": [KEYS[0]], "fit": ["f"], "cell": pa.array([3], pa.int32())})
    committer(workspace, "places").add(
        [write_file(workspace, "places", rows, bucket_of(KEYS[0], 4))]
    )
    for module in (tables, commits):
        monkeypatch.setattr(module, "TABLES", TABLES)
    (path,) = snapshot(workspace, "places").paths
    (old,) = read_files(workspace, "places", [path], ["uid", "visits"]).to_pylist()
    assert old == {"uid": KEYS[0], "visits": None}
    row = {"uid": KEYS[1], "fit": "f", "cell": 4, "visits": [5]}
    later = pa.Table.from_pylist([row], schema=now.file_schema)
    committer(workspace, "places", token=2).add(
        [write_file(workspace, "places", later, bucket_of(KEYS[1], 4))]
    )
    read = DeltaTable(workspace.table_uri("places")).to_pyarrow_table().to_pylist()
    found = {row["uid"]: (row["cell"], row["visits"]) for row in read}
    assert found == {KEYS[0]: (3, None), KEYS[1]: (4, [5])}
    before = version(workspace, "places")
    ensure_table(workspace, "places")
    assert version(workspace, "places") == before
