import functools
import gzip
import http.server
import json
import os
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from mixup.errors import ConfigError, RecordError
from mixup.records import content_key
from mixup.stages import arrays
from mixup.stages.rows import WHOLE_FILE, read_rows
from mixup.stages.sources import BUNDLED_SAMPLE, Chunk, SourceFile, chunks_of, find_files
from mixup.stages.streams import RawRow
from mixup.text.formats import decode_line

LARGE = 1_000_000
ROWS = [{"instruction": f"question {i}", "output": "é" * (i % 7) + str(i)} for i in range(300)]
LINES = [json.dumps(row, ensure_ascii=False).encode() for row in ROWS]


def read(path: object, max_row_bytes: int = LARGE, chunk_bytes: int = LARGE) -> list[RawRow]:
    (file,) = find_files([str(path)])
    return [
        row
        for chunk in chunks_of(file, chunk_bytes)
        for row in read_rows(chunk, max_row_bytes=max_row_bytes)
    ]


def values(rows: list[RawRow]) -> list[Any]:
    return [json.loads(row.raw) if row.value is None else row.value for row in rows]


@functools.cache
def noise(count: int) -> list[bytes]:
    """Lines that hardly compress."""
    return [json.dumps({"n": i, "text": content_key(i)}).encode() for i in range(count)]


# --- formats -------------------------------------------------------------------------------------


def write_jsonl(path: Path) -> None:
    path.write_bytes(b"\n".join(LINES) + b"\n")


def write_array(path: Path) -> None:
    path.write_bytes(json.dumps(ROWS, indent=2, ensure_ascii=False).encode())


def write_lines_in_json(path: Path) -> None:
    write_jsonl(path)


def write_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=37)


def write_arrow(path: Path) -> None:
    write_stream(path, pa.Table.from_pylist(ROWS))


def write_stream(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=41)


def packed(write, pack):
    def write_packed(path: Path) -> None:
        plain = path.with_suffix("")
        write(plain)
        path.write_bytes(pack(plain.read_bytes()))
        plain.unlink()

    return write_packed


zstd = zstandard.ZstdCompressor(write_checksum=True).compress

WRITERS = {
    "a.jsonl": write_jsonl,
    "a.ndjson": write_jsonl,
    "a.JSONL": write_jsonl,
    "a.json": write_array,
    "b.json": write_lines_in_json,
    "a.parquet": write_parquet,
    "a.arrow": write_arrow,
    "a.jsonl.gz": packed(write_jsonl, gzip.compress),
    "a.jsonl.zst": packed(write_jsonl, zstd),
    "a.jsonl.zstd": packed(write_jsonl, zstd),
    "a.json.gz": packed(write_array, gzip.compress),
    "a.json.zst": packed(write_array, zstd),
}


@pytest.mark.parametrize("name", list(WRITERS))
def test_every_format_and_compression_gives_the_same_rows(tmp_path, name):
    WRITERS[name](tmp_path / name)
    found = read(tmp_path / name)
    assert values(found) == ROWS
    assert all(row.reason is None for row in found)
    offsets = [row.offset for row in found]
    assert offsets == sorted(set(offsets))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "b.json"])
def test_an_offset_is_the_byte_where_the_row_stands(tmp_path, name):
    WRITERS[name](tmp_path / name)
    content = (tmp_path / name).read_bytes()
    for row in read(tmp_path / name):
        assert content[row.offset : row.offset + len(row.raw)] == row.raw


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_the_offset_in_arrow_formats_is_the_row(tmp_path, name):
    WRITERS[name](tmp_path / name)
    assert [row.offset for row in read(tmp_path / name)] == list(range(300))


@pytest.mark.parametrize("name", ["e.jsonl", "e.json", "e.jsonl.gz", "e.jsonl.zst", "e.json.gz"])
@pytest.mark.parametrize("content", [b"", b"\n", b" \n\r\n\t\n"])
def test_an_empty_file_has_no_rows(tmp_path, name, content):
    pack = {".gz": gzip.compress, ".zst": zstd}.get(Path(name).suffix, bytes)
    (tmp_path / name).write_bytes(pack(content) if content else b"")
    assert read(tmp_path / name) == []


