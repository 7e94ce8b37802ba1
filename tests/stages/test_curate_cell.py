"""Curating and clustering one cell, on a pool made by hand.

Topics 0 and 1 are low, topic 2 is high; rows of one topic have a cosine of 0.8, of two topics 0.
"""

import shutil

import made_pool
import pytest
from made_pool import Row, add, make_workspace, rows_of, settings

from mixup.clusters.grouping import cluster_key
from mixup.refresh_config import ClusterConfig, CurateConfig
from mixup.stages.cell import CellSettings
from mixup.stages.reference import reference_revision
from mixup.tables import snapshot


def library_of(workspace):
    return reference_revision(workspace, settings().scoring())


LOW_A = [Row(f"a{n}", topic=0, variant=n, overall=2) for n in range(3)]
LOW_B = [Row(f"b{n}", topic=1, variant=n, overall=3) for n in range(2)]
HIGH = [Row(f"h{n}", topic=2, variant=n, overall=9) for n in range(3)]
ALONE = Row("alone", topic=3, variant=9, overall=1)
POOL = [*LOW_A, *LOW_B, *HIGH, ALONE]


@pytest.fixture
def workspace(tmp_path):
    return make_workspace(tmp_path / "w")


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    made = make_workspace(tmp_path_factory.mktemp("template") / "w")
    add(made, POOL)
    return made


@pytest.fixture
def pooled(template, tmp_path):
    """A workspace that holds the pool."""
    shutil.copytree(template.uri, tmp_path / "w")
    return make_workspace(tmp_path / "w")


def curate(workspace, pool=("file-1",), regroup=False, made: CellSettings | None = None):
    counts = made_pool.curate(workspace, pool, made, regroup=regroup)
    check(workspace, counts)
    return counts


def check(workspace, counts: dict[str, int]) -> None:
    """What holds whatever the pool is."""
    curation = rows_of(workspace, "curation")
    clusters = rows_of(workspace, "clusters")
    uids = [row["uid"] for row in curation]
    assert len(uids) == len(set(uids)) == counts["rows"]
    tiers = ("high", "low", "unrated", "duplicate")
    assert sum(counts.get(tier, 0) for tier in tiers) == counts["rows"]
    left = ("singleton", "chat", "too_long", "licence")
    assert counts["members"] + sum(counts.get(name, 0) for name in left) == counts.get("low", 0)
    assert counts["kept"] + counts["new"] == counts["clusters"] == len(clusters)
    cluster_of = {row["uid"]: row["cluster"] for row in curation if row["cluster"]}
    assert cluster_of == {uid: row["cluster"] for row in clusters for uid in row["members"]}
    tier_of = {row["uid"]: row["tier"] for row in curation}
    for row in clusters:
        assert row["cluster"] == cluster_key(row["members"])
        assert len(row["inputs"]) == len(row["members"])
        assert {tier_of[uid] for uid in row["members"]} == {"low"}
    for row in curation:
        explained = row["cluster"] or row["reason"] or row["tier"] in ("high", "duplicate")
        assert explained, row


def by_name(workspace, rows: list[Row]) -> dict[str, dict]:
    found = {row["uid"]: row for row in rows_of(workspace, "curation")}
    return {row.name: found[row.uid] for row in rows if row.uid in found}


def groups(workspace, rows: list[Row]) -> set[frozenset[str]]:
    names = {row.uid: row.name for row in rows}
    return {
        frozenset(names[uid] for uid in row["members"]) for row in rows_of(workspace, "clusters")
    }


def test_tiers_clusters_and_singletons(pooled):
    counts = curate(pooled)
    assert {name: count for name, count in counts.items() if count} == {
        "rows": 9,
        "cells": 1,
        "cells_done": 1,
        "high": 3,
        "low": 6,
        "singleton": 1,
        "members": 5,
        "clusters": 2,
        "new": 2,
    }
    assert groups(pooled, POOL) == {frozenset({"a0", "a1", "a2"}), frozenset({"b0", "b1"})}
    found = by_name(pooled, POOL)
    assert found["alone"]["reason"] == "singleton"
    assert all(found[row.name]["tier"] == "high" for row in HIGH)
    assert found["h0"]["curated_rating"] == 5
    assert found["a0"]["quality"] < 0.5 < found["h0"]["quality"]
    assert found["a0"]["long_tail"] < found["alone"]["long_tail"]
    (three,) = [row for row in rows_of(pooled, "clusters") if len(row["members"]) == 3]
    assert three["cohesion"] == pytest.approx(0.8, abs=0.01)
    assert three["inputs"][0].startswith("Q: question a")
    assert library_of(pooled) is not None


