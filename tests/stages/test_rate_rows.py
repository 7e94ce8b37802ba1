import json
from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_pool import Row, commit, make_workspace, rows_of

from mixup.commits import Committer, write_by_bucket, write_file
from mixup.rater_config import ColumnRater, ReferenceRater
from mixup.records import TABLES
from mixup.stages.manifests import Manifest
from mixup.stages.rate import (
    BAD_RATING,
    UNRATED,
    _rate_bucket,
    observed_rating,
    rater_revision,
)
from mixup.tables import snapshot

FILES = ["f", "g"]
LABELS = {"bad": 0, "fair": 2, "good": 5, "true": 4, "false": 1, "3": 3}


def observed(value: object, rater: ColumnRater | ReferenceRater | None = None):
    extra = json.dumps({"rating": value, "other": 1})
    return observed_rating(extra, rater or ColumnRater())


@pytest.mark.parametrize(
    ("value", "overall"),
    [(1, 1.0), (10, 10.0), (5.5, 5.5), ("7", 7.0), (" 8.5 ", 8.5), ("1e1", 10.0)],
)
def test_a_number_on_the_scale_is_itself(value, overall):
    assert observed(value) == (overall, None)


@pytest.mark.parametrize(
    ("scale", "value", "overall"),
    [((0, 1), 0, 1.0), ((0, 1), 1, 10.0), ((0, 1), 0.5, 5.5), ((1, 5), 2, 3.25), ((-1, 1), 0, 5.5)],
)
def test_another_scale_is_mapped_linearly(scale, value, overall):
    assert observed(value, ColumnRater(scale=scale)) == (overall, None)


@given(st.floats(1, 5), st.floats(1, 5))
def test_the_mapping_keeps_the_order_and_the_range(first, second):
    rater = ColumnRater(scale=(1, 5))
    low, high = (observed(value, rater)[0] for value in sorted((first, second)))
    assert low is not None
    assert high is not None
    assert 1.0 <= low <= high <= 10.0


@pytest.mark.parametrize(
    "value", [0, 11, -1, 10.01, True, False, "good", "", "7/10", "nan", "inf", "-inf", 10**30]
)
def test_what_is_not_on_the_scale_is_bad(value):
    assert observed(value) == (None, BAD_RATING)


def test_no_value_is_unrated():
    assert observed(None) == (None, UNRATED)
    assert observed_rating("{}", ColumnRater()) == (None, UNRATED)
    assert observed_rating('{"rating": 5}', ColumnRater(field="stars")) == (None, UNRATED)


@pytest.mark.parametrize(
    ("label", "overall"),
    [("bad", 1.0), ("fair", 6.0), ("good", 9.0), (True, 8.0), (False, 5.0), (3, 7.0), ("3", 7.0)],
)
def test_a_label_stands_for_the_lowest_rating_of_its_class(label, overall):
    assert observed(label, ColumnRater(scale=None, classes=LABELS)) == (overall, None)


@pytest.mark.parametrize("label", ["Good", "unknown", 4, 3.5, "", "True"])
def test_an_unknown_label_is_bad(label):
    assert observed(label, ColumnRater(classes=LABELS)) == (None, BAD_RATING)


def test_the_revision_is_of_what_is_read_and_how():
    assert rater_revision(ColumnRater()) == rater_revision(ReferenceRater(library=["a"]))
    assert rater_revision(ColumnRater()) != rater_revision(ColumnRater(field="stars"))
    assert rater_revision(ColumnRater()) != rater_revision(ColumnRater(scale=(0, 1)))
    assert rater_revision(ColumnRater()) != rater_revision(ColumnRater(classes=LABELS))


# --- buckets -------------------------------------------------------------------------------------

RATER: ColumnRater | ReferenceRater = ReferenceRater()


@pytest.fixture
def workspace(tmp_path):
    made = make_workspace(tmp_path / "w")
    Committer(made, token=1, run="r", tables=["files", "occurrences", "ratings"])
    columns = {"fingerprint": FILES, "path": FILES, "size": [1, 1], "modified": ["", ""]}
    now = pa.array([datetime.now(UTC)] * 2, pa.timestamp("us", tz="UTC"))
    read = pa.table({**columns, "ingested_at": now, "rows": [1, 1], "quarantined": [0, 0]})
    commit(made, Manifest([write_file(made, "files", read, None)]))
    return made


def occur(workspace, *found: tuple[str, object], file: str = "f") -> None:
    """Add occurrences of rows by name, each with the value of its rating field."""
    before = len(rows_of(workspace, "occurrences"))
    rows = [
        {
            "file": file,
            "offset": before + place,
            "uid": Row(name, 0, 0).uid,
            "source": "s",
            "licence": "MIT",
            "extra": json.dumps({} if value is None else {"rating": value}),
        }
        for place, (name, value) in enumerate(found)
    ]
    table = pa.Table.from_pylist(rows, schema=TABLES["occurrences"].file_schema)
    commit(workspace, Manifest(write_by_bucket(workspace, "occurrences", table)))


