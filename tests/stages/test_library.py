"""A rated library from small tables: who is in it, what is fitted by task type, and its folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import made_pool
import numpy as np
import pyarrow as pa
import pytest
from made_pool import ENCODER, Row, add, in_process, make_workspace, settings

from mixup.actors.components import component_scores
from mixup.actors.requests import ScoreRequest, Texts
from mixup.actors.votes import Votes
from mixup.commits import Committer, write_by_bucket
from mixup.errors import ConfigError
from mixup.lock import acquire
from mixup.records import TABLES
from mixup.reference_config import FitConfig
from mixup.refresh_config import CurateConfig
from mixup.stages.cell import CellSettings
from mixup.stages.library import LibraryMade, make_library
from mixup.stages.library_folder import (
    FORMAT,
    KIND,
    POINTER,
    BuiltLibrary,
    check_encoder,
    check_predictor,
    find_library,
    library_at,
    load_library,
    predictor_of,
    stated_files,
    take_library,
    votes_of,
)
from mixup.stages.library_rows import READ, RatedSource
from mixup.stages.reference import current_reference, read_reference
from mixup.stages.run import RunContext
from mixup.tables import snapshot
from mixup.workspace import Workspace

FIT = FitConfig(min_rated=4, min_task_rated=6, predictor="neighbors")
FITTED = settings(curate=CurateConfig(predictor="neighbors", min_rated=4, neighbors=3))


def source(workspace: Workspace, licences: tuple[str, ...] | None = None) -> RatedSource:
    tables = {name: snapshot(workspace, name) for name in READ}
    files = sorted({row["file"] for row in made_pool.rows_of(workspace, "occurrences")})
    return RatedSource(workspace, tables, files, FITTED, licences)


def make(
    workspace: Workspace,
    sources: Sequence[RatedSource],
    fit: FitConfig = FIT,
    folder: str = "made",
    cells: CellSettings = FITTED,
) -> LibraryMade:
    with acquire(workspace, "r") as lease:
        context = RunContext(workspace, "r", lease.token, runner=in_process)
        return make_library(context, sources, cells, fit, folder)


def rows(task: str, ratings: Sequence[float | None], topic: int = 0, **more) -> list[Row]:
    return [
        Row(f"{task}-{topic}-{n}", topic, n, overall=rating, task=task, **more)
        for n, rating in enumerate(ratings)
    ]


def opposite_tasks() -> list[Row]:
    """What is good as an answer is bad as a paragraph, and the other way round."""
    high, low = [9.0] * 8, [5.0] * 8
    return [
        *rows("qa", high, topic=0),
        *rows("qa", low, topic=1),
        *rows("para", low, topic=0),
        *rows("para", high, topic=1),
    ]


def add_targets(workspace: Workspace, found: Sequence[dict]) -> None:
    table = pa.Table.from_pylist(list(found), schema=TABLES["targets"].file_schema)
    writer = Committer(workspace, token=1, run="r", tables=["targets"], interval_s=60.0)
    writer.add(write_by_bucket(workspace, "targets", table))
    writer.commit()


def test_each_row_is_in_the_library_or_left_out_for_one_reason(tmp_path):
    workspace = make_workspace(tmp_path / "w", buckets=4)
    kept = rows("qa", [9, 8, 5, 5, 9, 8, 5, 2])
    unrated = rows("qa", [None, None], topic=1)
    by_rule, judged = rows("cs", [None, 9.0], topic=2)
    blind = rows("mcq", [9.0], topic=3, embedded=False)
    foreign = rows("mcq", [9.0], topic=4, licence="proprietary")
    tested, held = rows("para", [9.0, 5.0], topic=5)
    near = replace(kept[0], name="nearly the first", near=True, overall=2.0)
    everything = [*kept, *unrated, by_rule, judged, *blind, *foreign, tested, held, near]
    add(workspace, everything)
    add_targets(
        workspace,
        [
            {"uid": by_rule.uid, "split": "rl", "rating": 5, "rating_source": "construction"},
            {"uid": judged.uid, "split": "sft", "rating": 5, "rating_source": "judge"},
            {"uid": tested.uid, "split": "test", "rating": 5, "rating_source": "judge"},
            {"uid": held.uid, "split": "validation", "rating": 1, "rating_source": "judge"},
        ],
    )
    made = make(workspace, [source(workspace, ("CC0-1.0",))])
    assert {name: n for name, n in made.counts.parts.items() if n} == {
        "in_library": 9,
        "near_duplicate": 1,
        "unrated": 2,
        "by_construction": 1,
        "no_embedding": 1,
        "licence": 1,
        "held_out": 2,
    }
    assert made.counts.rows_in == len(everything)
    found = read_reference(workspace, "made", made.revision)
    assert set(found.uids) == {row.uid for row in [*kept, judged]}  # of near-duplicates the oldest
    assert made.tasks["qa"]["ratings"] == {"0": 1, "1": 3, "4": 2, "5": 2}
    assert made.tasks["cs"] == {
        "rows": 1,
        "ratings": {"5": 1},
        "sources": {"column": 1},
        "own_fit": False,
        "effective_votes": None,
    }


def test_of_a_row_in_two_sources_the_first_rating_counts(tmp_path):
    first = make_workspace(tmp_path / "first", buckets=2)
    second = make_workspace(tmp_path / "second", buckets=3)
    shared = rows("qa", [9, 9, 5, 5])
    add(first, shared)
    add(second, [*(replace(row, overall=2.0) for row in shared), *rows("qa", [5, 9], topic=7)])
    made = make(first, [source(first), source(second)])
    assert made.counts.parts["duplicate"] == 4
    assert made.tasks["qa"]["ratings"] == {"1": 3, "5": 3}
    other = make(second, [source(second), source(first)], folder="other")
    assert other.tasks["qa"]["ratings"] == {"0": 4, "1": 1, "5": 1}
    assert other.revision != made.revision


def test_a_task_type_of_too_many_rows_is_drawn_by_content(tmp_path):
    workspace = make_workspace(tmp_path / "w", buckets=4)
    add(workspace, [*rows("qa", [9, 5] * 20), *rows("cs", [9, 5] * 3, topic=1)])
    few = FIT.model_copy(update={"max_rows": 10})
    made = make(workspace, [source(workspace)], few)
    assert 3 <= made.tasks["qa"]["rows"] <= 18
    assert made.tasks["cs"]["rows"] == 6
    assert made.counts.parts["over_max_rows"] == 40 - made.tasks["qa"]["rows"]
    assert make(workspace, [source(workspace)], few, "again").revision == made.revision


@pytest.mark.parametrize(
    ("ratings", "said"),
    [
        ([9.0, 5.0, None], "2 rated rows are left for the library, at least 4"),
        ([9.0] * 6, "all 6 rated rows are of class 5"),
        ([None] * 3, "0 rated rows are left"),
    ],
)
def test_a_library_that_cannot_tell_good_from_bad_is_refused(tmp_path, ratings, said):
    workspace = make_workspace(tmp_path / "w")
    add(workspace, rows("qa", ratings))
    with pytest.raises(ConfigError, match=said):
        make(workspace, [source(workspace)])


def test_the_buckets_and_the_order_of_rows_do_not_matter(tmp_path):
    revisions = set()
    for buckets in (1, 5):
        workspace = make_workspace(tmp_path / f"w{buckets}", buckets=buckets)
        add(workspace, opposite_tasks())
        revisions.add(make(workspace, [source(workspace)]).revision)
    assert len(revisions) == 1


def quality_of(library, task: str, topic: int, neighbors: int = 4) -> float:
    """The quality reward of a sample of a task type whose pair lies at a topic."""
    vector = Row("sample", topic, 19).vector
    texts = Texts({"pair": 0}, vector[None].astype(np.float32), frozenset())
    request = ScoreRequest("k", task, "", "answer", "pair", (), ())
    rewards = replace(made_pool.REWARDS, neighbors=neighbors)
    (score,) = component_scores("quality", [request], texts, rewards, votes_of(library))
    assert score.value is not None
    return score.value


def test_a_sample_is_judged_by_the_rows_of_its_own_task_type(tmp_path):
    workspace = make_workspace(tmp_path / "w", buckets=2)
    add(workspace, opposite_tasks())
    made = make(workspace, [source(workspace)])
    found = read_reference(workspace, "made", made.revision)
    assert set(found.fit.tasks) == {"qa", "para"}
    # Neighbors of one task type always agree, so that T is the identity but for the smoothing.
    for fit in found.fit.tasks.values():
        assert fit.transition.classes.tolist() == [1, 5]
        assert np.diag(fit.transition.matrix_CC).min() > 0.99
        assert fit.transition.prior_C == pytest.approx([0.5, 0.5])
    assert quality_of(found, "qa", 0) > 0.9 > 0.1 > quality_of(found, "qa", 1)
    assert quality_of(found, "para", 1) > 0.9 > 0.1 > quality_of(found, "para", 0)
    # A task type without a library of its own hears both, and they contradict each other.
    assert quality_of(found, "cs", 0, neighbors=16) == pytest.approx(0.5, abs=0.1)


def published(workspace: Workspace, **changed) -> Path:
    """A library's folder as the job leaves it, and the pointer to it."""
    add(workspace, opposite_tasks())
    fit = changed.pop("fit", FIT)
    made = make(workspace, [source(workspace)], fit, "libraries/a")
    manifest = {
        "kind": KIND,
        "format": FORMAT,
        "library": "a",
        "revision": made.revision,
        "encoder": {"model": "m", "revision": ENCODER},
        "counts": {"rows": made.counts.parts["in_library"]},
        "files": stated_files(workspace, "libraries/a"),
        **changed,
    }
    workspace.write_json("libraries/a/manifest.json", manifest)
    workspace.write_json(POINTER, {"library": "a", "state": "s"})
    return Path(workspace.path("libraries/a"))


