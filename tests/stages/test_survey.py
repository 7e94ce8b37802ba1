"""Counts and fates of a pool made by hand: two clusters of low rows, high rows, and odd ones."""

from dataclasses import replace

import numpy as np
import pytest
from made_pool import (
    GOOD_SCORES,
    JUDGE,
    RATER,
    Row,
    Sample,
    add,
    add_samples,
    curate,
    distilled_text,
    make_workspace,
    rows_of,
    snapshots,
)

from mixup.errors import LedgerError
from mixup.ledger import check_fates
from mixup.records import uid_of
from mixup.report.digest import ClusterExample
from mixup.selection.mixing import Ranked, mix
from mixup.stages.rate import rater_revision
from mixup.stages.select import _distinct, _fates
from mixup.stages.survey import (
    EXAMPLES_OF_A_STRATUM,
    SURVEYED,
    Survey,
    SurveySettings,
    example_rank,
    survey_bucket,
    unit_bins,
)
from mixup.text.parse import parse_distilled

POOL = [
    *[Row(f"a{n}", topic=0, variant=n, overall=2) for n in range(3)],
    *[Row(f"b{n}", topic=1, variant=n, overall=3) for n in range(2)],
    *[Row(f"h{n}", topic=2, variant=n, overall=9) for n in range(4)],
    Row("h-gpl", topic=2, variant=7, overall=9, licence="GPL-3.0"),
    Row("near", topic=2, variant=0, overall=9, near=True),
    Row("alone", topic=3, variant=9, overall=1),
    Row("chat", topic=0, variant=10, overall=1, task="chat"),
    Row("blind", topic=0, variant=11, embedded=False),
    # The same content again: exact duplicates.
    Row("a0", topic=0, variant=0, overall=2, file="file-2"),
    Row("h0", topic=2, variant=0, overall=9, file="file-2"),
    Row("h0", topic=2, variant=0, overall=9, file="file-2"),
]
FILES = ("file-1", "file-2")
LICENCES = ("CC0-1.0",)


def make(path, buckets: int = 1):
    workspace = make_workspace(path, buckets)
    add(workspace, POOL)
    curate(workspace, FILES)
    return workspace


def clusters_of(workspace) -> dict[int, str]:
    """The clusters' keys by size."""
    return {len(row["members"]): row["cluster"] for row in rows_of(workspace, "clusters")}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """The cluster of three has an accepted sample, the cluster of two only rejected ones."""
    made = make(tmp_path_factory.mktemp("survey") / "w")
    found = clusters_of(made)
    add_samples(
        made,
        [
            Sample(found[3], 0, scores={**GOOD_SCORES, "quality": 0.6}),
            Sample(found[3], 1, constrained=True),
            Sample(found[2], 0, scores={**GOOD_SCORES, "quality": 0.1}),
            Sample(found[2], 1, text="no tags at all", constrained=True),
            Sample(found[2], 2, scores={**GOOD_SCORES, "coverage": None}, constrained=True),
        ],
    )
    return made


def survey(workspace, limit: int = 100, licences=LICENCES, judge=JUDGE) -> Survey:
    tables = snapshots(workspace)
    found = SurveySettings(judge, rater_revision(RATER), licences, limit)
    merged = Survey(limit)
    for bucket in sorted({bucket for name in SURVEYED for bucket in tables[name].buckets}):
        merged.merge(survey_bucket(workspace, tables, bucket, FILES, found))
    return merged


def keys_of(part: Ranked | None) -> list[str]:
    assert part is not None
    return part.keys


def test_the_counts_are_those_of_the_pool(workspace):
    counts = survey(workspace).counts
    assert (counts["occurrences"], counts["records"], counts["duplicate"]) == (17, 14, 3)
    assert counts["original_candidates"] == 4
    assert counts["clustered"] == 5
    assert counts["left_out:near_duplicate"] == 1
    assert counts["left_out:licence"] == 1
    assert counts["left_out:singleton"] == 1
    assert counts["left_out:chat"] == 1
    assert counts["left_out:no_embedding"] == 1
    assert (counts["cluster_accepted"], counts["cluster_rejected"]) == (1, 1)
    assert (counts["members:cluster_accepted"], counts["members:cluster_rejected"]) == (3, 2)
    assert counts["samples"] == 5
    assert counts["accepted"] == 1
    assert (counts["unconstrained:ok"], counts["unconstrained:total"]) == (2, 2)
    assert (counts["constrained:ok"], counts["constrained:total"]) == (2, 3)
    assert counts["missing:coverage"] == 1
    assert counts["missing:combined"] == 0


