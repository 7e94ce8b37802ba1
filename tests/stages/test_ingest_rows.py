import json
from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_pool import INGEST, commit, make_workspace, rows_of, source

from mixup.commits import Committer, write_file
from mixup.config import IngestConfig
from mixup.records import TABLES, bucket_of, uid_of
from mixup.stages import parsed as parsing
from mixup.stages import pieces as shuffling
from mixup.stages import writing
from mixup.stages.ingest import stage_chunks, write_pieces
from mixup.stages.manifests import Manifest
from mixup.stages.parsed import PARSED, parsed_blocks, parsed_fields, parsed_table
from mixup.stages.pieces import PieceWriter
from mixup.stages.recorded_files import unread_files
from mixup.stages.sources import Chunk, SourceFile, chunks_of, find_files
from mixup.stages.streams import RawRow
from mixup.stages.waves import Wave, waves, writing_tasks
from mixup.stages.writing import uid_range
from mixup.tables import read_files, snapshot
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
    assert found["turns"] == (("user", "What is 2+2?"), ("assistant", "4"))
    assert found["uid"] == uid_of(parse_row(json.loads(row.raw)).turns)
    assert found["partition"] == bucket_of(found["uid"], 16)
    assert (found["file"], found["path"], found["offset"]) == (FILE.fingerprint, FILE.path, 7)
    assert (found["task"], found["language"]) == ("qa", "en")
    assert json.loads(found["extra"]) == {"rating": 8}
    assert found["tokens"] > 0
    assert "reason" not in found
    (row,) = parsed_table([found]).to_pylist()
    assert {name: row[name] for name in found if name != "turns"} == {
        name: value for name, value in found.items() if name != "turns"
    }


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
    assert parsed(row)["turns"][0].content == "q"


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
    assert 0 <= found["partition"] < 8
    assert "uid" not in found
    (row,) = parsed_table([found]).to_pylist()
    assert {name: row[name] for name in found if name != "turns"} == {
        name: value for name, value in found.items() if name != "turns"
    }


def test_long_bytes_and_details_are_cut():
    found = parsed(RawRow(0, b"x" * 100_000, reason="row_too_long", detail="y" * 10_000))
    assert len(found["raw"]) == 4096
    assert len(found["detail"]) == 500


def test_a_block_of_rows_is_what_arrow_makes_of_them():
    """Turns are built flat; bad rows among them have none."""
    rows = [
        *(good(0), RawRow(5, b"{broken"), RawRow(6, b"[]"), good(1)),
        raw(messages=[{"role": r, "content": c} for r, c in zip("ua" * 2, "wxyz", strict=True)]),
        raw(messages=[{"role": "user", "content": "w"}, {"role": "gpt", "content": "é"}] * 3),
    ]
    block = [parsed(row) for row in rows]
    plain = [
        {**found, "turns": found.get("turns") and [turn._asdict() for turn in found["turns"]]}
        for found in block
    ]
    assert parsed_table(block).equals(pa.Table.from_pylist(plain, schema=PARSED))
    assert parsed_table([]).equals(PARSED.empty_table())


@pytest.mark.parametrize("value", [{"a": {(1, 2): 3}}, {"a": {b"x": 3}}])
def test_a_value_that_json_cannot_hold_is_kept_as_text(value):
    assert parsed(RawRow(5, value=value))["raw"] == repr(value).encode()


def test_a_value_nested_beyond_json_is_kept_as_text():
    value: list = []
    for _ in range(100_000):
        value = [value]
    assert parsed(RawRow(5, value={"a": value}))["reason"] == "unknown_schema"


# --- from files to tables ------------------------------------------------------------------------


ROWS = [
    good(0),
    good(1),
    good(0, source="elsewhere"),
    good(2),
    RawRow(990, b"not json"),
    good(1, rating=3),
    RawRow(991, b"{}"),
]
TABLES_WRITTEN = ("records", "occurrences", "quarantine")


@pytest.fixture
def workspace(tmp_path):
    made = make_workspace(tmp_path / "w", buckets=3)
    Committer(made, token=1, run="r", tables=TABLES_WRITTEN)
    return made


