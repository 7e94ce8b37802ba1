import os
import shutil
import time
from pathlib import Path

import pytest
from deltalake import DeltaTable
from stored_tables import (
    KEYS,
    commit,
    commit_one_by_one,
    committer,
    compact_here,
    records,
    release,
    rows_of,
)

from mixup.commits import Completion, last_completion, write_by_bucket
from mixup.errors import TableError
from mixup.lock import Lease, acquire
from mixup.stages.compact import merged, merges
from mixup.stages.run import RunContext
from mixup.stages.vacuum import (
    FoundFile,
    checkpoints,
    clean_up,
    listing,
    unneeded_entries,
    unneeded_files,
)
from mixup.tables import row_count, snapshot, stored_files, version
from mixup.workspace import Workspace, ensure_workspace

HOUR = 3600.0


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return ensure_workspace(str(tmp_path / "w"), buckets=2)


def vacuum(workspace: Workspace, run: str = "next") -> Lease:
    """What a run does as it starts; the lock is given back."""
    with acquire(workspace, run) as lease:
        clean_up(RunContext(workspace, run, lease.token), lease)
    return lease


def data_files(workspace: Workspace, name: str = "records") -> set[str]:
    found = [file.path for file in listing(workspace, f"tables/{name}")]
    return {path for path in found if not path.startswith("_delta_log/")}


def replace_rows(workspace: Workspace, task: str) -> None:
    writer = committer(workspace, "records")
    held = snapshot(workspace, "records").paths
    writer.add(write_by_bucket(workspace, "records", records(KEYS, task)), {"records": held})


def found(*paths: str, modified: float = 0.0) -> list[FoundFile]:
    return [FoundFile(path, 1, modified) for path in paths]


def test_only_data_files_that_are_old_and_unneeded_go():
    there = [
        *found("bucket=0/a.parquet", "bucket=0/b.parquet", "_delta_log/9.checkpoint.parquet"),
        *found("_delta_log/00000000000000000000.json", "notes.txt"),
        *found("bucket=0/young.parquet", modified=9.0),
    ]
    unneeded = unneeded_files(there, {"bucket=0/a.parquet"}, before=9.0)
    assert [file.path for file in unneeded] == ["bucket=0/b.parquet"]


def log_of(commits: int, *with_checkpoint: int) -> list[FoundFile]:
    names = [f"_delta_log/{n:020d}.json" for n in range(commits)]
    names += [f"_delta_log/{n:020d}.checkpoint.parquet" for n in with_checkpoint]
    return found(*reversed(names), "_delta_log/_last_checkpoint")


@pytest.mark.parametrize(
    ("kept", "start"), [([25], 20), ([20], 20), ([19, 25], 10), ([9], 0), ([35, 3], 0)]
)
def test_log_entries_go_up_to_the_checkpoint_that_the_earliest_version_starts_at(kept, start):
    log = log_of(40, 10, 20)
    dropped = [file.path for file in unneeded_entries(log, kept)]
    versions = [int(path[11:31]) for path in dropped]
    assert versions == sorted(versions)
    assert set(versions) == set(range(start))
    assert checkpoints(log) == [10, 20]


def test_orphans_of_a_killed_run_go_and_nothing_else(workspace):
    kept = commit(workspace, "records", records(KEYS[::2]))
    orphans = write_by_bucket(workspace, "records", records(KEYS[1::2]))
    assert len(data_files(workspace)) == len(kept) + len(orphans) == 4
    before = version(workspace, "records")
    vacuum(workspace)
    assert data_files(workspace) == set(kept)
    assert version(workspace, "records") == before
    assert [row["uid"] for row in rows_of(workspace, "records")] == KEYS[::2]


def test_a_file_that_is_younger_than_the_lock_is_left(workspace):
    kept = commit(workspace, "records", records(KEYS[::2]))
    with acquire(workspace, "run") as lease:
        context = RunContext(workspace, "run", lease.token)
        writing = write_by_bucket(workspace, "records", records(KEYS[1::2]))
        clean_up(context, lease)
        assert data_files(workspace) == {*kept, *(file.path for file in writing)}
        committer(workspace, "records", token=lease.token).add(writing)
        clean_up(context, lease)
    assert row_count(workspace, "records") == 60
    assert [row["uid"] for row in rows_of(workspace, "records")] == KEYS


