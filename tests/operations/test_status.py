"""Status of workspaces with and without tables, releases and writers."""

from pathlib import Path

from small_workspace import RELEASE, RUN, make

from mixup.lock import acquire
from mixup.operations.status import status, status_lines
from mixup.records import TABLES
from mixup.workspace import ensure_workspace


def entries(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


def test_json_is_tables_and_release(tmp_path):
    workspace = make(tmp_path).workspace
    found = status(workspace).to_json()
    assert set(found) == {"tables", "release"}
    assert list(found["tables"]) == list(TABLES)
    assert found["tables"]["records"] == {"rows": 8, "version": 1}
    assert found["tables"]["quarantine"] == {"rows": 0, "version": 0}
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


def test_lines_name_the_holder_and_the_last_run(tmp_path):
    workspace = make(tmp_path).workspace
    text = "\n".join(status_lines(status(workspace)))
    assert f"{RUN}, started " in text
    assert f"with release {RELEASE}" in text
    assert "free" in text
    with acquire(workspace, "20260103T000000-aaaaaa"):
        workspace.write_json("runs/20260103T000000-aaaaaa/config.json", {})
        text = "\n".join(status_lines(status(workspace)))
    assert "held by run 20260103T000000-aaaaaa (process " in text
    assert text.endswith("running")
    assert status_lines(status(workspace))[-1].endswith("did not finish; run the job again")