@pytest.mark.parametrize("name", ["e.parquet", "e.arrow"])
def test_an_empty_file_of_a_binary_format_is_unreadable(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    (row,) = read(tmp_path / name)
    assert (row.offset, row.reason) == (WHOLE_FILE, "unreadable_file")


@pytest.mark.parametrize("name", ["b.jsonl", "b.json"])
def test_a_byte_order_mark_costs_no_row(tmp_path, name):
    body = b"[" + b",".join(LINES) + b"]" if name == "b.json" else b"\n".join(LINES)
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + body)
    found = read(tmp_path / name)
    assert len(found) == 300
    assert all(row.reason is None for row in found)
    assert json.loads(found[0].raw.decode("utf-8-sig")) == ROWS[0]
    assert found[1].offset == 3 + len(LINES[0]) + 1 + (name == "b.json")


def test_white_space_before_an_array_is_read_over(tmp_path):
    (tmp_path / "w.json").write_bytes(b" \n" * 500 + b"[" + LINES[0] + b"]")
    assert values(read(tmp_path / "w.json")) == ROWS[:1]


# --- lines, whole and in parts -------------------------------------------------------------------

line = st.one_of(
    st.binary(max_size=12).map(lambda raw: raw.replace(b"\n", b"").replace(b"\r", b"")),
    st.sampled_from([b"", b" ", b"x" * 40, b"\xef\xbb\xbf{}", "é€".encode()]),
)
ending = st.sampled_from([b"\n", b"\r\n", b"\n\n"])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(line, ending), max_size=12), line, st.integers(1, 30))
def test_parts_give_exactly_the_rows_of_the_whole(tmp_path_factory, lines, last, max_row_bytes):
    content = b"".join(text + end for text, end in lines) + last
    path = tmp_path_factory.getbasetemp() / "parts.jsonl"
    path.write_bytes(content)
    whole = read(path, max_row_bytes, chunk_bytes=10_000)
    for chunk_bytes in range(1, len(content) + 2):
        assert read(path, max_row_bytes, chunk_bytes) == whole
    for row in whole:
        assert content[row.offset : row.offset + len(row.raw)] == row.raw
    kept = [row.raw for row in whole if row.reason is None]
    expected = [part + b"\n" for part in content.split(b"\n")]
    expected[-1] = expected[-1].removesuffix(b"\n")
    short = [part for part in expected if len(part.removesuffix(b"\n")) <= max_row_bytes]
    assert kept == [part for part in short if part.strip()]


def test_an_over_long_line_is_skipped_and_its_length_said(tmp_path):
    path = tmp_path / "long.jsonl"
    path.write_bytes(b'{"a":1}\n' + b"x" * 3_000_000 + b'\n{"b":2}\n')
    first, long, last = read(path, max_row_bytes=1000)
    assert (first.reason, last.reason) == (None, None)
    assert (long.offset, long.reason, long.detail) == (8, "row_too_long", "3000001 bytes")
    assert len(long.raw) <= 4096
    assert last.raw == b'{"b":2}\n'


def test_plain_lines_and_parquet_are_split(tmp_path):
    for name, write in WRITERS.items():
        write(tmp_path / name)
        (file,) = find_files([str(tmp_path / name)])
        is_split = name in ("a.jsonl", "a.ndjson", "a.JSONL", "a.parquet")
        parts = chunks_of(file, 1000)
        assert (len(parts) > 1) == is_split
        assert parts[0].start == 0
        assert [part.start for part in parts[1:]] == [part.end for part in parts[:-1]]
        assert parts[-1].end in (None, file.size)
        assert sum(part.size for part in parts) >= file.size


@pytest.mark.parametrize("group_rows", [1, 37, 300])
@pytest.mark.parametrize("chunk_bytes", [200, 3_000, 20_000, LARGE])
def test_parts_of_a_parquet_file_give_exactly_its_rows(tmp_path, group_rows, chunk_bytes):
    """A row group larger than a part is divided too: a file may have one for all of its rows."""
    path = tmp_path / "p.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=group_rows)
    found = read(path, chunk_bytes=chunk_bytes)
    assert values(found) == ROWS
    assert [row.offset for row in found] == list(range(300))
    (file,) = find_files([str(path)])
    if chunk_bytes == 3_000 and group_rows > 1:
        assert 5 < len(chunks_of(file, chunk_bytes)) < 40


