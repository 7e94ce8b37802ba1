"""The bundled sample pool and the side file of what was planted in it."""

import json
from importlib.resources import files

import pytest

from mixup.errors import RecordError
from mixup.records import uid_of
from mixup.stages.rows import read_rows
from mixup.stages.sources import BUNDLED_SAMPLE, Chunk, find_files
from mixup.text.formats import decode_line, parse_row

SAMPLE = files("mixup") / "sample"


def pool():
    """(file, row, value, parsed, reason) of every row of the pool."""
    found = []
    for file in find_files([BUNDLED_SAMPLE]):
        for row in read_rows(Chunk(file), max_row_bytes=8_000_000):
            value = parsed = reason = None
            try:
                value = decode_line(row.raw)
                parsed = parse_row(value)
            except RecordError as error:
                reason = error.reason
            found.append((file, row, value, parsed, reason))
    return found


@pytest.fixture(scope="module")
def rows():
    return pool()


@pytest.fixture(scope="module")
def defects():
    lines = (SAMPLE / "defects.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def by_id(rows):
    """The parsed rows that have an id."""
    return {row[2]["id"]: row[3] for row in rows if row[3] is not None and "id" in row[2]}


def test_there_are_rows_enough_on_subjects_enough(rows, defects):
    assert sum(parsed is not None for *_, parsed, _ in rows) >= 600
    assert len({row["subject"] for row in defects}) >= 60


def test_exactly_the_six_planted_lines_are_broken(rows):
    broken = [(file.name, reason) for file, *_, reason in rows if reason is not None]
    assert broken == [
        ("completions", "not_json"),
        ("completions", "not_json"),
        ("completions", "not_an_object"),
        ("completions", "no_answer"),
        ("completions", "no_answer"),
        ("completions", "unknown_schema"),
    ]


def test_every_reader_finds_the_same_formats(rows):
    formats = {
        (file.path.rpartition("/")[2], tuple(sorted(value))[0] if value else "")
        for file, _, value, parsed, _ in rows
        if parsed is not None
    }
    assert {name for name, _ in formats} == {
        "chats.json",
        "completions.jsonl",
        "notes.jsonl",
        "shared.jsonl",
    }


def test_ids_are_unique(rows, defects):
    ids = [value["id"] for _, _, value, parsed, _ in rows if parsed is not None and "id" in value]
    assert len(ids) == len(set(ids)) >= 600
    planted = [row["id"] for row in defects]
    assert len(planted) == len(set(planted))


def test_every_planted_row_is_in_the_pool(by_id, defects):
    assert {row["id"] for row in defects} == set(by_id)
    assert {row["of"] for row in defects if row["of"]} <= set(by_id)


def test_exact_duplicates_are_identical_and_near_ones_are_not(by_id, defects):
    same = [row for row in defects if row["defect"] == "exact_duplicate"]
    near = [row for row in defects if row["defect"] == "near_duplicate"]
    assert same
    for row in same:
        assert uid_of(by_id[row["id"]].turns) == uid_of(by_id[row["of"]].turns)
    for row in near:
        assert uid_of(by_id[row["id"]].turns) != uid_of(by_id[row["of"]].turns)


def test_only_planted_duplicates_are_duplicates(rows, defects):
    uids = [uid_of(parsed.turns) for *_, parsed, _ in rows if parsed is not None]
    planted = sum(row["defect"] == "exact_duplicate" for row in defects)
    assert len(uids) - len(set(uids)) == planted


def test_ratings_are_marks_of_a_part(rows):
    marks = [parsed.extra.get("rating") for *_, parsed, _ in rows if parsed is not None]
    rated = [mark for mark in marks if mark is not None]
    assert 0.2 * len(marks) < len(rated) < len(marks)
    assert set(rated) <= set(range(1, 11))
    assert len(set(rated)) >= 8


def test_every_row_states_a_free_licence_and_a_source(rows):
    good = [parsed for *_, parsed, _ in rows if parsed is not None]
    assert {parsed.licence for parsed in good} == {"CC0-1.0"}
    assert all(parsed.source for parsed in good)
