import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from pyarrow import fs

from mixup import workspace as places
from mixup.errors import ConfigError, TableError
from mixup.workspace import (
    FORMAT,
    Workspace,
    base_folder,
    ensure_workspace,
    filesystem_of,
    is_full,
    open_workspace,
    resolve_location,
)


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return ensure_workspace(str(tmp_path / "w"), buckets=4)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.delenv("MIXUP_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_relative_location_is_that_of_the_current_folder(here):
    assert resolve_location("runs/w") == str(here / "runs/w")
    assert resolve_location("./a/../w/") == str(here / "w")


def test_an_absolute_location_stays(here):
    assert resolve_location("/data/w/") == "/data/w"


def test_the_home_folder_is_expanded(here, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert resolve_location("~/w") == "/home/someone/w"


def test_a_root_may_be_named(here, monkeypatch):
    monkeypatch.setenv("MIXUP_ROOT", "/shared/mixup")
    assert base_folder() == Path("/shared/mixup")
    assert resolve_location("w") == "/shared/mixup/w"
    assert resolve_location("/other/w") == "/other/w"


def test_a_submitted_job_does_not_write_into_its_temporary_folder(here, monkeypatch):
    job = here / "session" / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    job.mkdir(parents=True)
    monkeypatch.chdir(job)
    monkeypatch.setenv("HOME", "/home/someone")
    assert resolve_location("w") == "/home/someone/w"
    monkeypatch.setenv("MIXUP_ROOT", str(here))
    assert resolve_location("w") == str(here / "w")


@pytest.mark.parametrize("location", ["", "  ", "\n"])
def test_an_empty_location_is_refused(location):
    with pytest.raises(ConfigError, match="workspace is empty"):
        resolve_location(location)


def test_urls_stay_as_they_are(here):
    assert resolve_location("s3://bucket/prefix/") == "s3://bucket/prefix"
    assert resolve_location("file:///data/w") == "/data/w"
    assert not Workspace("s3://bucket/prefix").is_local
    assert Workspace("/data/w").is_local


def test_an_object_store_is_opened_without_a_connection():
    filesystem, path = filesystem_of("s3://bucket/prefix?region=eu-west-1")
    assert isinstance(filesystem, fs.S3FileSystem)
    assert path == "bucket/prefix"


def test_an_unknown_scheme_is_refused():
    with pytest.raises(ConfigError, match=r"cannot open 'ftp://host/w': .*use a folder, s3:// or"):
        filesystem_of("ftp://host/w")


def test_a_new_workspace_keeps_its_buckets(tmp_path):
    location = str(tmp_path / "w")
    assert ensure_workspace(location, buckets=7) == Workspace(location, 7)
    assert ensure_workspace(location, buckets=1).buckets == 7
    assert open_workspace(location).buckets == 7


def test_a_workspace_that_is_not_there_names_the_command(tmp_path):
    with pytest.raises(ConfigError, match=r"no workspace at .*absent; `mixup refresh` makes one"):
        open_workspace(str(tmp_path / "absent"))


def test_a_newer_format_is_refused(workspace):
    workspace.write_json("workspace.json", {"format": FORMAT + 1, "buckets": 1})
    for opened in (open_workspace, lambda uri: ensure_workspace(uri, buckets=1)):
        with pytest.raises(TableError, match=f"has format {FORMAT + 1}, known: {FORMAT}"):
            opened(workspace.uri)


def test_a_place_that_cannot_be_written_to_is_the_configs_fault(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot make the workspace"):
        ensure_workspace(str(tmp_path / "file" / "w"), buckets=1)


def test_documents_are_read_as_written(workspace):
    assert workspace.read_json("runs/a/b.json") is None
    workspace.write_json("runs/a/b.json", {"é": [1, None, "\u2028"]})
    assert workspace.read_json("runs/a/b.json") == {"é": [1, None, "\u2028"]}
    assert workspace.exists("runs/a/b.json")
    assert workspace.exists("runs/a")
    assert not workspace.exists("runs/c")
    workspace.write_json("runs/a/b.json", [])
    assert workspace.read_json("runs/a/b.json") == []
    assert workspace.list("runs/a") == ["b.json"]
    assert workspace.list("nowhere") == []


def test_text_that_cannot_be_encoded_does_not_stop_a_document(workspace):
    workspace.write_json("a.json", {"bad": "\ud800"})
    assert workspace.read_json("a.json") == {"bad": "?"}


def test_a_reader_never_sees_a_part_of_a_document(workspace):
    texts = {size: "x" * size for size in (10, 300_000)}
    workspace.write_json("a.json", texts[10])
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for text in texts.values():
                workspace.write_json("a.json", text)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = {len(workspace.read_json("a.json")) for _ in range(200)}
    finally:
        stop.set()
        writer.join()
    assert seen <= set(texts)


def test_a_write_that_fails_leaves_the_old_document(workspace, monkeypatch):
    workspace.write_json("a.json", "old")

    class Full(fs.LocalFileSystem):
        def move(self, source, target):
            raise OSError("no space left on device")

    monkeypatch.setattr(places, "filesystem_of", lambda uri: (Full(), uri))
    with pytest.raises(OSError, match="no space"):
        workspace.write_json("a.json", "new")
    monkeypatch.undo()
    assert workspace.read_json("a.json") == "old"


def test_a_staged_folder_appears_whole(workspace):
    with workspace.staged_folder("releases/one") as folder:
        Path(folder, "data").mkdir()
        Path(folder, "data", "part").write_text("rows")
        assert not workspace.exists("releases/one")
    assert workspace.list("releases") == ["one"]
    assert Path(workspace.path("releases/one/data/part")).read_text() == "rows"


def test_a_staged_folder_that_fails_leaves_nothing(workspace):
    def fail(folder: str) -> None:
        Path(folder, "part").write_text("rows")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), workspace.staged_folder("releases/one") as folder:
        fail(folder)
    assert workspace.list("releases") == []


def test_a_description_is_plain_json(workspace):
    with open(os.path.join(workspace.uri, "workspace.json")) as text:
        assert json.load(text) == {"format": FORMAT, "buckets": 4}


# --- a full disk ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError(errno.EFBIG, "File too large"), True),
        (OSError("Generic LocalFileSystem error: No space left on device (os error 28)"), True),
        (RuntimeError("commit failed: No space left on device (os error 28)"), True),
        (OSError("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (OSError("AWS Error NETWORK_CONNECTION"), False),
        (ValueError("bad"), False),
    ],
)
def test_a_full_disk_is_known_by_its_number(workspace, error, full):
    assert is_full(error) is full
    with pytest.raises(TableError if full else type(error)) as raised, workspace.writing():
        raise error
    assert (f"workspace {workspace.uri}: " in str(raised.value)) is full


LIMITED = """
import resource, sys
import pyarrow as pa
from mixup.commits import Committer, write_file
from mixup.workspace import open_workspace
workspace = open_workspace(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
if sys.argv[2] == "table":
    text = [f"{hash((n, m)):x}" for n in range(1000) for m in range(40)]
    count = len(text)
    write_file(workspace, "occurrences", pa.table({
        "file": text, "offset": pa.array(range(count), pa.int64()), "uid": text,
        "source": text, "licence": text, "extra": text,
    }), 0)
else:
    workspace.write_bytes("runs/r/large.bin", b"x" * 300_000)
"""


@pytest.mark.parametrize("what", ["table", "document"])
def test_what_was_half_written_is_taken_away(workspace, what):
    """A limit on the size of files stands for a disk that is full: the same path of errors."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, workspace.uri, what],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("mixup.errors.TableError: workspace ")
    assert "File too large; what was committed stays" in last
    left = [path for path in Path(workspace.uri).rglob("*") if path.is_file()]
    assert [path.name for path in left] == ["workspace.json"]