def test_histograms_and_tallies(workspace):
    found = survey(workspace)
    assert found.sources == {
        ("source-file-1", "CC0-1.0"): 13,
        ("source-file-1", "GPL-3.0"): 1,
        ("source-file-2", "CC0-1.0"): 3,
    }
    assert found.cluster_sizes == {3: 1, 2: 1}
    assert found.rejects == {"low_quality": 1, "no_answer_block": 1, "unscored": 1}
    assert sum(found.ratings.values()) == 13
    assert found.ratings[5] == 6
    assert found.bins["quality_pool"].sum() == 13
    assert found.bins["cohesion"].sum() == 2
    assert found.bins["reward:quality"].sum() == 5
    assert found.bins["reward:coverage"].sum() == 4


def test_scores_are_those_of_the_pool(workspace):
    found = survey(workspace).scores
    assert found.counts["rated"] == sum(found.curated_CC.ravel()) == 13
    # All rated rows but the one near-duplicate have neighbors that vote.
    assert found.calibration.rows_B.sum() == 12
    assert list(found.cells.values()) == [13]  # "blind" is in no cell
    assert (found.counts["placed"], found.counts["visits"]) == (13, 0)
    (pair,) = found.pairs
    assert {pair.uid, pair.duplicate_of} == {row.uid for row in (POOL[5], POOL[10])}
    assert (found.counts["near_duplicates"], found.counts["same_source"]) == (1, 1)


def test_the_best_candidates(workspace):
    found = survey(workspace)
    (key,) = keys_of(found.distilled)
    assert key == clusters_of(workspace)[3]
    assert found.members[key] == 3
    assert found.qualities[key] == pytest.approx(0.9)
    best = parse_distilled(distilled_text(f"merged {key[:6]} 1"), "qa")
    assert found.pairs[key] == uid_of(best.turns)
    assert set(keys_of(found.originals)) == {
        row.uid for row in POOL if row.name in ("h0", "h1", "h2", "h3")
    }


def test_only_the_best_of_the_candidates_are_kept(workspace):
    found = survey(workspace, limit=2)
    assert len(keys_of(found.originals)) == 2
    assert found.counts["original_candidates"] == 4
    assert keys_of(found.originals) == keys_of(survey(workspace).originals)[:2]


def test_every_licence_is_allowed_where_none_are_listed(workspace):
    counts = survey(workspace, licences=None).counts
    assert counts["original_candidates"] == 5
    assert counts["left_out:licence"] == 0


def test_rewards_of_another_revision_do_not_count(workspace):
    judge = replace(JUDGE, revisions={name: "other" for name in JUDGE.revisions})
    found = survey(workspace, judge=judge)
    assert found.counts["cluster_accepted"] == 0
    assert found.rejects == {"unscored": 4, "no_answer_block": 1}


def test_examples_show_accepted_and_other_clusters(workspace):
    found = survey(workspace).examples
    assert set(found) == {"accepted", "rejected:low_quality"}
    ((_, accepted),), ((_, other),) = found.values()
    assert (accepted.verdict, other.verdict) == ("accepted", "rejected")
    assert [sample.accepted for sample in accepted.samples] == [True, True]
    assert [sample.reason for sample in other.samples] == [
        "low_quality",
        "no_answer_block",
        "unscored",
    ]
    assert len(accepted.inputs) == 3


def test_a_cluster_without_samples_is_not_distilled(tmp_path):
    found = survey(make(tmp_path / "w"))
    assert found.counts["cluster_not_distilled"] == 2
    assert found.counts["members:cluster_not_distilled"] == 5
    assert [example.samples for _, example in found.examples["not_distilled"]] == [(), ()]
    assert keys_of(found.distilled) == []


# --- merging -------------------------------------------------------------------------------------


def summary(found: Survey) -> dict:
    ranked = {
        name: (part.keys, part.quality_N.tolist(), part.long_tail_N.tolist())
        for name, part in (("originals", found.originals), ("distilled", found.distilled))
        if part is not None
    }
    return {
        "counts": dict(+found.counts),
        "tallies": [found.sources, found.ratings, found.cluster_sizes, found.rejects],
        "bins": {name: bins.tolist() for name, bins in found.bins.items() if bins.sum()},
        "chosen": [found.pairs, found.members, found.qualities],
        "examples": found.examples,
        "scores": [
            +found.scores.counts,
            found.scores.calibration.rows_B.tolist(),
            found.scores.calibration.millionths_B.tolist(),
            found.scores.curated_CC.tolist(),
            found.scores.cells,
            found.scores.pairs,
        ],
        **ranked,
    }