def file_of(folder, rows: list[RawRow], name: str = "pool.jsonl") -> SourceFile:
    path = folder / name
    path.write_bytes(b"\n".join(row.raw for row in rows))
    (file,) = find_files([str(path)])
    return file


def wave_of(workspace, files: list[SourceFile], *, chunk_bytes=10**9, partitions=6) -> Wave:
    known = {name: snapshot(workspace, name) for name in TABLES_WRITTEN}
    chunks = tuple(chunk for file in files for chunk in chunks_of(file, chunk_bytes))
    filesystem, root = workspace.filesystem()
    filesystem.create_dir(f"{root}/staging/w")
    return Wave(workspace, INGEST, "staging/w", chunks, partitions, known)


def write(workspace, files: list[SourceFile], **given) -> Manifest:
    """What the tasks of a wave do, one after the other."""
    wave = wave_of(workspace, files, **given)
    staged = [stage_chunks(wave, place, place + 1) for place in range(len(wave.chunks))]
    pieces = [piece for done in reversed(staged) for piece in done.pieces]  # they end in any order
    written = [write_pieces(wave, task) for task in writing_tasks(pieces)]
    counts: Counter[str] = Counter()
    for done in [*staged, *written]:
        counts.update(done.counts)
    return Manifest([file for done in written for file in done.files], counts=counts)


def counts(manifest: Manifest) -> dict[str, int]:
    return {name: n for name, n in manifest.counts.items() if ":" not in name}


def test_equal_content_is_one_record_of_several_occurrences(workspace, tmp_path):
    file = file_of(tmp_path, ROWS)
    manifest = write(workspace, [file])
    assert counts(manifest) == {"rows": 7, "quarantined": 2, "new": 3, "duplicate": 2}
    assert manifest.counts[f"rows:{file.fingerprint}"] == 7
    assert manifest.counts[f"quarantined:{file.fingerprint}"] == 2
    commit(workspace, manifest)
    records, occurrences = rows_of(workspace, "records"), rows_of(workspace, "occurrences")
    assert len({row["uid"] for row in records}) == len(records) == 3
    assert len(occurrences) == 5
    assert {row["uid"] for row in occurrences} == {row["uid"] for row in records}
    places = [sum(len(row.raw) + 1 for row in ROWS[:place]) for place in range(7)]
    assert sorted(row["offset"] for row in occurrences) == [places[n] for n in (0, 1, 2, 3, 5)]
    quarantine = rows_of(workspace, "quarantine")
    assert sorted((row["offset"], row["reason"]) for row in quarantine) == [
        (places[4], "not_json"),
        (places[6], "unknown_schema"),
    ]
    assert all(row["seen_at"] is not None for row in quarantine)


@pytest.mark.parametrize("partitions", [3, 12, 48])
@pytest.mark.parametrize("held_bytes", [1, 3_000, 10**9])
def test_however_it_is_cut_up_the_tables_are_the_same(
    workspace, tmp_path, monkeypatch, partitions, held_bytes
):
    """The first of equal rows, by path and place, is the record; its language tells which."""
    for module in (shuffling, writing):
        monkeypatch.setattr(module, "_FILE_BYTES", held_bytes)
    monkeypatch.setattr(parsing, "_BLOCK_BYTES", held_bytes)
    first = file_of(tmp_path, [good(n % 20, lang=f"a{n}") for n in range(60)], "a.jsonl")
    second = file_of(tmp_path, [good(n % 30, lang=f"b{n}") for n in range(60)], "b.jsonl")
    manifest = write(workspace, [first, second], chunk_bytes=500, partitions=partitions)
    assert counts(manifest) == {"rows": 120, "quarantined": 0, "new": 30, "duplicate": 90}
    commit(workspace, manifest)
    records = rows_of(workspace, "records")
    expected = {f"a{n}" for n in range(20)} | {f"b{n}" for n in range(20, 30)}
    assert {row["language"] for row in records} == expected
    assert len(records) == 30
    assert len(rows_of(workspace, "occurrences")) == 120
    now = snapshot(workspace, "records")
    for bucket in now.buckets:
        uids = read_files(workspace, "records", now.in_bucket(bucket), ["uid"])["uid"].to_pylist()
        assert {bucket_of(uid, workspace.buckets) for uid in uids} == {bucket}


