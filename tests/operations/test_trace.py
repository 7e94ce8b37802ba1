"""Tracing in both directions, over a workspace of four buckets."""

import base64
import json

import pytest
from small_workspace import (
    BAD_LINE,
    CLUSTER,
    EARLIER,
    ESCAPE,
    GONE,
    MEMBERS,
    RELEASE,
    SAMPLE,
    TEXTS,
    UID,
    Small,
    make,
)

from mixup.errors import ConfigError, TableError
from mixup.operations.trace import trace
from mixup.operations.trace_text import trace_lines
from mixup.stages.publish import POINTER


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Small:
    return make(tmp_path_factory.mktemp("small"))


@pytest.mark.parametrize(
    ("name", "fate", "row"),
    [
        ("good", "original", UID["good"]),
        ("near", "left_out:near_duplicate", None),
        ("lone", "left_out:singleton", None),
        ("one", "merged", CLUSTER["kept"]),
        ("three", "left_out:cluster_rejected", None),
        ("new", "left_out:not_in_pool", None),
    ],
)
def test_every_record_has_its_fate(small, name, fate, row):
    found = trace(small.workspace, UID[name])
    assert found["kind"] == "record"
    assert found["fate"] == {"fate": fate, "row": row}
    assert (found["release"], found["moved_on"]) == (RELEASE, False)


def test_a_record_occurs_at_lines_and_rows(small):
    places = trace(small.workspace, UID["good"])["occurrences"]
    assert [(p["path"], p["line"], p["offset"]) for p in places] == [
        (str(small.jsonl), 1, small.offsets[0]),
        (str(small.jsonl), 3, small.offsets[2]),
    ]
    (place,) = trace(small.workspace, UID["two"])["occurrences"]
    assert (place["path"], place["row"]) == ("/pool/rows.parquet", 2)


def test_no_line_is_claimed_for_a_file_that_has_changed(tmp_path):
    small = make(tmp_path)
    small.jsonl.write_text("another\n")
    places = trace(small.workspace, UID["good"])["occurrences"]
    assert [place["offset"] for place in places] == [small.offsets[0], small.offsets[2]]
    assert not any("line" in place for place in places)


def test_a_record_shows_rating_curation_and_cluster(small):
    good, near, one = (trace(small.workspace, UID[name]) for name in ("good", "near", "one"))
    assert (good["rating"]["rating"], good["curation"]["tier"]) == (5, "high")
    assert near["curation"]["duplicate_of"] == UID["good"]
    assert one["cluster"]["cluster"] == CLUSTER["kept"]


def test_a_cluster_shows_members_and_judged_samples(small):
    found = trace(small.workspace, CLUSTER["kept"])
    assert [member["uid"] for member in found["members"]] == [UID[m] for m in MEMBERS["kept"]]
    broken, best = found["samples"]
    assert (broken["accepted"], broken["reason"]) == (False, "no_answer_block")
    assert (best["accepted"], best["reason"], best["released"]) == (True, None, True)
    assert best["combined"] == pytest.approx(0.9)
    assert found["fate"] == {"fate": "merged", "row": CLUSTER["kept"]}
    (poor,) = trace(small.workspace, CLUSTER["refused"])["samples"]
    assert (poor["accepted"], poor["reason"]) == (False, "lost_content")


def test_a_sample_leads_to_its_cluster(small):
    found = trace(small.workspace, SAMPLE["best"])
    assert (found["kind"], found["cluster"]) == ("sample", CLUSTER["kept"])
    assert [sample["sample"] for sample in found["samples"]] == [SAMPLE["best"]]


def test_a_release_row_outlives_its_cluster(small):
    found = trace(small.workspace, "f" * 32)
    assert (found["kind"], found["sample"]) == ("row", "e" * 32)
    assert [member["uid"] for member in found["members"]] == [UID["one"]]
    assert any(UID["one"] in line for line in trace_lines(found))


def test_a_record_is_followed_into_every_release(small):
    one = trace(small.workspace, UID["one"])["releases"]
    assert [(row["release"], row["row"]) for row in one] == [
        (RELEASE, CLUSTER["kept"]),
        (RELEASE, GONE),
        (EARLIER, "d" * 32),
    ]
    three = trace(small.workspace, UID["three"])
    assert three["fate"] == {"fate": "left_out:cluster_rejected", "row": None}
    assert [row["release"] for row in three["releases"]] == [EARLIER]
    assert trace(small.workspace, UID["near"])["releases"] == []


@pytest.mark.parametrize("key", [CLUSTER["kept"], SAMPLE["best"]])
def test_a_cluster_and_a_sample_are_followed_into_releases(small, key):
    made = trace(small.workspace, key)["releases"]
    assert [(row["release"], row["row"]) for row in made] == [(RELEASE, CLUSTER["kept"])]