@pytest.fixture(scope="module")
def divided(tmp_path_factory):
    """The same pool in one bucket and in several."""
    made = []
    for buckets in (1, 5):
        workspace = make(tmp_path_factory.mktemp("divided") / "w", buckets)
        keys = clusters_of(workspace)
        add_samples(
            workspace, [Sample(keys[3]), Sample(keys[2], text="broken"), Sample(keys[2], 1)]
        )
        made.append(workspace)
    return made


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_surveys_of_buckets_merge_to_that_of_the_whole(divided, limit):
    one, several = (summary(survey(workspace, limit)) for workspace in divided)
    assert one == several


def test_merging_does_not_depend_on_the_order(divided):
    _, workspace = divided
    tables = snapshots(workspace)
    found = SurveySettings(JUDGE, rater_revision(RATER), None, 2)
    parts = [survey_bucket(workspace, tables, bucket, FILES, found) for bucket in range(5)]
    merged = []
    for order in (parts, parts[::-1]):
        whole = Survey(2)
        for part in order:
            whole.merge(part)
        merged.append(summary(whole))
    assert merged[0] == merged[1]


def test_a_bucket_without_rows_is_surveyed(tmp_path):
    workspace = make_workspace(tmp_path / "w")
    add(workspace, POOL[:1])
    found = SurveySettings(JUDGE, rater_revision(RATER), None, 10)
    part = survey_bucket(workspace, snapshots(workspace), 0, ("no such file",), found)
    assert part.counts["occurrences"] == 0
    assert keys_of(part.originals) == []


def test_examples_are_bounded_and_drawn_by_key():
    def merged(numbers) -> Survey:
        found = Survey(1)
        for number in numbers:
            part = Survey(1)
            key = f"{number:03d}"
            part.examples["accepted"] = [(example_rank(key), _example(key))]
            found.merge(part)
        return found

    first, second = merged(range(300)), merged(reversed(range(300)))
    assert first.examples == second.examples
    ranks = [rank for rank, _ in first.examples["accepted"]]
    assert len(ranks) == EXAMPLES_OF_A_STRATUM
    assert ranks == sorted(example_rank(f"{number:03d}") for number in range(300))[: len(ranks)]


def _example(cluster: str):
    return ClusterExample(cluster, "qa", 0.8, (), ())


@pytest.mark.parametrize(
    ("values", "places"),
    [([0.0, 0.001], [0, 0]), ([1.0], [-1]), ([-0.2, 1.3], [0, -1]), ([], [])],
)
def test_values_fall_into_unit_bins(values, places):
    bins = unit_bins(np.array(values, np.float32))
    expected = np.zeros(len(bins), np.int64)
    for place in places:
        expected[place] += 1
    assert bins.tolist() == expected.tolist()


# --- fates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 6, 100])
@pytest.mark.parametrize("quarantined", [0, 4])
def test_every_occurrence_has_one_fate_whatever_the_release_takes(workspace, size, quarantined):
    found = survey(workspace, limit=size)
    originals = keys_of(found.originals)
    distilled = _distinct(found, set(originals))
    sizes = mix(len(distilled), len(originals), size=size, distilled_share=0.5, policy="shrink")
    originals, distilled = originals[: sizes.originals], distilled[: sizes.distilled]
    fates = _fates(found, originals, distilled, quarantined)
    check_fates(fates, found.counts["occurrences"] + quarantined)
    assert fates["original"] == len(originals)
    assert fates["merged"] == 3 * len(distilled)
    assert fates["duplicate"] == 3
    assert fates["quarantined"] == quarantined
    assert all(count >= 0 for count in fates.values())


def test_members_that_are_not_the_clustered_records_are_refused(workspace):
    found = survey(workspace)
    found.counts["clustered"] += 1
    with pytest.raises(LedgerError):
        _fates(found, [], [], 0)


def test_equal_pairs_are_released_once():
    found = Survey(10)
    part = survey_of_pairs({"k1": "same", "k2": "same", "k3": "original", "k4": "other"})
    found.merge(part)
    assert _distinct(found, {"original"}) == ["k1", "k4"]


def survey_of_pairs(pairs: dict[str, str]) -> Survey:
    keys = list(pairs)
    part = Survey(10)
    part.distilled = Ranked(keys, np.linspace(0.9, 0.1, len(keys)), np.zeros(len(keys)))
    part.pairs = dict(pairs)
    part.members = dict.fromkeys(keys, 2)
    part.qualities = dict.fromkeys(keys, 0.5)
    return part