@given(st.integers(1, 300), st.integers(1, 40), st.binary(min_size=16, max_size=16))
def test_a_partition_is_a_range_of_keys_within_one_bucket(buckets, factor, raw_key):
    key, partitions = raw_key.hex(), buckets * factor
    partition = bucket_of(key, partitions)
    low, high = uid_range(partition, partitions)
    assert low <= key < high
    assert partition * buckets // partitions == bucket_of(key, buckets)


def test_writing_again_after_a_crash_writes_nothing_twice(workspace, tmp_path):
    file = file_of(tmp_path, ROWS)
    commit(workspace, write(workspace, [file]))
    again = write(workspace, [file])
    assert list(again.files) == []
    assert counts(again) == {"rows": 7, "quarantined": 2, "new": 0, "duplicate": 5}


@pytest.mark.parametrize("committed", TABLES_WRITTEN)
def test_a_crash_between_the_tables_commits_is_made_good(workspace, tmp_path, committed):
    file = file_of(tmp_path, ROWS)
    first = write(workspace, [file])
    part = [written for written in first.files if written.table == committed]
    commit(workspace, Manifest(part))
    commit(workspace, write(workspace, [file]))
    for name, expected in (("records", 3), ("occurrences", 5), ("quarantine", 2)):
        keys = [tuple(row[key] for key in TABLES[name].key) for row in rows_of(workspace, name)]
        assert len(keys) == len(set(keys)) == expected, name


def test_a_later_file_adds_its_occurrences_to_known_records(workspace, tmp_path):
    commit(workspace, write(workspace, [file_of(tmp_path, ROWS)]))
    manifest = write(workspace, [file_of(tmp_path, [good(1), good(9)], "later.jsonl")])
    assert counts(manifest) == {"rows": 2, "quarantined": 0, "new": 1, "duplicate": 1}
    commit(workspace, manifest)
    assert len(rows_of(workspace, "records")) == 4
    assert len(rows_of(workspace, "occurrences")) == 7


def test_no_rows_are_no_files(workspace, tmp_path):
    assert list(write(workspace, [file_of(tmp_path, [])]).files) == []


def test_a_piece_gives_its_rows_in_order_and_columns_alone(workspace):
    filesystem, root = workspace.filesystem()
    filesystem.create_dir(f"{root}/staging/w")
    writer = PieceWriter(workspace, "staging/w", "0")
    block = parsed_table([parsed(good(n), buckets=4) for n in range(50)])
    writer.add(block)
    assert writer.pieces == []
    writer.flush()
    assert [piece.partition for piece in writer.pieces] == [0, 1, 2, 3]
    for piece in writer.pieces:
        own = block.filter(pc.equal(block["partition"], piece.partition))
        assert piece.read(workspace).equals(own)
        assert piece.read(workspace, ["offset", "uid"]).equals(own.select(["offset", "uid"]))


# --- files ---------------------------------------------------------------------------------------


def test_blocks_are_bounded_by_rows_and_by_bytes(tmp_path, monkeypatch):
    file = file_of(tmp_path, ROWS)
    (block,) = parsed_blocks(Chunk(file), INGEST, 1)
    assert block.schema == PARSED
    assert block["reason"].null_count == 5
    assert block["source"].to_pylist()[2] == "elsewhere"
    monkeypatch.setattr(parsing, "_BLOCK_ROWS", 3)
    assert [rows.num_rows for rows in parsed_blocks(Chunk(file), INGEST, 1)] == [3, 3, 1]
    monkeypatch.setattr(parsing, "_BLOCK_BYTES", 1)
    assert [rows.num_rows for rows in parsed_blocks(Chunk(file), INGEST, 1)] == [1] * 7


# --- files ---------------------------------------------------------------------------------------


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


def test_waves_hold_some_bytes_and_every_chunk_once():
    sizes = [10, 9, 9, 20, 1, 0]
    chunks = [Chunk(FILE, place, place + 1, size) for place, size in enumerate(sizes)]
    found = list(waves(chunks, 20))
    assert [chunk for wave in found for chunk in wave] == chunks
    assert [len(wave) for wave in found] == [2, 1, 1, 2]
    assert list(waves([], 1)) == []
