"""Pairs out of a pool and text: what must hold whatever the cells, the order and the kills."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pytest
from made_mixture import (
    PoolRow,
    add_pool,
    cut,
    embed_items,
    item_files,
    mix,
    mix_settings,
    rows_of,
    text_files,
    write_articles,
)
from made_pool import make_workspace
from made_pool import settings as cell_settings

from mixup.commits import Committer, write_by_bucket
from mixup.errors import MixupError
from mixup.records import TABLES
from mixup.refresh_config import CurateConfig
from mixup.stages.manifests import Stall
from mixup.stages.mix_outcomes import PAIRED
from mixup.text.parse import parse_distilled
from mixup.text.prompts import target_text

RATINGS = (9.0, 8.0, 2.0, 9.0, None)
POOL = [
    PoolRow(f"{name}{topic}", topic, variant, overall=RATINGS[(topic + variant) % 5])
    for topic in range(8)
    for variant, name in enumerate(("Ayr", "Oban", "Wick", "Nairn", "Elgin", "Crail"))
]


@pytest.fixture
def workspace(tmp_path):
    return make_workspace(tmp_path / "w", buckets=3)


class Shuffled:
    """A runner that makes the calls in an order of its own, and may end at one of them."""

    def __init__(self, seed: int, ends_at: int | None = None) -> None:
        self._random, self._left = random.Random(seed), ends_at

    def __call__(
        self, function: Callable[..., Any], shared: object, arguments: Sequence[tuple], stall: Stall
    ) -> Iterator[Any]:
        for call in self._random.sample(list(arguments), len(arguments)):
            if self._left is not None:
                self._left -= 1
                if self._left < 0:
                    raise MixupError("the run ends here")
            yield function(shared, *call)


def by_key(workspace, table: str, key: str) -> dict[str, dict[str, Any]]:
    rows = rows_of(workspace, table)
    found = {row[key]: row for row in rows}
    assert len(found) == len(rows)
    return found


def test_every_row_is_in_a_pair_or_has_a_reason(workspace):
    add_pool(workspace, [*POOL, PoolRow("blind", 1, 1, embedded=False)])
    counts = mix(workspace, mix_settings())
    targets = by_key(workspace, "targets", "uid")
    assert set(targets) == {row["uid"] for row in rows_of(workspace, "records")}
    pairs = by_key(workspace, "mixture", "pair")
    for row in targets.values():
        is_used = row["reason"] in (None, "variant")
        assert (row["pair"] is not None) == is_used
        assert row["pair"] is None or row["pair"] in pairs
    fates = Counter(row["reason"] or PAIRED for row in targets.values())
    assert fates["unrated"] == sum(row.overall is None for row in POOL)
    assert fates["no_embedding"] == 1
    assert counts[PAIRED] == fates[PAIRED] > 0
    assert counts["pairs"] == len(pairs)
    members = Counter(uid for row in pairs.values() for uid in row["members"])
    assert members == {uid: 1 for uid, row in targets.items() if row["reason"] is None}


def test_a_pair_is_readable_by_the_distillers_own_parser(workspace):
    add_pool(workspace, POOL)
    mix(workspace, mix_settings())
    rated = {row.uid: row for row in POOL}
    for row in rows_of(workspace, "mixture"):
        parsed = parse_distilled(target_text(row["cot"] or "Merged.", row["output"]), row["task"])
        assert parsed.answer == row["output"].strip()
        assert 2 <= len(row["variant_ratings"]) == len(row["degradations"]) <= 20
        assert row["output"] not in row["input"].split("\n\n")
        assert all((rated[uid].overall or 0) >= 8 for uid in row["members"])
        assert (row["rule"] == "fused") == (len(row["members"]) > 1)
        assert row["rating_source"] == "column"
        assert json.loads(row["provenance"])


def test_low_rated_neighbors_serve_as_variants_and_keep_their_own_rating(workspace):
    add_pool(workspace, POOL)
    mix(workspace, mix_settings())
    used = [row for row in rows_of(workspace, "targets") if row["reason"] == "variant"]
    assert used
    low = {row.uid for row in POOL if row.overall == 2.0}
    pairs = by_key(workspace, "mixture", "pair")
    for row in used:
        assert row["uid"] in low
        pair = pairs[row["pair"]]
        assert pair["split"] == row["split"]
        at = [place for place, names in enumerate(pair["degradations"]) if not names]
        assert at
        assert all(pair["variant_ratings"][place] < 4 for place in at)


def test_of_near_duplicate_targets_the_oldest_stays(workspace):
    rows = [PoolRow("Ayr", 1, 1), PoolRow("Oban", 1, 1, near=True), PoolRow("Wick", 2, 1)]
    add_pool(workspace, rows)
    mix(workspace, mix_settings())
    targets = by_key(workspace, "targets", "uid")
    assert targets[rows[0].uid]["reason"] is None
    assert targets[rows[1].uid]["reason"] == "near_duplicate"
    assert targets[rows[1].uid]["duplicate_of"] == rows[0].uid


def test_a_class_by_construction_holds_where_no_rating_does(workspace):
    rated = PoolRow("Ayr", 1, 1, overall=2.0, file="file-2")
    known = PoolRow("Oban", 2, 1, overall=None, file="file-2")
    unknown = PoolRow("Wick", 3, 1, overall=None)
    add_pool(workspace, [rated, known, unknown])
    settings = mix_settings(classes={"file-2": 5})
    mix(workspace, settings, pool=("file-1", "file-2"))
    targets = by_key(workspace, "targets", "uid")
    assert (targets[rated.uid]["rating"], targets[rated.uid]["rating_source"]) == (0, "column")
    found = targets[known.uid]
    assert (found["rating"], found["rating_source"], found["reason"]) == (5, "construction", None)
    assert targets[unknown.uid]["reason"] == "unrated"


def test_licences_and_tasks_that_are_not_wanted_are_left_out(workspace):
    add_pool(workspace, [PoolRow("Ayr", 1, 1), PoolRow("Oban", 2, 1, licence="CC-BY-NC-4.0")])
    mix(workspace, mix_settings(licences=("CC0-1.0",)))
    reasons = Counter(row["reason"] for row in rows_of(workspace, "targets"))
    assert reasons == {None: 1, "licence": 1}
    mix(workspace, mix_settings(tasks=("para",)))
    reasons = Counter(row["reason"] for row in rows_of(workspace, "targets"))
    assert reasons == {"other_task": 2}
    assert rows_of(workspace, "mixture") == []


def test_what_holds_an_evaluation_question_is_in_no_pair(workspace):
    add_pool(workspace, POOL)
    held = {row.uid for row in POOL if row.topic == 2}
    rows = [{"uid": uid, "questions": "q", "kind": "exact"} for uid in sorted(held)]
    table = pa.Table.from_pylist(rows, schema=TABLES["contamination"].file_schema)
    writer = Committer(workspace, token=1, run="r", tables=["contamination"])
    writer.add(write_by_bucket(workspace, "contamination", table))
    writer.commit()
    cells = cell_settings(curate=CurateConfig(cell_rows=4000), questions="q")
    mix(workspace, mix_settings(cells=cells))
    targets = by_key(workspace, "targets", "uid")
    reasons = {targets[uid]["reason"] for uid in held}
    assert reasons == {"contaminated", "unrated"}
    pairs = rows_of(workspace, "mixture")
    assert not held & {uid for row in pairs for uid in row["members"]}
    variants = [one["uid"] for row in pairs for one in json.loads(row["provenance"])["variants"]]
    assert not held & set(variants)


def outcome(path, cell_rows: int, buckets: int, runner) -> list[list[str]]:
    made = make_workspace(path, buckets=buckets)
    add_pool(made, POOL)
    mix(made, mix_settings(cell_rows=cell_rows), runner=runner)
    return [sorted(map(str, rows_of(made, name))) for name in ("mixture", "targets")]


def test_neither_order_nor_buckets_change_a_pair(tmp_path):
    first = outcome(tmp_path / "a", 4000, 1, Shuffled(1))
    assert first == outcome(tmp_path / "b", 4000, 5, Shuffled(2))
    cells = outcome(tmp_path / "c", 20, 1, Shuffled(3))
    assert cells == outcome(tmp_path / "d", 20, 4, Shuffled(4))


@pytest.mark.parametrize("ends_at", [1, 4, 7, 9, 11])
def test_a_run_that_ends_anywhere_is_gone_on_with(tmp_path, ends_at):
    whole = outcome(tmp_path / "a", 20, 3, Shuffled(1))
    made = make_workspace(tmp_path / "b", buckets=3)
    add_pool(made, POOL)
    with pytest.raises(MixupError, match="the run ends here"):
        mix(made, mix_settings(cell_rows=20), runner=Shuffled(2, ends_at))
    mix(made, mix_settings(cell_rows=20), runner=Shuffled(3), run="s")
    found = [sorted(map(str, rows_of(made, name))) for name in ("mixture", "targets")]
    assert found == whole


def test_once_more_does_no_cell_and_a_new_row_only_its_own(workspace):
    add_pool(workspace, POOL)
    first = mix(workspace, mix_settings(cell_rows=12))
    assert first["cells"] == first["cells_done"] > 2
    before = by_key(workspace, "mixture", "pair")
    again = mix(workspace, mix_settings(cell_rows=12), run="s")
    assert (again["cells_done"], again["pairs"]) == (0, first["pairs"])
    add_pool(workspace, [PoolRow("Thurso", 3, 9, file="file-2")])
    third = mix(workspace, mix_settings(cell_rows=12), pool=("file-1", "file-2"), run="t")
    assert 0 < third["cells_done"] < third["cells"]
    assert set(before) & set(by_key(workspace, "mixture", "pair"))


def test_items_of_text_become_pairs_and_no_article_is_in_two_splits(workspace, tmp_path):
    write_articles(tmp_path / "a.jsonl", 30)
    files = text_files(tmp_path / "a.jsonl")
    cut(workspace, files)
    embed_items(workspace)
    items = item_files(files)
    settings = mix_settings(items=frozenset(items), classes=dict.fromkeys(items, 5))
    counts = mix(workspace, settings, pool=items)
    pairs = rows_of(workspace, "mixture")
    assert counts["pairs"] == len(pairs) > 30
    assert {row["task"] for row in pairs} == {"qa", "mcq", "tfq", "cs", "para"}
    assert {row["rating_source"] for row in pairs} == {"construction"}
    splits: dict[str, set[str]] = {}
    for row in pairs:
        for found in row["articles"]:
            splits.setdefault(found, set()).add(row["split"])
    assert len(splits) > 20
    assert all(len(found) == 1 for found in splits.values())
    assert len(set.union(*splits.values())) > 1
