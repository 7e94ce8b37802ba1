"""Tracing a pair of a mixture, and the rows and articles that it was made from."""

from __future__ import annotations

import json
from pathlib import Path

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

from mixup.commits import Committer, write_by_bucket
from mixup.operations.status import status
from mixup.operations.status_text import status_lines
from mixup.operations.trace import trace
from mixup.operations.trace_text import trace_lines
from mixup.records import TABLES
from mixup.stages.publish_mixture import POINTER
from mixup.workspace import Workspace


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Workspace:
    folder = tmp_path_factory.mktemp("pairs")
    workspace = make_workspace(folder / "w", buckets=4)
    write_articles(folder / "a.jsonl", 8)
    files = text_files(folder / "a.jsonl")
    cut(workspace, files)
    embed_items(workspace)
    add_pool(workspace, [PoolRow(f"Ayr {n}", n, 0, overall=(9.0, 2.0)[n % 2]) for n in range(6)])
    items = item_files(files)
    settings = mix_settings(classes=dict.fromkeys(items, 5), items=frozenset(items))
    mix(workspace, settings, pool=("file-1", *items))
    return workspace


def a_pair(workspace: Workspace, *, of_text: bool) -> dict:
    pairs = rows_of(workspace, "mixture")
    return next(row for row in pairs if (row["articles"] != row["members"]) is of_text)


def test_a_pair_of_text_names_target_variants_article_and_split(made):
    pair = a_pair(made, of_text=True)
    found = trace(made, pair["pair"][:12])
    assert (found["kind"], found["key"]) == ("pair", pair["pair"])
    assert (found["split"], found["task"]) == (pair["split"], pair["task"])
    assert found["output"] == pair["output"]
    assert [member["uid"] for member in found["members"]] == pair["members"]
    assert len(found["variants"]) == len(pair["variant_ratings"])
    assert {one["article"] for one in found["articles"]} == set(pair["articles"])
    (first, *_) = found["articles"]
    path = first["place"]["path"]
    assert path.endswith("a.jsonl")
    line = Path(path).read_text().splitlines()[first["place"]["line"] - 1]
    assert json.loads(line)["title"] == first["title"]
    assert found["left_out"] is None
    text = "\n".join(trace_lines(found))
    assert f"pair {pair['pair']}" in text
    assert f"a.jsonl, line {first['place']['line']}" in text
    assert all(variant["uid"] in text for variant in found["variants"])


def test_a_pair_of_the_pool_names_its_row(made):
    pair = a_pair(made, of_text=False)
    found = trace(made, pair["pair"])
    assert found["articles"] == []
    (member, *_) = found["members"]
    assert member["occurrences"][0]["path"] == "/file-1"
    assert "\n".join(trace_lines(found)).count(member["uid"]) >= 1


def test_a_record_says_in_which_pair_it_is_or_why_in_none(made):
    for row in rows_of(made, "targets"):
        found = trace(made, row["uid"])
        assert found["mixture"]["pair"] == row["pair"]
        text = "\n".join(trace_lines(found))
        assert (row["pair"] or "left out: ") in text


def test_a_leak_is_said_of_the_pair_and_of_its_row(made):
    pair = a_pair(made, of_text=True)
    leak = {
        **{"pair": pair["pair"], "kind": "target", "near": "f" * 32, "near_split": "test"},
        "similarity": 0.875,
    }
    rows = pa.Table.from_pylist([leak], schema=TABLES["leaks"].file_schema)
    writer = Committer(made, token=9, run="r", tables=["leaks"], interval_s=60.0)
    writer.add(write_by_bucket(made, "leaks", rows))
    writer.commit()
    found = trace(made, pair["pair"])
    assert found["left_out"]["near"] == "f" * 32
    said = f"its target nearly repeats that of pair {'f' * 32} in the split test (88%"
    assert said in "\n".join(trace_lines(found))
    assert said in "\n".join(trace_lines(trace(made, pair["members"][0])))


def test_rows_of_earlier_states_of_a_file_are_told_and_their_reasons_are_not(tmp_path):
    workspace = make_workspace(tmp_path / "w", buckets=2)
    bad = json.dumps({"title": "x", "text": ""})
    for count in (3, 5):  # the file is written anew between two nights
        write_articles(tmp_path / "a.jsonl", count)
        with (tmp_path / "a.jsonl").open("a") as file:
            file.write(f"{bad}\n" * count)
        cut(workspace, text_files(tmp_path / "a.jsonl"), run=f"r{count}")
    found = status(workspace)
    assert found.tables["quarantine"].rows == 8
    assert found.reasons["quarantine"] == {"empty_article": 5}
    states, rows = found.superseded
    assert states == 2  # of the file, and of the items that were made of it
    first: dict[str, int] = {}
    for file in sorted(rows_of(workspace, "files"), key=lambda file: file["ingested_at"]):
        first.setdefault(file["path"], file["rows"])
    assert rows == sum(first.values()) > 6
    text = "\n".join(status_lines(found))
    assert f"{rows:,} of the rows were read of 2 file(s) in an earlier state" in text
    assert workspace.read_json(POINTER) is None
