"""Curating a pool of many cells: what must hold whatever the cells, the buckets and the order."""

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import made_pool
import pytest
from made_pool import Row, add, make_workspace, rows_of, settings

from mixup.clusters.grouping import cluster_key
from mixup.errors import LedgerError
from mixup.refresh_config import CurateConfig
from mixup.stages import fitted_cells
from mixup.stages.fitted_cells import FittedCells, load_cells

CAP = 24
FILES = ("file-1", "file-2")
POOL = [
    Row(f"r{topic}-{variant}", topic, variant, overall=(2.0, 9.0, None, 3.0)[variant % 4])
    for topic in range(12)
    for variant in range(25)
]


def made(**changed):
    return settings(
        curate=CurateConfig(
            **{
                "predictor": "neighbors",
                "min_rated": 4,
                "neighbors": 3,
                "cell_rows": CAP,
                **changed,
            }
        )
    )


class Shuffled:
    """A runner that makes the calls in an order of its own, and may fail at one of them."""

    def __init__(self, seed: int = 0, fail_at: tuple[str, int] | None = None) -> None:
        self._chance, self._fail_at = random.Random(seed), fail_at

    def __call__(
        self, function: Callable, shared: object, arguments: Sequence[tuple], stall: object
    ) -> Iterator:
        arguments = list(arguments)
        self._chance.shuffle(arguments)
        for number, rest in enumerate(arguments):
            if self._fail_at == (function.__name__, number):
                raise KeyboardInterrupt
            yield function(shared, *rest)


def curate(workspace, *, pool=FILES, runner=None, config=None, run="r") -> Counter[str]:
    return made_pool.curate(workspace, pool, config or made(), runner=runner or Shuffled(), run=run)


def cells_of(workspace, config=None) -> FittedCells:
    found = load_cells(workspace, config or made())
    assert found is not None
    return found


def outcome(workspace) -> tuple[list[dict], list[dict]]:
    curation = sorted(rows_of(workspace, "curation"), key=lambda row: row["uid"])
    return curation, sorted(rows_of(workspace, "clusters"), key=lambda row: row["cluster"])


def check(workspace, uids: set[str]) -> None:
    curation, clusters = outcome(workspace)
    assert [row["uid"] for row in curation] == sorted(uids)
    assert max(Counter(row["cell"] for row in curation).values()) <= CAP
    cluster_of = {row["uid"]: row["cluster"] for row in curation if row["cluster"]}
    assert cluster_of == {uid: row["cluster"] for row in clusters for uid in row["members"]}
    assert all(row["cluster"] == cluster_key(row["members"]) for row in clusters)
    cells = {row["uid"]: row["cell"] for row in curation}
    assert all({cells[uid] for uid in row["members"]} == {row["cell"]} for row in clusters)
    for row in curation:
        assert row["cluster"] or row["reason"] or row["tier"] in ("high", "duplicate"), row


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    workspace = make_workspace(tmp_path_factory.mktemp("template") / "w", buckets=3)
    add(workspace, POOL)
    curate(workspace)
    return workspace


@pytest.fixture
def curated(template, tmp_path):
    """A workspace whose pool has been curated once."""
    shutil.copytree(template.uri, tmp_path / "w")
    return make_workspace(tmp_path / "w", buckets=3)


def test_every_row_has_one_outcome_in_a_cell_that_is_not_too_large(template):
    check(template, {row.uid for row in POOL})
    curation, clusters = outcome(template)
    assert len({row["cell"] for row in curation}) >= len(POOL) // CAP
    assert not template.exists("staging")
    assert len(clusters) > 20


def test_neither_buckets_nor_the_order_of_tasks_matter(template, tmp_path):
    workspace = make_workspace(tmp_path / "w", buckets=5)
    shuffled = list(POOL)
    add(workspace, shuffled)
    curate(workspace, runner=Shuffled(7))
    assert outcome(workspace) == outcome(template)