def test_a_part_of_a_parquet_file_is_read_by_itself(tmp_path):
    write_parquet(tmp_path / "a.parquet")
    (file,) = find_files([str(tmp_path / "a.parquet")])
    part = list(read_rows(Chunk(file, 30, 80), max_row_bytes=LARGE))
    assert [row.offset for row in part] == list(range(30, 80))
    assert values(part) == ROWS[30:80]


# --- broken files --------------------------------------------------------------------------------


def broken(path: object, least: int, most: int) -> RawRow:
    """The last row of a file that keeps between least and most rows before its break."""
    *good, last = read(path)
    assert least <= len(good) <= most
    assert all(row.reason is None for row in good)
    assert [value["n"] for value in values(good)] == list(range(len(good)))
    return last


def damaged(packed: bytes) -> bytes:
    middle = len(packed) // 2
    return (
        packed[:middle]
        + bytes(byte ^ 0xFF for byte in packed[middle : middle + 64])
        + (packed[middle + 64 :])
    )


@pytest.mark.parametrize("name", ["c.jsonl.gz", "c.jsonl.zst", "c.json.gz", "c.json.zst"])
@pytest.mark.parametrize("harm", ["cut", "damaged"])
def test_a_compressed_file_that_breaks_keeps_the_rows_before(tmp_path, name, harm):
    body = noise(20_000)
    plain = b"[" + b",".join(body) + b"]" if ".json." in name else b"\n".join(body)
    pack = gzip.compress if name.endswith("gz") else zstd
    whole = pack(plain)
    (tmp_path / name).write_bytes(whole[: len(whole) // 2] if harm == "cut" else damaged(whole))
    *found, last = read(tmp_path / name)
    # A damaged stream may give nonsense for a while, which breaks an array first.
    allowed = {"unreadable_file", "broken_array"} if ".json." in name else {"unreadable_file"}
    assert last.reason in allowed
    good = sum(row.raw.strip() == line for row, line in zip(found, body, strict=False))
    assert 4_000 < good < 20_000


def test_a_zstd_stream_that_is_cut_off_is_told(tmp_path):
    whole = zstd(b"\n".join(noise(20_000)))
    for share in (0.3, 0.9, 0.999):
        (tmp_path / "c.jsonl.zst").write_bytes(whole[: int(len(whole) * share)])
        last = read(tmp_path / "c.jsonl.zst")[-1]
        assert last.reason == "unreadable_file"
        assert "ends within a frame" in last.detail


def test_several_zstd_frames_are_one_file(tmp_path):
    body = b"\n".join(LINES)
    (tmp_path / "m.jsonl.zst").write_bytes(zstd(body[:777]) + zstd(b"") + zstd(body[777:]))
    assert values(read(tmp_path / "m.jsonl.zst")) == ROWS


def test_several_gz_members_are_one_file(tmp_path):
    body = b"\n".join(LINES)
    packed = gzip.compress(body[:777]) + gzip.compress(body[777:])
    (tmp_path / "m.jsonl.gz").write_bytes(packed)
    assert values(read(tmp_path / "m.jsonl.gz")) == ROWS


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.jsonl.zst", "x.parquet", "x.arrow"])
def test_a_file_that_is_not_what_its_name_says_is_one_row(tmp_path, name):
    (tmp_path / name).write_bytes(b"this is something else entirely, though not very long")
    (row,) = read(tmp_path / name)
    assert (row.offset, row.reason) == (WHOLE_FILE, "unreadable_file")
    assert row.detail.startswith("after offset -1: ")


def with_damaged_group(path: Path, *, group: int, checked: bool = False) -> None:
    """20,000 rows in ten row groups, one of them with its text's page overwritten."""
    table = pa.table({"n": list(range(20_000)), "text": [str(i) * 9 for i in range(20_000)]})
    pq.write_table(
        table, path, row_group_size=2000, compression="zstd", write_page_checksum=checked
    )
    place = pq.ParquetFile(path).metadata.row_group(group).column(1).data_page_offset
    content = bytearray(path.read_bytes())
    content[place : place + 200] = b"\xff" * 200
    path.write_bytes(content)


@pytest.mark.parametrize("chunk_bytes", [20_000, 100_000_000])
@pytest.mark.parametrize("group", [0, 5, 9])
def test_a_damaged_row_group_costs_itself_only(tmp_path, group, chunk_bytes):
    with_damaged_group(tmp_path / "c.parquet", group=group)
    found = read(tmp_path / "c.parquet", chunk_bytes=chunk_bytes)
    bad = [row for row in found if row.reason]
    good = [row for row in found if not row.reason]
    assert {row.reason for row in bad} == {"unreadable_file"}
    first = group * 2000
    assert f"rows {first} to " in bad[0].detail
    assert f"of row group {group}: " in bad[0].detail
    # A large row group is read in parts: each has a row that says so, at a place of its own.
    assert bad[0].offset == WHOLE_FILE - first
    assert len({row.offset for row in bad}) == len(bad)
    assert max(row.offset for row in bad) < 0
    kept = [row.value["n"] for row in good]
    assert kept == [n for n in range(20_000) if not first <= n < first + 2000]
    assert [row.offset for row in good] == kept


def test_a_page_that_fails_its_checksum_is_not_believed(tmp_path):
    path = tmp_path / "c.parquet"
    table = pa.table({"n": list(range(4000)), "text": ["a" * 9] * 4000})
    pq.write_table(
        table, path, row_group_size=2000, compression="none", write_page_checksum=True,
        use_dictionary=False,
    )  # fmt: skip
    content = path.read_bytes()
    place = content.index(b"a" * 9, 20_000)  # among the values, behind the page's header
    path.write_bytes(content[:place] + b"b" + content[place + 1 :])
    *good, bad = sorted(read(path), key=lambda row: -row.offset)
    assert [row.value["n"] for row in reversed(good)] == list(range(2000, 4000))
    assert (bad.reason, bad.offset) == ("unreadable_file", WHOLE_FILE)


def test_a_file_that_is_gone_when_it_is_read_is_unreadable(tmp_path):
    write_jsonl(tmp_path / "a.jsonl")
    (file,) = find_files([str(tmp_path / "a.jsonl")])
    (tmp_path / "a.jsonl").unlink()
    (row,) = read_rows(Chunk(file), max_row_bytes=LARGE)
    assert row.reason == "unreachable_file"


def test_each_part_of_a_file_that_breaks_says_so_at_a_place_of_its_own(tmp_path):
    write_jsonl(tmp_path / "a.jsonl")
    (file,) = find_files([str(tmp_path / "a.jsonl")])
    (tmp_path / "a.jsonl").unlink()
    parts = chunks_of(file, 1000)
    offsets = [row.offset for part in parts for row in read_rows(part, max_row_bytes=LARGE)]
    assert len(set(offsets)) == len(parts) > 3
    assert max(offsets) < 0


def test_a_text_that_is_not_utf8_costs_its_row_in_parquet(tmp_path):
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 1, 2, 3)))
    text = pa.StringArray.from_buffers(3, offsets, pa.py_buffer(b"a\xffc"))
    pq.write_table(
        pa.table({"instruction": text, "output": ["x", "y", "z"]}), tmp_path / "u.parquet"
    )
    first, bad, last = read(tmp_path / "u.parquet")
    assert first.value == {"instruction": "a", "output": "x"}
    assert last.value == {"instruction": "c", "output": "z"}
    assert (bad.offset, bad.reason) == (1, "unreadable_row")


