"""A disk that fills in a run: said in one line, nothing half-written, and gone on from."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import DEMO, Job

from mixup.workspace import Workspace

ROWS = 60
# Nothing to distill and little to embed: it is the tables that are looked at.
SMALL = ("rate.type=column", "ingest.bucket_bytes=100000", "distill.max_clusters=1")


def remount(folder: Path, size: str, *, first: bool = False) -> None:
    what = ["-t", "tmpfs", "tmpfs"] if first else []
    options = f"size={size}" if first else f"remount,size={size}"
    subprocess.run(
        ["mount", *what, "-o", options, str(folder)], check=True, capture_output=True, text=True
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of three megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no mount command")
    try:
        remount(folder, "3m", first=True)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"a small disk cannot be mounted here: {error.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def pool(path: Path) -> None:
    """Six megabytes that do not compress well: more than the disk holds."""
    draw = random.Random(0)
    with path.open("w") as file:
        for number in range(ROWS):
            text = f"{number} " + "".join(
                draw.choices("abcdefghijklmnopqrstuvwxyz01234567", k=99_000)
            )
            file.write(json.dumps({"instruction": text, "output": "x", "rating": 10}) + "\n")


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(small_disk: Path, tmp_path: Path):
    pool(tmp_path / "pool.jsonl")
    job = Job(small_disk / "w", DEMO, SMALL)
    given = f'ingest.paths=["{tmp_path / "pool.jsonl"}"]'
    output = job.run(given, expect=1)
    said = [line for line in output.splitlines() if line.startswith("mixup: ")]
    assert len(said) == 1
    assert f"workspace {job.workspace}: No space left on device" in said[0]
    assert "Traceback" not in output
    for name in job.tables():
        assert job.table(name).num_rows == job.rows(name), "what is committed can be read"
    assert job.rows("files") == 0, "a file counts as read when all of it is"

    remount(small_disk, "300m")
    job.run(given)
    assert job.rows("records") == job.rows("occurrences") == ROWS
    records = job.table("records")["uid"].to_pylist()
    assert len(set(records)) == ROWS
    assert job.rows("files") == 1
    assert job.manifest()["fates"]["quarantined"] == 0
    assert not Workspace(str(job.workspace)).exists("staging")