def found_at(place: object) -> BuiltLibrary:
    library = library_at(str(place))
    assert library is not None
    return library


def test_a_folder_or_its_workspace_names_a_library_and_other_paths_do_not(tmp_path):
    workspace = make_workspace(tmp_path / "w")
    folder = published(workspace)
    assert found_at(folder) == found_at(tmp_path / "w")
    (tmp_path / "rated.jsonl").write_text("{}\n")
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "manifest.json").write_text('{"kind": "another"}')
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "manifest.json").write_text("no JSON")
    others = [str(tmp_path / "rated.jsonl"), str(tmp_path / "pool"), str(tmp_path / "*.jsonl")]
    others.append(str(tmp_path / "rows"))
    others += ["bundled:sample", "http://127.0.0.1:1/rated.jsonl", ""]
    assert [library_at(path) for path in others] == [None] * len(others)
    assert find_library([], "rate.library") is None
    with pytest.raises(ConfigError, match="must stand alone, 2 paths"):
        find_library([others[0], str(folder)], "rate.library")


def test_what_was_written_is_read_back(tmp_path):
    workspace = make_workspace(tmp_path / "w")
    folder = published(workspace)
    library = found_at(folder)
    found = load_library(library)
    assert len(found.uids) == library.rows == len(opposite_tasks())
    by_uid = {row.uid: row for row in opposite_tasks()}
    for uid, vector, task in zip(found.uids, found.vectors_LD, found.tasks_L, strict=True):
        np.testing.assert_allclose(vector, by_uid[uid].vector, atol=1e-6)
        assert task == by_uid[uid].task
    check_encoder(library, model="m", revision=ENCODER)