def test_times_that_python_does_not_know_cost_no_row(tmp_path):
    table = pa.table(
        {
            "instruction": ["a"],
            "nanoseconds": pa.array([1], pa.timestamp("ns")),
            "somewhere": pa.array([1], pa.timestamp("us", tz="Nowhere/City")),
            "late": pa.array([2**62], pa.timestamp("s")),
        }
    )
    pq.write_table(table.drop_columns(["late"]), tmp_path / "t.parquet")
    assert values(read(tmp_path / "t.parquet")) == [{"instruction": "a"}]
    write_stream(tmp_path / "t.arrow", table)
    assert values(read(tmp_path / "t.arrow")) == [{"instruction": "a"}]


# --- arrays --------------------------------------------------------------------------------------

scalar = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=6),
)
element = st.recursive(
    scalar,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(element, max_size=6),
    st.sampled_from([None, 1, "\t"]),
    st.booleans(),
    st.integers(1, 40),
)
def test_an_array_is_read_the_same_through_any_buffer(
    tmp_path_factory, elements, indent, ascii_only, read_bytes
):
    path = tmp_path_factory.getbasetemp() / "array.json"
    path.write_bytes(json.dumps(elements, indent=indent, ensure_ascii=ascii_only).encode())
    content = path.read_bytes()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(arrays, "_READ_BYTES", read_bytes)
        found = read(path)
    assert [json.loads(row.raw) for row in found] == elements
    for row in found:
        assert content[row.offset : row.offset + len(row.raw)] == row.raw


