"""Compaction on Ray: light tasks merge, the driver commits."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pytest

from mixup.commits import write_by_bucket
from mixup.records import TABLES, content_key
from mixup.stages.compact import compact
from mixup.stages.run import RunContext
from mixup.tables import read_files, snapshot, version
from mixup.workspace import ensure_workspace

KEYS = sorted(content_key(number) for number in range(200))


@pytest.mark.usefixtures("ray_cluster")
def test_small_files_of_every_bucket_become_one(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    workspace = ensure_workspace(str(tmp_path / "w"), buckets=3)
    context = RunContext(workspace, "run", 1, commit_interval_s=0.0)
    committer = context.committer("records")
    for first in range(10):
        rows = [{"uid": key, "task": "qa", "turns": [], "tokens": 0} for key in KEYS[first::10]]
        table = pa.Table.from_pylist(rows, schema=TABLES["records"].file_schema)
        committer.add(write_by_bucket(workspace, "records", table))
    assert len(snapshot(workspace, "records").paths) == 30

    compact(context, "records")

    now = snapshot(workspace, "records")
    assert {bucket: len(paths) for bucket, paths in now.files.items()} == {0: 1, 1: 1, 2: 1}
    assert read_files(workspace, "records", now.paths, ["uid"])["uid"].to_pylist() == KEYS
    assert "records: compacted from 30 to 3 files" in caplog.text
    log = Path(workspace.table_uri("records")) / "_delta_log"
    assert '"dataChange":true' not in max(log.glob("*.json")).read_text()
    compact(context, "records")
    assert version(workspace, "records") == now.version
