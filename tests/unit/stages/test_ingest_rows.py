import json

import pyarrow as pa
import pytest
from made_pool import INGEST, commit, make_workspace, rows_of, source

from mixup.config import IngestConfig
from mixup.records import TABLES, bucket_of, uid_of
from mixup.stages.ingest import (
    _PARSED,
    _parse_chunks,
    _waves,
    _write_buckets,
    parsed_fields,
    unread_files,
)
from mixup.stages.rows import RawRow
from mixup.stages.run import Manifest
from mixup.stages.sources import Chunk, SourceFile, find_files
from mixup.tables import Committer, snapshot, write_file
from mixup.text.formats import parse_row

FILE = source("/data/pool.jsonl")


def raw(offset: int = 0, **fields) -> RawRow:
    return RawRow(offset, json.dumps(fields).encode())


def good(number: int, **fields) -> RawRow:
    return raw(number * 100, instruction=f"question {number}", output="answer", **fields)


def parsed(row: RawRow, config: IngestConfig = INGEST, buckets: int = 1) -> dict:
    return parsed_fields(row, FILE, config, buckets)


def test_a_good_row_becomes_a_record_and_an_occurrence():
    row = raw(7, instruction="What is 2+2?", input="", output="4 ", rating=8, lang="en")
    found = parsed(row, buckets=16)
    turns = [
        {"role": "user", "content": "What is 2+2?"},
        {"role": "assistant", "content": "4"},
    ]
    assert found["turns"] == turns
    assert found["uid"] == uid_of(parse_row(json.loads(row.raw)).turns)
    assert found["bucket"] == bucket_of(found["uid"], 16)
    assert (found["file"], found["path"], found["offset"]) == (FILE.fingerprint, FILE.path, 7)
    assert (found["task"], found["language"]) == ("qa", "en")
    assert json.loads(found["extra"]) == {"rating": 8}
    assert found["tokens"] > 0
    assert "reason" not in found
    pa.Table.from_pylist([found], schema=_PARSED)


@pytest.mark.parametrize(
    ("fields", "default", "licence"),
    [
        ({"licence": "MIT"}, "Apache-2.0", "MIT"),
        ({"license": "MIT"}, None, "MIT"),
        ({}, "Apache-2.0", "Apache-2.0"),
        ({"licence": "  "}, "Apache-2.0", "Apache-2.0"),
        ({}, None, "unknown"),
    ],
)
def test_the_licence_is_the_rows_or_the_configs_or_unknown(fields, default, licence):
    config = IngestConfig(paths=["x"], licence=default)
    assert parsed(good(1, **fields), config)["licence"] == licence


def test_the_source_is_the_rows_or_the_files_name():
    assert parsed(good(1))["source"] == "pool"
    assert parsed(good(1, source="forum"))["source"] == "forum"


def test_a_decoded_row_needs_no_bytes():
    row = RawRow(3, value={"prompt": "q", "completion": "a"})
    assert parsed(row)["turns"][0]["content"] == "q"


@pytest.mark.parametrize(
    ("row", "reason", "kept"),
    [
        (RawRow(5, b"{broken"), "not_json", b"{broken"),
        (RawRow(5, b"\xff\xfe"), "not_utf8", b"\xff\xfe"),
        (RawRow(5, b"42"), "not_an_object", b"42"),
        (RawRow(5, b'{"a": 1}'), "unknown_schema", b'{"a": 1}'),
        (raw(5, prompt="q", completion=""), "no_answer", b'{"prompt": "q", "completion": ""}'),
        (RawRow(5, b"xx", reason="row_too_long", detail="9 bytes"), "row_too_long", b"xx"),
        (RawRow(-1, reason="unreadable_file", detail="cut"), "unreadable_file", b""),
        (RawRow(5, value={"a": b"\xff"}), "unknown_schema", b'{"a": "b\'\\\\xff\'"}'),
        (RawRow(5, value={"a": "\ud800"}), "unknown_schema", b'{"a": "?"}'),
    ],
)
def test_a_bad_row_keeps_its_place_reason_and_bytes(row, reason, kept):
    found = parsed(row, buckets=8)
    assert (found["reason"], found["raw"], found["offset"]) == (reason, kept, row.offset)
    assert (found["file"], found["path"]) == (FILE.fingerprint, FILE.path)
    assert reason in found["detail"]
    assert 0 <= found["bucket"] < 8
    assert "uid" not in found
    pa.Table.from_pylist([found], schema=_PARSED)


def test_long_bytes_and_details_are_cut():
    found = parsed(RawRow(0, b"x" * 100_000, reason="row_too_long", detail="y" * 10_000))
    assert len(found["raw"]) == 4096
    assert len(found["detail"]) == 500


# --- buckets -------------------------------------------------------------------------------------


ROWS = [
    good(0),
    good(1),
    good(0, source="elsewhere"),
    good(2),
    RawRow(990, b"not json"),
    good(1, rating=3),
    RawRow(991, b"{}"),
]


def table_of(rows: list[RawRow], file: SourceFile = FILE, buckets: int = 1) -> pa.Table:
    places = [RawRow(n, row.raw, row.value, row.reason) for n, row in enumerate(rows)]
    fields = [parsed_fields(row, file, INGEST, buckets) for row in places]
    return pa.Table.from_pylist(fields, schema=_PARSED)


