"""Status of workspaces with and without tables, releases and writers."""

import os
import re
from pathlib import Path

from small_workspace import RELEASE, RUN, make

from mixup.commits import Committer, Completion
from mixup.lock import acquire
from mixup.operations.status import status
from mixup.operations.status_text import status_lines
from mixup.operations.text import byte_count
from mixup.records import TABLES
from mixup.workspace import ensure_workspace

NEXT = "20260103T000000-aaaaaa"


def entries(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


def test_json_is_tables_and_release(tmp_path):
    workspace = make(tmp_path).workspace
    found = status(workspace).to_json()
    assert set(found) == {"tables", "release"}
    assert list(found["tables"]) == list(TABLES)
    assert found["tables"]["records"] == {"rows": 8, "version": 1}
    assert found["tables"]["quarantine"] == {"rows": 1, "version": 1}
    assert found["release"] == f"{workspace.uri}/releases/{RELEASE}"


def test_an_empty_workspace_has_nothing_and_gets_nothing(tmp_path):
    workspace = ensure_workspace(str(tmp_path / "workspace"), buckets=1)
    before = entries(tmp_path)
    found = status(workspace)
    assert found.to_json() == {"tables": {}, "release": None}
    text = "\n".join(status_lines(found))
    assert "no table yet" in text
    assert "none yet" in text
    assert entries(tmp_path) == before


def test_looking_writes_nothing(tmp_path):
    workspace = make(tmp_path).workspace
    before = entries(tmp_path)
    status_lines(status(workspace))
    assert entries(tmp_path) == before


def lines_of(workspace) -> str:
    return "\n".join(status_lines(status(workspace)))


def test_the_release_is_named_with_its_rows_and_age(tmp_path):
    text = lines_of(make(tmp_path).workspace)
    assert f"{RELEASE}  (2 there)" in text
    assert " days ago" in text
    assert "2: 1 distilled, 1 originals" in text


def test_the_last_run_ended_runs_or_did_not_finish(tmp_path):
    workspace = make(tmp_path).workspace
    text = lines_of(workspace)
    assert RUN in text
    assert f"with release {RELEASE}" in text
    assert " after 55.0 s" in text
    assert "free" in text
    with acquire(workspace, NEXT) as lease:
        workspace.write_json(f"runs/{NEXT}/config.json", {})
        assert "running since 2026-01-03" in lines_of(workspace)
        committer = Committer(workspace, token=lease.token, run=NEXT, tables=["ratings"])
        committer.complete("ratings", Completion("rate", "f", {}, {}, NEXT))
        text = lines_of(workspace)
    assert f"held by run {NEXT}\n" in text
    assert f"process {os.getpid()} on " in text
    assert "last commit by rate (table ratings)" in text
    text = lines_of(workspace)
    assert "did not finish; run the job again" in text
    assert "last commit by rate (table ratings)" in text


def test_a_dead_holder_is_said(tmp_path, monkeypatch):
    workspace = make(tmp_path).workspace
    with acquire(workspace, NEXT):
        workspace.write_json(f"runs/{NEXT}/config.json", {})
        monkeypatch.setattr("mixup.lock.Holder.is_running", False)
        text = lines_of(workspace)
    assert "that process has ended; the next run takes it over" in text
    assert "did not finish" in text


def test_tables_have_rows_size_and_version(tmp_path):
    workspace = make(tmp_path).workspace
    folder = Path(workspace.uri) / "tables" / "records"
    size = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
    (row,) = (line.split() for line in lines_of(workspace).split("\n") if " records " in line)
    assert row == ["records", "8", *byte_count(size).split(), "1"]
    assert status(workspace).disk_bytes == sum(
        path.stat().st_size for path in Path(workspace.uri).rglob("*") if path.is_file()
    )


def test_rows_without_a_value_are_counted_by_reason(tmp_path):
    found = status(make(tmp_path).workspace)
    assert found.reasons["quarantine"] == {"not_utf8": 1}
    assert found.reasons["ratings"] == {"unrated": 1}
    assert found.reasons["samples"] == {"no_answer_block": 1}
    assert "ratings      unrated 1" in status_lines(found)


def test_reasons_of_too_many_files_are_not_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("mixup.operations.status._MOST_FILES", 0)
    found = status(make(tmp_path).workspace)
    assert found.reasons["ratings"] is None
    assert "ratings      not counted here: too many files" in status_lines(found)


def test_it_fits_a_screen_and_has_colors_on_request_only(tmp_path):
    found = status(make(tmp_path).workspace)
    plain, colored = status_lines(found), status_lines(found, color=True)
    assert len(plain) <= 40
    assert max(len(line) for line in plain if found.uri not in line) <= 80
    assert not any("\x1b" in line for line in plain)
    assert [re.sub(r"\x1b\[\d*m", "", line) for line in colored] == plain
    assert colored != plain
