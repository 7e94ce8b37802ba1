"""Tracing in both directions, over a workspace of four buckets."""

import pytest
from small_workspace import CLUSTER, ESCAPE, MEMBERS, RELEASE, SAMPLE, TEXTS, UID, Small, make

from mixup.errors import ConfigError
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


@pytest.mark.parametrize("key", [*UID.values(), *CLUSTER.values(), *SAMPLE.values()])
def test_six_characters_in_any_case_are_enough(small, key):
    assert trace(small.workspace, key[:6].upper())["key"] == key


@pytest.mark.parametrize("key", ["", "abcde", "xyzxyz", "f" * 33, "0" * 32, "../../etc"])
def test_a_key_of_nothing_is_refused(small, key):
    with pytest.raises(ConfigError):
        trace(small.workspace, key)


def test_an_ambiguous_prefix_names_what_it_could_be(small, monkeypatch):
    monkeypatch.setattr("mixup.operations.trace.MIN_PREFIX", 0)
    with pytest.raises(ConfigError, match="ambiguous, 14 keys"):
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