def test_nothing_new_does_no_cell(curated):
    before = outcome(curated)
    assert curate(curated)["cells_done"] == 0
    assert outcome(curated) == before


def test_only_the_cells_of_new_rows_are_done_and_the_others_keep_their_clusters(curated):
    before = outcome(curated)
    late = [Row("late", 3, 30, overall=2.0, file="file-2")]
    add(curated, late)
    counts = curate(curated)
    check(curated, {row.uid for row in [*POOL, *late]})
    assert 1 <= counts["cells_done"] <= 3 < counts["cells"]
    after = outcome(curated)
    held = {row["cluster"] for row in before[1]}
    assert held <= {row["cluster"] for row in after[1]}
    (place,) = [row for row in rows_of(curated, "places") if row["uid"] == late[0].uid]
    touched = {place["cell"], *place["visits"]}
    assert len(touched) == counts["cells_done"]
    others = [[row for row in rows[0] if row["cell"] not in touched] for rows in (before, after)]
    assert others[0] == others[1]


def test_a_cell_that_grows_over_the_cap_is_split_and_the_rest_stays(curated):
    before = {row["uid"]: row["cell"] for row in outcome(curated)[0]}
    late = [Row(f"late{n}", 3, 25 + n % 19, overall=2.0, file="file-2") for n in range(30)]
    add(curated, late)
    curate(curated)
    check(curated, {row.uid for row in [*POOL, *late]})
    after = {row["uid"]: row["cell"] for row in outcome(curated)[0]}
    moved = {cell for uid, cell in before.items() if after[uid] != cell}
    assert len(moved) == 1  # the rows of one cell only
    assert cells_of(curated).cells.split_share > 0


def test_rows_that_leave_take_their_clusters_with_them(curated):
    late = [Row(f"late{n}", 13, n, overall=2.0, file="file-2") for n in range(3)]
    add(curated, late)
    curate(curated)
    assert any(set(row["members"]) & {row.uid for row in late} for row in outcome(curated)[1])
    curate(curated, pool=("file-1",))
    check(curated, {row.uid for row in POOL})


def test_a_pool_that_leaves_whole_leaves_nothing(curated):
    assert curate(curated, pool=())["rows"] == 0
    assert outcome(curated) == ([], [])


@pytest.mark.parametrize(
    "fail_at",
    [
        ("_place_bucket", 1),
        ("stage_bucket", 1),
        ("_count_cells", 0),
        ("do_cells", 0),
        ("gather_clusters", 2),
        ("gather_curation", 1),
    ],
)
def test_what_is_interrupted_anywhere_ends_as_if_it_had_not_been(template, tmp_path, fail_at):
    workspace = make_workspace(tmp_path / "w", buckets=3)
    add(workspace, POOL)
    with pytest.raises(KeyboardInterrupt):
        curate(workspace, runner=Shuffled(1, fail_at))
    curate(workspace, run="r2")
    assert outcome(workspace) == outcome(template)


@pytest.mark.parametrize("wrong", [lambda pieces: pieces[1:], lambda pieces: [*pieces, pieces[0]]])
def test_rows_that_get_lost_or_doubled_on_the_way_are_noticed(tmp_path, wrong):
    def losing(function, shared, arguments, stall):
        for found in Shuffled()(function, shared, arguments, stall):
            is_outcome = function.__name__ == "do_cells"
            yield {**found, "curation": wrong(found["curation"])} if is_outcome else found

    workspace = make_workspace(tmp_path / "w", buckets=3)
    add(workspace, POOL)
    with pytest.raises(LedgerError, match="rows, .* outcomes"):
        curate(workspace, runner=losing)
    curate(workspace)
    check(workspace, {row.uid for row in POOL})