@pytest.mark.parametrize("read_bytes", [1, 7, 100, 100_000])
@pytest.mark.parametrize(
    "harm",
    [
        *(b"{'a': 1}", b'{"a": }', b"nonsense", b'"tab\there"', b"\xff", b"-", b'{"a" 1}'),
        *(b"{]}", b'{"a": "\\q]"}', b"[" * 3000 + b"]" * 3000),
    ],
)
def test_an_element_that_is_no_json_costs_itself(tmp_path, monkeypatch, read_bytes, harm):
    monkeypatch.setattr(arrays, "_READ_BYTES", read_bytes)
    content = b"[" + b", ".join([*LINES[:20], harm, *LINES[20:40]]) + b"]"
    (tmp_path / "a.json").write_bytes(content)
    found = read(tmp_path / "a.json")
    assert [row.reason for row in found] == [None] * len(found)
    raws = [row.raw for row in found]
    assert raws[:20] == LINES[:20]
    assert raws[-20 if harm != b"{]}" else -19 :] == LINES[20 if harm != b"{]}" else 21 : 40]
    bad = found[20]
    assert content[bad.offset :].startswith(bad.raw)
    with pytest.raises(RecordError):
        decode_line(bad.raw)


@pytest.mark.parametrize("read_bytes", [1, 100, 100_000])
@pytest.mark.parametrize("harm", [b'{"instruction": "cut', b'{"a": [1, 2'])
def test_an_element_without_an_end_costs_the_rest_of_its_array(
    tmp_path, monkeypatch, read_bytes, harm
):
    monkeypatch.setattr(arrays, "_READ_BYTES", read_bytes)
    content = b"[" + b", ".join([*LINES[:20], harm, *LINES[20:40]]) + b"]"
    (tmp_path / "a.json").write_bytes(content)
    *good, last = read(tmp_path / "a.json")
    assert values(good) == ROWS[:20]
    assert last.reason == "broken_array"
    assert content[last.offset :].startswith(harm)
    assert last.raw.startswith(harm)


def test_arrays_that_follow_one_another_are_all_read(tmp_path):
    parts = [b"[" + b",".join(LINES[n : n + 2]) + b"]" for n in (0, 2)]
    (tmp_path / "a.json").write_bytes(b"\n".join(parts) + b"\n")
    assert values(read(tmp_path / "a.json")) == ROWS[:4]


def test_text_after_an_array_is_told(tmp_path):
    (tmp_path / "a.json").write_bytes(b"[" + LINES[0] + b"]\n" + LINES[1])
    good, last = read(tmp_path / "a.json")
    assert (values([good]), last.reason) == (ROWS[:1], "broken_array")
    assert last.raw == LINES[1]


@pytest.mark.parametrize("end", [b"", b","])
def test_an_array_without_its_end_is_told(tmp_path, end):
    (tmp_path / "a.json").write_bytes(b"[" + b",".join(LINES[:5]) + end)
    *good, last = read(tmp_path / "a.json")
    assert values(good) == ROWS[:5]
    assert last.reason == "broken_array"


def test_bytes_that_are_not_utf8_cost_their_element_only(tmp_path):
    (tmp_path / "a.json").write_bytes(b'[{"a": "\xff"}, {"b": 1}]')
    bad, good = read(tmp_path / "a.json")
    assert bad.raw == b'{"a": "\xff"}'
    assert values([good]) == [{"b": 1}]