def test_a_row_of_an_earlier_release_is_told_by_its_lineage(small):
    found = trace(small.workspace, "dddddd")
    assert (found["kind"], found["key"], found["witness"]) == ("row", "d" * 32, EARLIER)
    assert [member["uid"] for member in found["members"]] == sorted([UID["one"], UID["three"]])
    (place,) = found["members"][0]["occurrences"]
    assert (place["path"], place["offset"], place["source"]) == ("/old/pool.jsonl", 70, "s")
    assert found["row"]["messages"][0]["content"] == "Gone?"
    text = "\n".join(trace_lines(found))
    assert EARLIER in text
    assert "/old/pool.jsonl, offset 70" in text


def test_a_release_without_its_lineage_is_said(tmp_path):
    workspace = make(tmp_path).workspace
    (tmp_path / "workspace" / "releases" / EARLIER / "lineage.parquet").write_bytes(b"cut")
    with pytest.raises(TableError, match=EARLIER):
        trace(workspace, UID["one"])


@pytest.mark.parametrize(
    ("place", "name"),
    [("pool.jsonl:1", "good"), ("pool.jsonl:2", "lone"), ("pool.jsonl:3", "good")],
)
def test_a_line_leads_to_its_record(small, place, name):
    found = trace(small.workspace, f"{small.jsonl.parent}/{place}")
    assert (found["kind"], found["key"]) == ("record", UID[name])
    assert found["place"]["line"] == int(place[-1])
    assert trace(small.workspace, place)["key"] == UID[name]  # the end of the path will do


def test_a_row_of_parquet_leads_to_its_record(small):
    found = trace(small.workspace, "rows.parquet:3")
    assert (found["key"], found["place"]["row"]) == (UID["three"], 3)


def test_a_bad_line_leads_to_its_reason_and_bytes(small):
    found = trace(small.workspace, f"{small.jsonl}:4")
    (row,) = found["quarantine"]
    assert (found["kind"], row["reason"]) == ("quarantine", "not_utf8")
    assert base64.b64decode(row["raw_base64"]) == BAD_LINE
    text = "\n".join(trace_lines(found))
    assert "not utf8" in text
    assert "cut \\xff[U+001B]" in text
    json.dumps(found)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("pool.jsonl:5", "no line 5"),
        ("pool.jsonl:0", "no line 0"),
        ("rows.parquet:99", "neither table occurrences nor quarantine"),
        ("other.jsonl:1", "none of the 2 rows of table files"),
    ],
)
def test_a_place_of_nothing_says_what_was_looked_in(small, place, said):
    with pytest.raises(ConfigError, match=said):
        trace(small.workspace, place)


def test_a_line_of_a_changed_file_is_not_guessed(tmp_path):
    small = make(tmp_path)
    small.jsonl.write_text("another\n")
    with pytest.raises(ConfigError, match="has changed"):
        trace(small.workspace, f"{small.jsonl}:1")


def test_contamination_is_shown_and_clean_rows_say_nothing(small):
    lone, good, near = (trace(small.workspace, UID[name]) for name in ("lone", "good", "near"))
    assert lone["contamination"]["benchmark"] == "exam"
    assert good["contamination"]["kind"] is None
    assert near["contamination"] is None
    text = "\n".join(trace_lines(lone))
    assert "exam (exact), /exam.jsonl:0" in text
    assert not any("contaminated" in line for line in trace_lines(good))


def test_an_unknown_key_says_what_was_looked_in(small):
    with pytest.raises(ConfigError, match=r"no row of its 2 release\(s\)"):
        trace(small.workspace, "0" * 32)


@pytest.mark.parametrize("key", [*UID.values(), *CLUSTER.values(), *SAMPLE.values()])
def test_six_characters_in_any_case_are_enough(small, key):
    assert trace(small.workspace, key[:6].upper())["key"] == key


@pytest.mark.parametrize("key", ["", "abcde", "xyzxyz", "f" * 33, "0" * 32, "../../etc"])
def test_a_key_of_nothing_is_refused(small, key):
    with pytest.raises(ConfigError):
        trace(small.workspace, key)


def test_an_ambiguous_prefix_names_what_it_could_be(small, monkeypatch):
    monkeypatch.setattr("mixup.operations.keys.MIN_PREFIX", 0)
    with pytest.raises(ConfigError, match="ambiguous, 15 keys"):
        trace(small.workspace, "")


@pytest.mark.parametrize("key", [*UID.values(), *CLUSTER.values(), *SAMPLE.values()])
def test_text_is_safe_on_a_terminal(small, key):
    lines = trace_lines(trace(small.workspace, key))
    assert not any(char in "\x1b\u202e\n" for line in lines for char in line)
    assert key in lines[0]


def test_data_is_shown_with_its_control_characters_named(small):
    assert ESCAPE in TEXTS["lone"]
    text = "\n".join(trace_lines(trace(small.workspace, UID["lone"])))
    assert "[U+001B][2Jgone[U+202E]" in text


def test_without_a_release_there_are_samples_but_no_verdicts(tmp_path):
    workspace = make(tmp_path).workspace
    (tmp_path / "workspace" / POINTER).unlink()
    found = trace(workspace, CLUSTER["kept"])
    assert [sample["accepted"] for sample in found["samples"]] == [None, None]
    assert (found["fate"], found["release"]) == (None, None)
    record = trace(workspace, UID["one"])
    assert "no release" in "\n".join(trace_lines(record))