def rate(
    workspace, rater: ColumnRater | ReferenceRater = RATER, pool: Sequence[str] = ("f",)
) -> dict[str, int]:
    tables = {name: snapshot(workspace, name) for name in ("files", "occurrences", "ratings")}
    manifest = _rate_bucket(workspace, tables, 0, pool, rater)
    commit(workspace, manifest)
    return {name: count for name, count in manifest.counts.items() if count}


def ratings(workspace, rater: ColumnRater | ReferenceRater = RATER) -> dict[str, tuple]:
    names = {Row(name, 0, 0).uid: name for name in "abcdef"}
    found = [row for row in rows_of(workspace, "ratings") if row["rater"] == rater_revision(rater)]
    outcomes = {names[row["uid"]]: (row["overall"], row["rating"], row["reason"]) for row in found}
    assert len(outcomes) == len(found)
    return outcomes


def test_every_record_gets_one_outcome(workspace):
    occur(workspace, ("a", 8), ("b", None), ("c", 99), ("a", None), ("d", "9"))
    assert rate(workspace) == {"rows": 4, "rated": 2, UNRATED: 1, BAD_RATING: 1}
    assert ratings(workspace) == {
        "a": (8.0, 4, None),
        "b": (None, None, UNRATED),
        "c": (None, None, BAD_RATING),
        "d": (9.0, 5, None),
    }
    sources = {row["source"] for row in rows_of(workspace, "ratings")}
    assert sources == {"column", None}


def test_the_last_rating_of_a_record_counts(workspace):
    occur(workspace, ("a", 3), ("a", 9), ("a", None), ("b", 50), ("b", 6), ("b", 70))
    rate(workspace)
    assert ratings(workspace) == {"a": (9.0, 5, None), "b": (6.0, 2, None)}


def test_a_corrected_rating_replaces_the_first(workspace):
    occur(workspace, ("a", 3), ("b", 5))
    rate(workspace)
    occur(workspace, ("a", 9), file="g")
    assert rate(workspace, pool=("f", "g")) == {"rows": 1, "rated": 1}
    assert ratings(workspace) == {"a": (9.0, 5, None), "b": (5.0, 1, None)}


def test_a_file_that_leaves_the_pool_takes_its_ratings_along(workspace):
    occur(workspace, ("a", None), ("b", 5))
    occur(workspace, ("a", 9), file="g")
    rate(workspace, pool=("f", "g"))
    assert ratings(workspace)["a"] == (9.0, 5, None)
    assert rate(workspace) == {"rows": 1, UNRATED: 1}
    assert ratings(workspace)["a"] == (None, None, UNRATED)


def test_a_second_night_writes_nothing_for_what_is_covered(workspace):
    occur(workspace, ("a", 8), ("b", None))
    rate(workspace)
    before = snapshot(workspace, "ratings").paths
    occur(workspace, ("a", 8), ("b", None))
    assert rate(workspace) == {}
    assert snapshot(workspace, "ratings").paths == before
    assert ratings(workspace)["a"] == (8.0, 4, None)


def test_a_rating_that_comes_later_replaces_the_outcome(workspace):
    occur(workspace, ("a", None), ("b", 99), ("c", 5), ("d", None))
    rate(workspace)
    occur(workspace, ("a", 7), ("b", 10), ("e", 4))
    assert rate(workspace) == {"rows": 3, "rated": 3}
    assert ratings(workspace) == {
        "a": (7.0, 3, None),
        "b": (10.0, 5, None),
        "c": (5.0, 1, None),
        "d": (None, None, UNRATED),
        "e": (4.0, 0, None),
    }


def test_another_rater_adds_outcomes_of_its_own_and_leaves_the_others(workspace):
    other = ColumnRater(scale=(0, 100))
    occur(workspace, ("a", 8), ("b", None))
    rate(workspace)
    rate(workspace, other)
    assert ratings(workspace)["a"] == (8.0, 4, None)
    overall, rating, reason = ratings(workspace, other)["a"]
    assert (overall, rating, reason) == (pytest.approx(1.72), 0, None)
    occur(workspace, ("b", 10))
    rate(workspace)
    assert ratings(workspace)["b"] == (10.0, 5, None)
    assert ratings(workspace, other)["b"] == (None, None, UNRATED)


def test_an_empty_bucket_writes_nothing(workspace):
    assert rate(workspace) == {}