def test_a_number_of_thousands_of_digits_costs_its_element_only(tmp_path):
    (tmp_path / "a.json").write_bytes(b'[{"a": ' + b"9" * 6000 + b'}, {"b": 1}]')
    assert [row.reason for row in read(tmp_path / "a.json")] == [None, None]


@pytest.mark.parametrize("read_bytes", [64, LARGE])
def test_an_over_long_element_is_told(tmp_path, monkeypatch, read_bytes):
    monkeypatch.setattr(arrays, "_READ_BYTES", read_bytes)
    long = json.dumps({"a": "x" * 5000}).encode()
    (tmp_path / "a.json").write_bytes(b"[" + LINES[0] + b"," + long + b"," + LINES[1] + b"]")
    found = read(tmp_path / "a.json", max_row_bytes=1000)
    assert values(found[:1]) == ROWS[:1]
    assert [row.reason for row in found] == [None, "row_too_long", None]
    assert found[1].detail == f"{len(long)} bytes"
    assert found[2].raw == LINES[1]


def test_a_row_of_many_megabytes_costs_itself_and_is_not_held(tmp_path):
    long = b'{"a": "' + b"x, ]}{[" * 7_000_000 + b'"}'
    (tmp_path / "a.json").write_bytes(b"[" + LINES[0] + b"," + long + b"," + LINES[1] + b"]")
    (tmp_path / "a.jsonl").write_bytes(LINES[0] + b"\n" + long + b"\n" + LINES[1])
    table = pa.Table.from_pylist([ROWS[0], {"output": long.decode()}, ROWS[1]])
    pq.write_table(table, tmp_path / "a.parquet")
    write_stream(tmp_path / "a.arrow", table)
    for name in ("a.json", "a.jsonl", "a.parquet", "a.arrow"):
        tracemalloc.start()
        found = read(tmp_path / name, max_row_bytes=8_000_000)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert [row.reason for row in found] == [None, "row_too_long", None], name
        assert len(found[1].raw) <= 4096
        assert values([found[0], found[2]]) == ROWS[:2]
        if name != "a.arrow":  # a batch of an Arrow stream is one message, held whole
            assert most < 45_000_000, name


@pytest.mark.parametrize("depth", [10_000, 100_000])
def test_an_element_nested_too_deeply_costs_itself(tmp_path, depth):
    deep = b"[" * depth + b"]" * depth
    (tmp_path / "a.json").write_bytes(b"[" + b",".join([LINES[0], deep, LINES[1]]) + b"]")
    found = read(tmp_path / "a.json")
    assert [row.raw for row in found] == [LINES[0], deep, LINES[1]]


# --- Arrow ---------------------------------------------------------------------------------------