@pytest.mark.parametrize("changed", [{"keep_at": 0.02, "margin": 0.0}, {"cell_rows": 60}])
@pytest.mark.parametrize("fail_at", [("gather_clusters", 2), ("gather_curation", 2)])
def test_an_interrupted_change_of_settings_that_is_taken_back_leaves_no_trace(
    curated, changed, fail_at
):
    before = outcome(curated)
    with pytest.raises(KeyboardInterrupt):
        curate(curated, runner=Shuffled(1, fail_at), config=made(**changed))
    assert outcome(curated) != before
    curate(curated)
    after = outcome(curated)
    assert [row["tier"] for row in after[0]] == [row["tier"] for row in before[0]]
    check(curated, {row.uid for row in POOL})


def test_other_settings_of_the_cells_fit_them_anew(curated):
    before = cells_of(curated)
    counts = curate(curated, config=made(cell_rows=1000))
    assert (counts["cells"], counts["cells_done"]) == (1, 1)
    assert load_cells(curated, made()) is None
    assert cells_of(curated, made(cell_rows=1000)).fit != before.fit


@pytest.mark.parametrize("changed", [{"cell_copies": 1.0}, {"cell_copies": 1.05}])
def test_other_borders_place_all_rows_again(curated, changed):
    before = rows_of(curated, "places")
    visiting = sum(bool(row["visits"]) for row in before)
    assert visiting
    curate(curated, config=made(**changed))
    after = rows_of(curated, "places")
    assert sum(bool(row["visits"]) for row in after) < visiting / 10  # ties are at no distance
    check(curated, {row.uid for row in POOL})


def test_a_row_far_from_all_others_does_not_fit_the_cells_anew(curated):
    fit = cells_of(curated).fit
    add(curated, [Row("far", 18, 43, overall=2.0, file="file-2")])
    for _ in range(2):  # the drift is known after the row was placed
        curate(curated)
        assert cells_of(curated).fit == fit


def test_cells_are_fitted_anew_when_the_pool_has_moved(curated, monkeypatch):
    monkeypatch.setattr(fitted_cells, "_DRIFT_ROWS", 20)
    before = cells_of(curated)
    far = [Row(f"far{n}", 13 + n % 6, n, overall=2.0, file="file-2") for n in range(40)]
    add(curated, far)
    curate(curated)
    assert cells_of(curated).drift >= fitted_cells.REFIT_AT
    late = [Row("late", 0, 40, overall=2.0, file="file-2")]
    add(curated, late)
    counts = curate(curated)
    assert cells_of(curated).fit != before.fit
    assert counts["cells_done"] == counts["cells"]
    check(curated, {row.uid for row in [*POOL, *far, *late]})
    folder = Path(curated.uri) / "fitted" / "cells"
    assert len(list(folder.iterdir())) == 1  # what is no longer used is removed


def test_equal_rows_are_dealt_over_cells_and_none_is_lost(tmp_path):
    workspace = make_workspace(tmp_path / "w")
    rows = [Row(f"same{n}", 0, 0, overall=2.0) for n in range(3 * CAP)]
    add(workspace, rows)
    curate(workspace)
    check(workspace, {row.uid for row in rows})


def test_a_pool_that_outgrows_its_one_cell_gets_cells_with_visitors(tmp_path):
    workspace = make_workspace(tmp_path / "w", buckets=3)
    add(workspace, POOL[: CAP // 2])
    assert curate(workspace)["cells"] == 1
    one = cells_of(workspace)
    add(workspace, POOL[CAP // 2 :])
    curate(workspace)
    check(workspace, {row.uid for row in POOL})
    grown = cells_of(workspace)
    assert grown.fit != one.fit
    assert len(grown.cells.ids) > 1
    assert any(row["visits"] for row in rows_of(workspace, "places"))
    assert curate(workspace)["cells_done"] == 0  # and these cells stay


def test_equal_rows_that_outgrow_their_one_cell_are_dealt_to_parts(tmp_path):
    same = [Row(f"same {number}", 0, 0, overall=2.0) for number in range(3 * CAP)]
    workspace = make_workspace(tmp_path / "w", buckets=3)
    add(workspace, same[: CAP // 2])
    curate(workspace)
    add(workspace, same[CAP // 2 :])
    curate(workspace)
    check(workspace, {row.uid for row in same})
