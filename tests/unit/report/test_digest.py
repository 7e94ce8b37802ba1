"""The digest as plain data."""

import dataclasses
import json

import pydantic
import pytest
from sample_digest import HOSTILE, empty_digest, full_digest

from mixup.errors import ShapeError
from mixup.report.charts import scores_words
from mixup.report.digest import Digest, StageRow, from_json, to_json


@pytest.mark.parametrize("make", [full_digest, empty_digest])
def test_json_round_trip_is_exact(make):
    digest = make()
    text = to_json(digest)
    text.encode("ascii")
    assert from_json(text) == digest
    assert to_json(from_json(text)) == text


def test_json_is_plain_data():
    plain = json.loads(to_json(full_digest()))
    assert plain["cluster_sizes"]["2"] == 410
    assert plain["examples"][0]["samples"][0]["turns"][0][0] == "user"
    assert plain["notes"][1] == HOSTILE[3]
    assert set(plain) == {field.name for field in dataclasses.fields(Digest)}


def test_nan_is_refused():
    bad = dataclasses.replace(empty_digest(), stages=(StageRow("rate", 1, 1, 0, float("nan")),))
    with pytest.raises(ValueError, match="JSON"):
        to_json(bad)


@pytest.mark.parametrize(
    "change",
    [
        {"ratings": (0,) * 5},
        {"quality_pool": (0,) * 19},
        {"quality_release": ()},
        {"long_tail_pool": (1,)},
        {"cohesion": (0,) * 21},
        {"rewards": {"format": (1,)}},
    ],
)
def test_histograms_of_another_size_are_refused(change):
    with pytest.raises(ShapeError, match="bins"):
        dataclasses.replace(empty_digest(), **change)


def test_what_is_no_digest_is_refused():
    with pytest.raises(pydantic.ValidationError):
        from_json('{"release_name": "x"}')


def test_digests_of_earlier_releases_still_load():
    plain = json.loads(to_json(full_digest()))
    for name in ("long_tail_pool", "long_tail_release", "clusters", "timeline", "engine"):
        del plain[name]
    del plain["contamination"], plain["contamination_counts"]
    del plain["scores"], plain["curation"]
    for row in plain["stages"]:
        for name in ("unit", "tokens", "parts", "extra"):
            del row[name]
    for example in plain["examples"]:
        del example["verdict"], example["cut"]
    found = from_json(json.dumps(plain))
    assert found.engine is None
    assert found.curation is None
    assert not found.timeline.spans
    assert found.stages[0].unit == "rows"
    assert found.examples[0].cluster == full_digest().examples[0].cluster


def test_digests_that_do_not_tell_the_raters_errors_still_load():
    plain = json.loads(to_json(full_digest()))
    del plain["scores"]["rater"], plain["scores"]["rater_detail"], plain["noise"]["decay"]
    found = from_json(json.dumps(plain))
    assert found.scores is not None
    assert found.scores.rater_detail == ""
    assert "with a probability of 0.85. " in scores_words(found.scores)
