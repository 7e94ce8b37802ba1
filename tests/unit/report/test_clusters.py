"""Which clusters a report shows, how much of them, and as what data."""

import json
from dataclasses import replace

import pytest
from sample_digest import HOSTILE, example, full_digest

from mixup.records import Turn
from mixup.report.clusters import (
    best_reward,
    cut_example,
    draw,
    script_json,
    shown_clusters,
    stratum,
    verdict_of,
)


def test_rare_strata_get_their_turn():
    many = [replace(example(at), cluster=f"r{at}") for at in range(100)]
    few = [replace(example(at), cluster=f"a{at}") for at in range(2)]
    found = [shown.cluster for shown in draw({"rejected:short": many, "released": few}, 6)]
    assert found == ["a0", "r0", "a1", "r1", "r2", "r3"]


def test_strata():
    assert stratum("rejected", [None, "cut_off", "low_quality"]) == "rejected:cut_off"
    assert stratum("accepted", ["cut_off"]) == "accepted"
    assert stratum("not_distilled", []) == "not_distilled"


def test_verdict_of_an_old_digest_comes_from_the_samples():
    accepted = example(0)
    rejected = replace(accepted, samples=accepted.samples[1:])
    assert [verdict_of(one) for one in (accepted, rejected, replace(accepted, samples=()))] == [
        "accepted",
        "rejected",
        "not_distilled",
    ]
    assert verdict_of(replace(accepted, verdict="released")) == "released"


def test_the_reward_is_that_of_the_best_accepted_sample():
    first, second = example(0).samples
    better = replace(second, combined=0.99)
    assert best_reward(replace(example(0), samples=(first, better))) == first.combined
    assert best_reward(replace(example(0), samples=(better,))) == 0.99
    assert best_reward(replace(example(0), samples=(replace(second, combined=None),))) is None


def test_a_cut_is_counted_and_counts_on():
    sample = replace(
        example(0).samples[0],
        text="t" * 12,
        thought="h" * 10,
        turns=(Turn("user", "u" * 11), Turn("assistant", "a" * 3)),
    )
    whole = replace(example(0), inputs=("i" * 30, "j" * 10), samples=(sample,))
    once = cut_example(whole, 10)
    assert [len(text) for text in once.inputs] == [10, 10]
    assert once.cut == {"input:0": 20, "text:0": 2, "turn:0:0": 1}
    again = cut_example(once, 4)
    assert again.cut["input:0"] == 26
    assert again.cut["thought:0"] == 6
    assert cut_example(once, 10) == once


@pytest.mark.parametrize(
    "text",
    [*HOSTILE, "</SCRIPT>", "<!--", "\u2028 \u2029", "\ud800 alone", "plain", '"\\', "日本 é"],
)
def test_script_json_is_inert_and_exact(text):
    written = script_json({"x": text})
    assert json.loads(written) == {"x": text}
    assert not set(written) & set("<>&\u2028\u2029")
    written.encode("utf-8")


def test_what_is_shown_fits_and_is_counted():
    digest = full_digest()
    everything = shown_clusters(digest)
    assert (len(everything.examples), everything.total) == (20, 895)
    assert everything.verdicts["rejected"] == (0, 283)
    assert everything.verdicts["accepted"] == (20, 0)
    assert everything.reasons == {"no_answer_block": 10, "reward_below_threshold": 10}
    one = len(script_json(json.loads(everything.data)["clusters"][0]).encode())
    few = shown_clusters(digest, data_bytes=5 * one + one // 2)
    assert 3 <= len(few.examples) <= 7
    assert len(json.loads(few.data)["clusters"]) == len(few.examples)


def test_shown_text_is_made_visible():
    data = shown_clusters(full_digest()).data
    assert "\u202e" not in data
    assert "[U+202E]" in data