def test_versions_that_releases_name_stay_readable_and_others_do_not(workspace):
    commit(workspace, "records", records(KEYS))
    first = release(workspace, "r1", "records")["records"]
    replace_rows(workspace, "mcq")
    between = version(workspace, "records")
    replace_rows(workspace, "cs")
    second = release(workspace, "r2", "records")["records"]
    replace_rows(workspace, "tfq")
    assert len(data_files(workspace)) == 8
    vacuum(workspace)
    assert len(data_files(workspace)) == 6
    for at, task in ((first, "qa"), (second, "cs"), (None, "tfq")):
        rows = rows_of(workspace, "records", at)
        assert [(row["uid"], row["task"]) for row in rows] == [(key, task) for key in KEYS]
    with pytest.raises((OSError, FileNotFoundError)):
        rows_of(workspace, "records", between)


def test_a_deleted_release_frees_its_files(workspace):
    commit(workspace, "records", records(KEYS))
    release(workspace, "r1", "records")
    replace_rows(workspace, "mcq")
    vacuum(workspace)
    assert len(data_files(workspace)) == 4
    shutil.rmtree(workspace.path("releases/r1"))
    vacuum(workspace)
    assert data_files(workspace) == set(snapshot(workspace, "records").paths)


def test_a_release_is_read_after_compaction_and_vacuum(workspace):
    commit_one_by_one(workspace, "records", [records(KEYS[n:40:8]) for n in range(8)])
    pinned = release(workspace, "r1", "records")["records"]
    before = rows_of(workspace, "records", pinned)
    commit(workspace, "records", records(KEYS[40:]))
    compact_here(workspace, "records")
    vacuum(workspace)
    assert rows_of(workspace, "records", pinned) == before
    assert [row["uid"] for row in rows_of(workspace, "records")] == KEYS
    shutil.rmtree(workspace.path("releases/r1"))
    vacuum(workspace)
    assert len(data_files(workspace)) == 2
    assert [row["uid"] for row in rows_of(workspace, "records")] == KEYS


def test_a_kill_between_merging_and_its_commit_leaves_an_orphan_that_goes(workspace):
    commit_one_by_one(workspace, "records", [records(KEYS[n::8]) for n in range(8)])
    held, before = data_files(workspace), rows_of(workspace, "records")
    table = DeltaTable(workspace.table_uri("records"))
    made = [merged(workspace, "records", group) for group in merges(stored_files(table, "records"))]
    orphans = {file.path for manifest in made for file in manifest.files}
    assert data_files(workspace) == held | orphans
    vacuum(workspace)
    assert data_files(workspace) == held
    compact_here(workspace, "records", token=9)
    assert rows_of(workspace, "records") == before


def test_an_unreadable_manifest_keeps_everything(workspace, caplog):
    commit(workspace, "records", records(KEYS))
    replace_rows(workspace, "mcq")
    workspace.write_bytes("releases/r1/manifest.json", b'{"tables": {"rec')
    vacuum(workspace)
    assert len(data_files(workspace)) == 4
    assert "the manifest of release r1 cannot be read" in caplog.text


def test_a_pinned_version_that_cannot_be_read_keeps_its_table(workspace, caplog):
    commit(workspace, "records", records(KEYS))
    replace_rows(workspace, "mcq")
    workspace.write_json("releases/r1/manifest.json", {"tables": {"records": 77, "samples": -1}})
    vacuum(workspace)
    assert len(data_files(workspace)) == 4
    assert "version 77 of table records, which a release names, cannot be read" in caplog.text


def long_log(workspace: Workspace, commits: int, first: int = 0) -> None:
    writer = committer(workspace, "records")
    for number in range(first, first + commits):
        writer.complete("records", Completion("ingest", f"f{number}", {}, {}, "r"))


def log_entries(workspace: Workspace) -> list[str]:
    return workspace.list("tables/records/_delta_log")


def test_logs_are_checkpointed_and_lose_only_what_nothing_reads(workspace, monkeypatch):
    monkeypatch.setattr("mixup.stages.vacuum.HISTORY", 5)
    commit(workspace, "records", records(KEYS))
    long_log(workspace, 18)
    vacuum(workspace)
    assert not any("checkpoint" in name for name in log_entries(workspace))
    long_log(workspace, 1, first=18)
    vacuum(workspace)
    assert f"{20:020d}.checkpoint.parquet" in log_entries(workspace)
    assert len([name for name in log_entries(workspace) if name.endswith(".json")]) == 21
    long_log(workspace, 6, first=19)
    vacuum(workspace)
    commits = [int(name[:20]) for name in log_entries(workspace) if name.endswith(".json")]
    assert commits == list(range(20, 27))
    assert [row["uid"] for row in rows_of(workspace, "records")] == KEYS
    assert len(rows_of(workspace, "records", 21)) == 60
    monkeypatch.setattr("mixup.stages.vacuum.CHECKPOINT_COMMITS", 3)
    for _ in range(2):  # a checkpoint of the newest version does not make its history go
        vacuum(workspace)
    commits = [int(name[:20]) for name in log_entries(workspace) if name.endswith(".json")]
    assert commits == list(range(20, 27))
    completion = last_completion(workspace, "records", "ingest")
    assert completion is not None
    assert completion.fingerprint == "f24"


