"""The library job as a user runs it, and a refresh that takes the library by its path."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Job, environment, short, small_pool

CONFIG = ROOT / "jobs" / "reference.yaml"


def build(workspace: Path, *more: str) -> str:
    done = subprocess.run(
        [sys.executable, "jobs/reference.py", str(CONFIG), f"workspace={workspace}", *more],
        env=environment(PYTHONPATH=str(ROOT)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


@pytest.mark.thorough
def test_a_refresh_takes_a_built_library_and_refuses_a_damaged_one(tmp_path):
    workspace = tmp_path / "library"
    pool = small_pool(tmp_path)
    said = build(workspace, pool)
    folder = json.loads((workspace / "libraries" / "current.json").read_text())["library"]
    library = workspace / "libraries" / folder
    assert str(library) in said
    manifest = json.loads((library / "manifest.json").read_text())
    assert manifest["counts"]["rows_in"] == sum(manifest["fates"].values())
    assert "nothing to do" in build(workspace, pool)

    read = f'rate.library=["{workspace}"]'
    few = (*short(), pool, read, "distill.max_clusters=8", "select.size=20")
    job = Job(tmp_path / "refresh", overrides=few)
    job.run()
    (reference,) = (one for one in job.manifest()["models"] if one["role"] == "reference")
    assert reference["revision"] == manifest["revision"]
    assert reference["name"] == f"library {folder}"
    quality = [row for row in job.table("rewards").to_pylist() if row["component"] == "quality"]
    assert any(row["value"] is not None for row in quality)
    assert "nothing to do" in job.run()

    file = library / "library.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    other = Job(tmp_path / "other", overrides=few)
    assert "library.parquet is not as its manifest states" in other.run(expect=2)