def test_arrow_files_are_read_as_streams_are(tmp_path):
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_file(str(tmp_path / "f.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=41)
    assert values(read(tmp_path / "f.arrow")) == ROWS


def test_an_offset_that_points_outside_costs_its_row(tmp_path):
    """Such a file must not be believed: Arrow would read another's memory, or crash."""
    write_stream(tmp_path / "o.arrow", pa.table({"instruction": ["a", "b", "c"]}))
    content = (tmp_path / "o.arrow").read_bytes()
    (good, wild) = ((2).to_bytes(4, "little") + n.to_bytes(4, "little") for n in (3, 10**9))
    assert content.count(good) == 1
    (tmp_path / "o.arrow").write_bytes(content.replace(good, wild))
    found = read(tmp_path / "o.arrow")
    assert [row.value for row in found[:2]] == [{"instruction": "a"}, {"instruction": "b"}]
    assert found[2].reason in ("unreadable_row", "unreadable_file")


def test_a_length_of_exabytes_is_not_made_room_for(tmp_path):
    """Found by the fuzzer: a damaged length in an Arrow message ended the task with MemoryError."""
    write_stream(tmp_path / "l.arrow", pa.table({"n": pa.array(range(100), pa.int64())}))
    content = (tmp_path / "l.arrow").read_bytes()
    messages = pa.ipc.MessageReader.open_stream(content)
    assert messages.read_next_message().type == "schema"
    first = messages.read_next_message()
    length = first.body.size.to_bytes(8, "little")
    assert length in content
    (tmp_path / "l.arrow").write_bytes(content.replace(length, (1 << 60).to_bytes(8, "little")))
    (row,) = read(tmp_path / "l.arrow")
    assert (row.offset, row.reason) == (WHOLE_FILE, "unreadable_file")


def test_a_file_of_times_only_keeps_its_rows(tmp_path):
    pq.write_table(pa.table({"t": pa.array([1, 2], pa.timestamp("us"))}), tmp_path / "t.parquet")
    assert values(read(tmp_path / "t.parquet")) == [{}, {}]


# --- finding -------------------------------------------------------------------------------------


def names(patterns: list[object]) -> list[str]:
    return [Path(file.path).name for file in find_files([str(pattern) for pattern in patterns])]


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("b.jsonl", "a.jsonl", "sub/c.parquet", "sub/deep/d.json.gz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    for name in ("README.md", "a.csv", "x.parquet.gz", "no_suffix", ".hidden"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def test_a_folder_gives_its_data_files_at_any_depth(folder):
    assert names([folder]) == ["a.jsonl", "b.jsonl", "c.parquet", "d.json.gz"]


def test_globs_are_expanded_in_order(folder):
    assert names([folder / "*.jsonl"]) == ["a.jsonl", "b.jsonl"]
    assert names([folder / "**/*.parquet"]) == ["c.parquet"]
    assert names([folder / "[ab].jsonl"]) == ["a.jsonl", "b.jsonl"]
    assert names([folder / "s*"]) == ["c.parquet", "d.json.gz"]


def test_a_file_whose_name_looks_like_a_glob_is_a_file(folder):
    (folder / "part[1].jsonl").write_bytes(b"")
    assert names([folder / "part[1].jsonl"]) == ["part[1].jsonl"]


def test_a_file_named_twice_is_read_once(folder):
    assert names([folder / "a.jsonl", folder, folder / "*.jsonl"])[0] == "a.jsonl"
    assert len(names([folder / "a.jsonl", folder, folder / "*.jsonl"])) == 4


def test_a_relative_path_is_that_of_the_current_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert find_files(["a.jsonl"]) == find_files([str(folder / "a.jsonl")])


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("absent.jsonl", "does not exist"),
        ("*.nothing", "names no data file"),
        ("a.csv", "is of no known type; known types: .jsonl"),
        ("x.parquet.gz", "is of no known type"),
        ("no_suffix", "is of no known type"),
        ("empty", "names no data file"),
    ],
)
def test_a_pattern_without_data_is_refused(folder, monkeypatch, pattern, said):
    (folder / "empty").mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match="ingest.paths: .*" + said):
        find_files([pattern])


def test_what_is_no_file_is_refused_by_its_path(tmp_path):
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "absent.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name, said in (
        ("gone.jsonl", "is a link to .*absent.jsonl', which does not exist"),
        ("folder.jsonl", "names no data file"),
        ("pipe.jsonl", "is no regular file but a pipe"),
    ):
        with pytest.raises(ConfigError, match=f"ingest.paths: .*{name}' {said}"):
            find_files([str(tmp_path / name)])


def test_in_a_folder_what_is_no_file_costs_nothing_else(folder, caplog):
    (folder / "gone.jsonl").symlink_to(folder / "absent.jsonl")
    (folder / "folder.jsonl").mkdir()
    (folder / "folder.jsonl" / "inside.jsonl").write_bytes(LINES[0])
    (folder / "empty.parquet").mkdir()
    os.mkfifo(folder / "pipe.jsonl")
    assert names([folder]) == [
        *("a.jsonl", "b.jsonl", "inside.jsonl", "gone.jsonl", "c.parquet", "d.json.gz"),
    ]
    assert "pipe.jsonl is no regular file" in caplog.text
    (gone,) = [file for file in find_files([str(folder)]) if file.name == "gone"]
    (row,) = read_rows(Chunk(gone), max_row_bytes=LARGE)
    assert (row.offset, row.reason) == (WHOLE_FILE, "unreachable_file")


def test_links_that_lead_in_a_circle_end(folder):
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "sub" / "self").symlink_to(folder / "sub")
    found = [Path(file.path).name for file in find_files([str(folder)])]
    assert sorted(set(found)) == sorted(found)