def known(workspace):
    return {name: snapshot(workspace, name) for name in ("records", "occurrences", "quarantine")}


@pytest.fixture
def workspace(tmp_path):
    made = make_workspace(tmp_path / "w", buckets=3)
    Committer(made, token=1, run="r", tables=["records", "occurrences", "quarantine"])
    return made


def write(workspace, rows: pa.Table) -> Manifest:
    written = _write_buckets(rows, workspace, known(workspace))
    (text,) = written["manifest"].to_pylist()
    return Manifest.from_json(text)


def counts(manifest: Manifest) -> dict[str, int]:
    return {name: n for name, n in manifest.counts.items() if ":" not in name}


def test_equal_content_is_one_record_of_several_occurrences(workspace):
    manifest = write(workspace, table_of(ROWS, buckets=workspace.buckets))
    assert counts(manifest) == {"rows": 7, "quarantined": 2, "new": 3, "duplicate": 2}
    assert manifest.counts[f"rows:{FILE.fingerprint}"] == 7
    assert manifest.counts[f"quarantined:{FILE.fingerprint}"] == 2
    commit(workspace, manifest)
    records, occurrences = rows_of(workspace, "records"), rows_of(workspace, "occurrences")
    assert len({row["uid"] for row in records}) == len(records) == 3
    assert len(occurrences) == 5
    assert {row["uid"] for row in occurrences} == {row["uid"] for row in records}
    assert sorted(row["offset"] for row in occurrences) == [0, 1, 2, 3, 5]
    quarantine = rows_of(workspace, "quarantine")
    assert [(row["offset"], row["reason"]) for row in quarantine] == [
        (4, "not_json"),
        (6, "unknown_schema"),
    ]
    assert all(row["seen_at"] is not None for row in quarantine)


def test_writing_again_after_a_crash_writes_nothing_twice(workspace):
    rows = table_of(ROWS, buckets=workspace.buckets)
    commit(workspace, write(workspace, rows))
    again = write(workspace, rows)
    assert list(again.files) == []
    assert counts(again) == {"rows": 7, "quarantined": 2, "new": 0, "duplicate": 5}


@pytest.mark.parametrize("committed", ["records", "occurrences", "quarantine"])
def test_a_crash_between_the_tables_commits_is_made_good(workspace, committed):
    rows = table_of(ROWS, buckets=workspace.buckets)
    first = write(workspace, rows)
    part = [file for file in first.files if file.table == committed]
    commit(workspace, Manifest(part))
    commit(workspace, write(workspace, rows))
    for name, expected in (("records", 3), ("occurrences", 5), ("quarantine", 2)):
        keys = [tuple(row[key] for key in TABLES[name].key) for row in rows_of(workspace, name)]
        assert len(keys) == len(set(keys)) == expected, name


def test_a_later_file_adds_its_occurrences_to_known_records(workspace):
    commit(workspace, write(workspace, table_of(ROWS, buckets=workspace.buckets)))
    later = source("/data/later.jsonl")
    rows = table_of([good(1), good(9)], later, workspace.buckets)
    manifest = write(workspace, rows)
    assert counts(manifest) == {"rows": 2, "quarantined": 0, "new": 1, "duplicate": 1}
    commit(workspace, manifest)
    assert len(rows_of(workspace, "records")) == 4
    assert len(rows_of(workspace, "occurrences")) == 7


def test_no_rows_are_no_files(workspace):
    manifest = write(workspace, _PARSED.empty_table())
    assert list(manifest.files) == []


# --- files ---------------------------------------------------------------------------------------


def test_chunks_are_parsed_in_blocks(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(row.raw for row in ROWS))
    (file,) = find_files([str(path)])
    batch = pa.table({"chunk": [0]})
    (block,) = _parse_chunks(batch, [Chunk(file)], INGEST, 1)
    assert block.schema == _PARSED
    assert block["reason"].null_count == 5
    assert block["source"].to_pylist()[2] == "elsewhere"


def test_a_file_is_unread_until_it_stands_in_the_table(tmp_path):
    workspace = make_workspace(tmp_path / "w")
    files = [source("/a.jsonl"), source("/b.jsonl")]
    assert unread_files(workspace, files) == files
    row = {name: None for name in TABLES["files"].file_schema.names}
    rows = [{**row, "fingerprint": files[0].fingerprint}]
    table = pa.Table.from_pylist(rows, schema=TABLES["files"].file_schema)
    Committer(workspace, token=1, run="r", tables=["files"])
    commit(workspace, Manifest([write_file(workspace, "files", table, None)]))
    assert unread_files(workspace, files) == files[1:]


def test_waves_hold_some_bytes_and_every_file_once():
    sizes = [10, 9_000_000_000, 9_000_000_000, 20_000_000_000, 1, -1]
    files = [SourceFile(f"/{n}", "jsonl", "", size, "") for n, size in enumerate(sizes)]
    waves = list(_waves(files, 16_000_000_000))
    assert [file for wave in waves for file in wave] == files
    assert [len(wave) for wave in waves] == [2, 1, 1, 2]
    assert list(_waves([], 1)) == []