def test_the_log_of_a_pinned_version_stays(workspace):
    commit(workspace, "records", records(KEYS))
    pinned = release(workspace, "r1", "records")["records"]
    replace_rows(workspace, "mcq")
    properties = {"delta.checkpointInterval": "5"}
    DeltaTable(workspace.table_uri("records")).alter.set_table_properties(properties)
    long_log(workspace, 10)
    for name in log_entries(workspace):  # Delta's own clean-up goes by age
        os.utime(workspace.path(f"tables/records/_delta_log/{name}"), (0, time.time() - 90 * 86400))
    long_log(workspace, 10)
    assert len([name for name in log_entries(workspace) if "checkpoint.parquet" in name]) >= 4
    vacuum(workspace)
    assert [row["task"] for row in rows_of(workspace, "records", pinned)] == ["qa"] * 60


def test_what_dead_runs_left_outside_of_tables_goes(workspace):
    release(workspace, "r1", "records")
    left = [
        "releases/r2.0123abcd.tmp/data/train.parquet",
        f"releases/current.json.{'a' * 32}.tmp",
        f"runs/20260101T000000-aaaaaa/spans.json.{'b' * 32}.tmp",
        f"fitted/reference.json.{'c' * 32}.tmp",
        "checkpoints/sft-1/step-00000050.0123abcd.tmp/zero.pt",
        "models/sft.0123abcd.tmp/model.safetensors",
        "runs/heartbeats/0.json",
    ]
    stays = [
        "releases/r1/manifest.json",
        "releases/current.json",
        "runs/20260101T000000-aaaaaa/spans.json",
        "runs/20260101T000000-aaaaaa/notes.tmp",
        "fitted/reference.json",
        "checkpoints/sft-1/step-00000025/zero.pt",
        "checkpoints/sft-1/metrics.jsonl",
        "models/sft/model.safetensors",
    ]
    for path in (*left, *stays[1:]):
        workspace.write_json(path, {})
    lease = vacuum(workspace)
    assert not [path for path in left if workspace.exists(path)]
    assert not workspace.exists("releases/r2.0123abcd.tmp")
    assert all(workspace.exists(path) for path in stays)
    assert workspace.exists(f"runs/heartbeats/{lease.token}.json")


def test_spans_of_the_newest_runs_are_kept(workspace, monkeypatch):
    monkeypatch.setattr("mixup.stages.vacuum.SPANS_KEPT_RUNS", 2)
    runs = [f"2026010{day}T000000-aaaaaa" for day in range(1, 5)]
    for run in runs:
        workspace.write_json(f"runs/{run}/spans.json", [])
        workspace.write_json(f"runs/{run}/config.json", {})
    vacuum(workspace)
    assert [workspace.exists(f"runs/{run}/spans.json") for run in runs] == [False] * 2 + [True] * 2
    assert all(workspace.exists(f"runs/{run}/config.json") for run in runs)


def test_a_stalled_holder_cannot_commit_a_file_that_was_deleted(workspace):
    """It stalled on another machine between writing a file and committing it."""
    commit(workspace, "records", records(KEYS[::2]), token=1)
    with acquire(workspace, "next") as lease:
        stalled = committer(workspace, "records", token=1)
        late = write_by_bucket(workspace, "records", records(KEYS[1::2]))
        lease.since, lease.in_doubt = time.time() + HOUR, True
        clean_up(RunContext(workspace, "next", lease.token + 1), lease)
    assert not any(workspace.exists(f"tables/records/{file.path}") for file in late)
    with pytest.raises(TableError, match="has passed this run's 1"):
        stalled.add(late)
    assert row_count(workspace, "records") == 30


def test_one_line_says_what_was_freed(workspace, caplog):
    caplog.set_level("INFO")
    commit(workspace, "records", records(KEYS[::2]))
    vacuum(workspace)
    assert "vacuum" not in caplog.text
    write_by_bucket(workspace, "records", records(KEYS[1::2]))
    vacuum(workspace)
    assert "vacuum: removed 2 files" in caplog.text


def test_no_table_yet_is_nothing_to_clean(workspace):
    vacuum(workspace)
    assert not Path(workspace.table_uri("records")).exists()