@pytest.mark.parametrize("damage", ["cut", "gone", "other"])
def test_a_damaged_file_is_named(tmp_path, damage):
    folder = published(make_workspace(tmp_path / "w"))
    file = folder / "library.parquet"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-10])
    elif damage == "gone":
        file.unlink()
    else:
        tasks = folder / "tasks.json"
        tasks.write_text(tasks.read_text().replace("0.99", "0.98"))
    name = "tasks.json" if damage == "other" else "library.parquet"
    with pytest.raises(ConfigError, match=f"{name} is not as its manifest states"):
        load_library(found_at(folder))


def test_another_encoder_is_refused_with_both_names(tmp_path):
    folder = published(make_workspace(tmp_path / "w"))
    with pytest.raises(ConfigError, match=r"encoder 'm' .* embed.model='n' has revision f{12}"):
        check_encoder(found_at(folder), model="n", revision="f" * 32)


def test_a_newer_format_is_refused(tmp_path):
    folder = published(make_workspace(tmp_path / "w"), format=FORMAT + 1)
    with pytest.raises(ConfigError, match=f"format {FORMAT + 1}"):
        library_at(str(folder))


def test_a_refresh_takes_a_library_with_what_was_fitted(tmp_path):
    library = found_at(published(make_workspace(tmp_path / "w")))
    other = make_workspace(tmp_path / "refresh")
    mine = settings(library=library.revision)
    take_library(other, library, mine)
    taken = current_reference(other, mine.scoring())
    assert taken is not None
    assert taken.revision == library.revision
    assert set(taken.fit.tasks) == {"qa", "para"}
    assert taken.tasks_L == load_library(library).tasks_L
    assert current_reference(other, settings(library="another").scoring()) is None
    check_predictor(library, "neighbors")
    with pytest.raises(ConfigError, match="without a regression"):
        check_predictor(library, "regression")


def test_the_manifest_is_json_without_numbers_that_json_lacks(tmp_path):
    folder = published(make_workspace(tmp_path / "w"))
    for file in folder.glob("*.json"):
        json.loads(file.read_text(), parse_constant=pytest.fail)


def test_samples_are_judged_by_the_regression_where_it_is_asked_for_and_there(tmp_path):
    workspace = make_workspace(tmp_path / "w")
    add(workspace, rows("qa", [9.0] * 8) + rows("qa", [5.0] * 8, topic=1))
    cells = settings(curate=CurateConfig(min_rated=4, neighbors=3))
    fitted = make(workspace, [source(workspace)], cells=cells)
    with_it = read_reference(workspace, "made", fitted.revision)
    assert with_it.fit.regressed is not None
    assert predictor_of(with_it, "regression") is with_it.fit.regressed.regression
    assert isinstance(predictor_of(with_it, "neighbors"), Votes)
    without = replace(with_it, fit=replace(with_it.fit, regressed=None))
    assert isinstance(predictor_of(without, "regression"), Votes)
