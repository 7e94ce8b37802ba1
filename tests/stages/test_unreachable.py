"""A file that could not be reached is left out, said so, and tried again: never taken as read."""

import gzip
from dataclasses import replace

import pytest
from made_pool import commit, make_workspace, rows_of, source

from mixup.config import IngestConfig
from mixup.stages.parsed import parsed_fields, parsed_table
from mixup.stages.pieces import PieceWriter
from mixup.stages.recorded_files import forget_unreachable, with_rows_of
from mixup.stages.run import RunContext
from mixup.stages.streams import UNREACHABLE, UNREADABLE, RawRow, failure
from mixup.stages.writing import write_partition
from mixup.tables import snapshot


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError(2, "gone"), UNREACHABLE),
        (PermissionError(13, "no"), UNREACHABLE),
        (ConnectionResetError(), UNREACHABLE),
        (TimeoutError(), UNREACHABLE),
        (OSError("When reading 'k' in bucket 'b': AWS Error NETWORK_CONNECTION"), UNREACHABLE),
        (OSError("Couldn't deserialize thrift: invalid TType"), UNREADABLE),
        (gzip.BadGzipFile("Not a gzipped file"), UNREADABLE),
        (EOFError("Compressed file ended"), UNREADABLE),
        (ValueError("bad"), UNREADABLE),
    ],
)
def test_damage_stays_and_a_failed_way_may_pass(error, reason):
    assert failure(error) == reason


def test_its_quarantine_row_goes_before_it_is_read_again(tmp_path):
    workspace = make_workspace(tmp_path / "w")
    context = RunContext(workspace, "r", 1)
    gone, other = source("/data/gone.jsonl"), source("/data/other.jsonl")
    context.committer("records", "occurrences", "quarantine")
    rows = [
        parsed_fields(RawRow(-1, reason=UNREACHABLE), gone, IngestConfig(paths=["x"]), 1),
        parsed_fields(RawRow(40, b"{broken"), gone, IngestConfig(paths=["x"]), 1),
        parsed_fields(RawRow(-1, reason=UNREACHABLE), other, IngestConfig(paths=["x"]), 1),
    ]
    known = {name: snapshot(workspace, name) for name in ("records", "occurrences")}
    filesystem, root = workspace.filesystem()
    filesystem.create_dir(f"{root}/staging/w")
    writer = PieceWriter(workspace, "staging/w", "0")
    writer.add(parsed_table(rows))
    writer.flush()
    made = write_partition(
        workspace,
        writer.pieces,
        partition=0,
        partitions=1,
        known=known,
        files=[],
        quarantined=set(),
    )
    commit(workspace, made)
    now = snapshot(workspace, "quarantine")
    assert with_rows_of(workspace, now, [other]).paths == now.paths
    assert with_rows_of(workspace, now, [source("/data/third.jsonl")]).paths == ()
    forget_unreachable(context, [gone])
    left = sorted((row["path"], row["reason"]) for row in rows_of(workspace, "quarantine"))
    assert left == [("/data/gone.jsonl", "not_json"), ("/data/other.jsonl", UNREACHABLE)]


def test_other_rules_make_another_file():
    file = source("/data/pool.jsonl")
    assert replace(file, rules="MIT").fingerprint != replace(file, rules="proprietary").fingerprint