def test_a_name_that_is_not_utf8_can_be_stored(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.jsonl")).write_bytes(LINES[0])
    (file,) = find_files([str(tmp_path)])
    assert values(list(read_rows(Chunk(file), max_row_bytes=LARGE))) == ROWS[:1]
    assert file.shown.endswith("/caf\\udce9.jsonl")
    assert file.name == "caf\\udce9"


@pytest.mark.parametrize("pattern", ["", " ", "foo://bucket/a.jsonl", "~nobody-here/a.jsonl"])
def test_a_place_that_cannot_be_opened_is_refused(pattern):
    with pytest.raises(ConfigError, match="ingest.paths: "):
        find_files([pattern])


def test_the_bundled_sample_is_found():
    assert names([BUNDLED_SAMPLE]) == [
        "chats.json",
        "completions.jsonl",
        "notes.jsonl",
        "shared.jsonl",
    ]


def test_a_saved_dataset_gives_its_rows_once(tmp_path):
    for split, part in (("train", ROWS[:200]), ("test", ROWS[200:])):
        folder = tmp_path / split
        folder.mkdir()
        table = pa.Table.from_pylist(part)
        for name in ("data-00000-of-00001.arrow", "cache-1f2e3d.arrow"):
            write_stream(folder / name, table)
        (folder / "dataset_info.json").write_text("{}")
        (folder / "state.json").write_text('{"_data_files": []}')
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    files = find_files([str(tmp_path)])
    found = [row for file in files for row in read_rows(Chunk(file), max_row_bytes=LARGE)]
    assert values(found) == [*ROWS[200:], *ROWS[:200]]


def test_another_state_of_a_file_is_another_file(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{}\n")
    (first,) = find_files([str(path)])
    assert find_files([str(path)]) == [first]
    path.write_bytes(b"{}\n{}\n")
    (second,) = find_files([str(path)])
    assert first.path == second.path
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize(
    ("path", "name"),
    [("/a/pool.v2.jsonl.gz", "pool"), ("https://host/x/notes.jsonl?raw=true", "notes")],
)
def test_the_source_of_a_file_is_its_name(path, name):
    assert SourceFile(path, "jsonl", "", 0, "").name == name


# --- web -----------------------------------------------------------------------------------------


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server that gives whole files only, and breaks off where the name asks for it."""

    def log_message(self, format, *args):
        pass

    def copyfile(self, source, outputfile):
        if "cut" in self.path:
            outputfile.write(source.read(200_000))
            self.connection.close()
        else:
            super().copyfile(source, outputfile)


class QuietServer(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        pass


@pytest.fixture
def web(tmp_path):
    handler = functools.partial(Quiet, directory=str(tmp_path))
    server = QuietServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_files_are_read_from_the_web(tmp_path, web, name):
    WRITERS[name](tmp_path / name)
    assert values(read(f"{web}/{name}", chunk_bytes=1000)) == ROWS


def test_a_large_file_is_read_from_a_server_that_gives_no_parts(tmp_path, web):
    body = noise(100_000)
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(body))
    assert (tmp_path / "a.jsonl").stat().st_size > 5_300_000
    assert len(read(f"{web}/a.jsonl", chunk_bytes=1_000_000)) == 100_000


def test_a_connection_that_breaks_off_keeps_the_rows_before(tmp_path, web):
    (tmp_path / "cut.jsonl").write_bytes(b"\n".join(noise(20_000)))
    # How many of them come through depends on when the break is noticed.
    assert broken(f"{web}/cut.jsonl", 0, 4_000).reason == "unreadable_file"


@pytest.mark.parametrize("name", ["absent.jsonl", "a.csv"])
def test_a_url_without_data_is_refused(tmp_path, web, name):
    (tmp_path / "a.csv").write_bytes(b"")
    with pytest.raises(ConfigError, match="ingest.paths"):
        find_files([f"{web}/{name}"])


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@example.org/pool.jsonl",
        "https://example.org/pool.jsonl?X-Amz-Signature=hunter2",
        "https://example.org/pool.jsonl?a=1&access_token=hunter2",
        "s3://key:hunter2@bucket/pool.jsonl",
    ],
)
def test_a_url_with_a_credential_is_refused_unseen(url):
    with pytest.raises(ConfigError, match="through the environment") as refused:
        find_files([url])
    assert "hunter2" not in str(refused.value)