def test_unrated_rows_are_judged_by_their_neighbors(workspace):
    unrated = [Row("near-low", topic=0, variant=5), Row("near-high", topic=2, variant=5)]
    add(workspace, [*POOL, *unrated])
    curate(workspace)
    found = by_name(workspace, unrated)
    assert found["near-low"]["tier"] == "low"
    assert found["near-high"]["tier"] == "high"
    assert found["near-low"]["curated_rating"] is not None


def test_the_column_rater_leaves_unrated_rows_out(workspace):
    unrated = [Row("near-low", topic=0, variant=5), Row("near-high", topic=2, variant=5)]
    add(workspace, [*POOL, *unrated])
    counts = curate(workspace, made=settings(only_rated=True))
    assert counts["unrated"] == 2
    found = by_name(workspace, unrated)
    for row in found.values():
        assert (row["tier"], row["reason"]) == ("unrated", "unrated")
        assert row["quality"] is None
        assert row["curated_rating"] is row["rating_origin"] is None
        assert row["cluster"] is None


def test_a_pool_without_ratings_is_unrated(workspace):
    rows = [Row(f"u{n}", topic=n % 2, variant=n) for n in range(8)]
    add(workspace, rows)
    counts = curate(workspace)
    assert counts["unrated"] == counts["rows"] == 8
    assert counts["clusters"] == 0
    assert {row["reason"] for row in rows_of(workspace, "curation")} == {"too_few_ratings"}
    assert library_of(workspace) is None


def test_near_duplicates_name_the_oldest(workspace):
    copy = Row("copy", topic=0, variant=0, overall=2, near=True)
    add(workspace, [*POOL, copy])
    counts = curate(workspace)
    assert counts["duplicate"] == 1
    found = by_name(workspace, [*POOL, copy])
    assert found["copy"]["tier"] == "duplicate"
    assert found["copy"]["duplicate_of"] == LOW_A[0].uid
    assert found["copy"]["cluster"] is None
    assert found["a0"]["duplicate_of"] is None
    # Vectors (1, 0.5) and (1, 0.5, 0.1) of norms 1.25 ** 0.5 and 1.26 ** 0.5; both from one file.
    assert found["copy"]["duplicate_similarity"] == pytest.approx((1.25 / 1.26) ** 0.5, abs=1e-6)
    assert found["copy"]["same_source"] is True
    assert found["a0"]["duplicate_similarity"] is found["a0"]["same_source"] is None


def test_a_near_duplicate_of_another_source_is_told(workspace):
    copy = Row("copy", topic=0, variant=0, overall=2, near=True, file="file-2")
    add(workspace, [*POOL, copy])
    curate(workspace, pool=("file-1", "file-2"))
    assert by_name(workspace, [copy])["copy"]["same_source"] is False
    # Its source is that of its oldest occurrence, whatever else repeats it.
    add(workspace, [Row("copy", topic=0, variant=0, file="file-1")])
    curate(workspace, pool=("file-1", "file-2"), regroup=True)
    assert by_name(workspace, [copy])["copy"]["same_source"] is True


def test_observed_ratings_are_predicted_by_their_neighbors(workspace):
    copy = Row("copy", topic=0, variant=0, overall=2, near=True)
    unrated = Row("near-low", topic=0, variant=5)
    add(workspace, [*POOL, copy, unrated])
    curate(workspace)
    found = by_name(workspace, [*POOL, copy, unrated])
    known = {name for name, row in found.items() if row["predicted"] is not None}
    assert known == {row.name for row in POOL}
    assert found["h0"]["predicted"] > 0.5 > found["a0"]["predicted"]


def test_the_oldest_is_of_the_earliest_file(workspace):
    add(workspace, [*POOL[1:]])
    add(workspace, [Row("later", topic=0, variant=0, overall=2, near=True, file="file-2")])
    add(workspace, [Row("a0", topic=0, variant=0, overall=2, file="file-3")])
    curate(workspace, pool=("file-1", "file-2", "file-3"))
    found = by_name(workspace, [Row("a0", 0, 0), Row("later", 0, 0)])
    assert found["a0"]["tier"] == "duplicate"
    assert found["a0"]["duplicate_of"] == Row("later", 0, 0).uid


def test_rows_without_a_vector_are_told(workspace):
    blind = Row("blind", topic=0, variant=7, embedded=False)
    add(workspace, [*POOL, blind])
    counts = curate(workspace)
    assert counts["unrated"] == 1
    found = by_name(workspace, [blind])["blind"]
    assert (found["tier"], found["reason"]) == ("unrated", "no_embedding")


def test_a_pool_without_any_vector_is_told(workspace):
    add(workspace, [Row(f"x{n}", topic=0, variant=n, overall=5, embedded=False) for n in range(3)])
    counts = curate(workspace)
    assert (counts["rows"], counts["unrated"]) == (3, 3)


def test_an_empty_pool_has_nothing(pooled):
    assert curate(pooled, pool=())["rows"] == 0
    assert rows_of(pooled, "curation") == []


def test_vectors_of_another_encoder_are_not_used(pooled):
    counts = curate(pooled, made=settings(encoder="encoder-2"))
    assert counts["unrated"] == len(POOL)
    assert curate(pooled)["unrated"] == 0


def test_what_may_not_be_clustered_is_passed_with_its_reason(workspace):
    odd = [
        Row("chat", topic=0, variant=11, overall=1, task="chat"),
        Row("long", topic=0, variant=12, overall=1, tokens=5000),
        Row("mcq", topic=0, variant=13, overall=1, task="mcq"),
    ]
    add(workspace, [*POOL, *odd])
    counts = curate(workspace)
    assert (counts["chat"], counts["too_long"], counts["singleton"]) == (1, 1, 2)
    found = by_name(workspace, odd)
    assert {name: row["reason"] for name, row in found.items()} == {
        "chat": "chat",
        "long": "too_long",
        "mcq": "singleton",
    }


def test_only_listed_licences_are_clustered(workspace):
    rows = [*POOL, Row("gpl", topic=0, variant=8, overall=1, licence="GPL-3.0")]
    add(workspace, rows)
    counts = curate(workspace, made=settings(licences=("CC0-1.0",)))
    assert counts["licence"] == 1
    assert by_name(workspace, rows)["gpl"]["reason"] == "licence"
    assert {row["licence"] for row in rows_of(workspace, "clusters")} == {"CC0-1.0"}


def test_a_clusters_licence_is_the_union_of_its_members(workspace):
    licences = ["MIT", "CC0-1.0", "MIT"]
    add(workspace, [Row(f"a{n}", 0, n, 2, licence=text) for n, text in enumerate(licences)] + HIGH)
    curate(workspace)
    (cluster,) = rows_of(workspace, "clusters")
    assert cluster["licence"] == "CC0-1.0 AND MIT"


# --- later nights --------------------------------------------------------------------------------


def test_nothing_new_changes_nothing(pooled):
    curate(pooled)
    before, clusters = rows_of(pooled, "curation"), snapshot(pooled, "clusters")
    counts = curate(pooled)
    assert (counts["kept"], counts["new"], counts["dissolved"]) == (2, 0, 0)
    assert snapshot(pooled, "clusters") == clusters
    assert rows_of(pooled, "curation") == before


def test_clusters_stay_when_rows_arrive(pooled):
    curate(pooled)
    before = groups(pooled, POOL)
    later = [Row(f"n{n}", topic=0, variant=12 + n, overall=2, file="file-2") for n in range(2)]
    later.append(Row("n-b", topic=1, variant=15, overall=2, file="file-2"))
    add(pooled, later)
    counts = curate(pooled, pool=("file-1", "file-2"))
    assert (counts["kept"], counts["new"], counts["dissolved"]) == (2, 1, 0)
    rows = [*POOL, *later]
    assert groups(pooled, rows) == {*before, frozenset({"n0", "n1"})}
    # The newcomer waits although it is near a cluster that has room.
    assert by_name(pooled, rows)["n-b"]["reason"] == "singleton"


def test_a_cluster_dissolves_when_a_member_leaves_the_pool(workspace):
    leaving = Row("a2", topic=0, variant=2, overall=2, file="file-2")
    rows = [*LOW_A[:2], leaving, *LOW_B, *HIGH, ALONE]
    add(workspace, rows)
    curate(workspace, pool=("file-1", "file-2"))
    counts = curate(workspace, pool=("file-1",))
    assert (counts["kept"], counts["new"], counts["dissolved"]) == (1, 1, 1)
    assert groups(workspace, rows) == {frozenset({"a0", "a1"}), frozenset({"b0", "b1"})}
    assert leaving.uid not in {row["uid"] for row in rows_of(workspace, "curation")}


def test_a_cluster_dissolves_when_a_members_licence_is_no_longer_allowed(pooled):
    curate(pooled, made=settings(licences=("CC0-1.0",)))
    add(pooled, [Row("a0", 0, 0, 2, licence="GPL-3.0", file="file-2")])
    counts = curate(pooled, ("file-1", "file-2"), made=settings(licences=("CC0-1.0",)))
    assert (counts["kept"], counts["new"], counts["dissolved"]) == (1, 1, 1)
    assert groups(pooled, POOL) == {frozenset({"a1", "a2"}), frozenset({"b0", "b1"})}


def test_a_cluster_that_stays_takes_the_licence_that_its_members_have_now(pooled):
    curate(pooled)
    add(pooled, [Row("a0", 0, 0, 2, licence="GPL-3.0", file="file-2")])
    counts = curate(pooled, ("file-1", "file-2"))
    assert (counts["kept"], counts["new"]) == (2, 0)
    licences = {len(row["members"]): row["licence"] for row in rows_of(pooled, "clusters")}
    assert licences == {3: "CC0-1.0 AND GPL-3.0", 2: "CC0-1.0"}


def test_other_settings_regroup_all(pooled):
    curate(pooled)
    made = settings(cluster=ClusterConfig(max_size=2))
    counts = curate(pooled, regroup=True, made=made)
    assert (counts["kept"], counts["dissolved"]) == (1, 1)  # the pair has the same key again
    assert max(len(members) for members in groups(pooled, POOL)) == 2


def test_a_tier_holds_until_quality_passes_the_margin(workspace):
    made = settings(curate=CurateConfig(predictor="neighbors", min_rated=4, margin=0.45))
    doubtful = [Row("doubt", topic=2, variant=4, overall=7)]
    add(workspace, [*POOL, *doubtful])
    curate(workspace, made=made)
    before = by_name(workspace, doubtful)["doubt"]["tier"]
    later = [Row(f"l{n}", topic=2, variant=10 + n, overall=7, file="file-2") for n in range(4)]
    add(workspace, later)
    curate(workspace, ("file-1", "file-2"), made=made)
    assert by_name(workspace, doubtful)["doubt"]["tier"] == before


def test_one_new_row_does_not_refit_the_library(pooled):
    curate(pooled)
    first = library_of(pooled)
    add(pooled, [Row("one more", topic=2, variant=9, overall=9, file="file-2")])
    curate(pooled, ("file-1", "file-2"))
    assert library_of(pooled) == first
    add(pooled, [Row(f"m{n}", 2, 10 + n, 9, file="file-3") for n in range(5)])
    curate(pooled, ("file-1", "file-2", "file-3"))
    assert library_of(pooled) != first


def test_buckets_do_not_matter(tmp_path):
    found = []
    for buckets in (1, 7):
        workspace = make_workspace(tmp_path / str(buckets), buckets=buckets)
        add(workspace, POOL)
        curate(workspace)
        rows = sorted(rows_of(workspace, "curation"), key=lambda row: row["uid"])
        found.append((rows, groups(workspace, POOL)))
    assert found[0] == found[1]
