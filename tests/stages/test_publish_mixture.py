"""The folder of a mixture: each pair once in the files of its split, in the paper's schemas."""

import json
from collections import Counter

import pyarrow.parquet as pq
import pytest
from made_mixture import PoolRow, add_pool, mix, mix_settings, rows_of
from made_pool import make_workspace

from mixup.mixture.schemas import read_record
from mixup.mixture.splits import SPLITS
from mixup.stages.mixture_survey import MixtureSurvey, Surveyed, pairs_by_task, survey_bucket
from mixup.stages.publish_mixture import SCHEMAS, Export, export_part, parts_of_export
from mixup.tables import ensure_table, snapshot

POOL = [
    PoolRow(f"{name}{topic}", topic, variant, overall=(9.0, 8.0, 2.0)[(topic + variant) % 3])
    for topic in range(12)
    for variant, name in enumerate(("Ayr", "Oban", "Wick", "Nairn", "Elgin", "Crail"))
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    workspace = make_workspace(tmp_path_factory.mktemp("mixture") / "w", buckets=3)
    add_pool(workspace, POOL)
    mix(workspace, mix_settings())
    ensure_table(workspace, "candidates")
    return workspace


def exported(workspace, folder: str) -> dict[str, tuple[int, str]]:
    place = workspace.path(folder)
    workspace.filesystem()[0].create_dir(place, recursive=True)
    export = Export(workspace, snapshot(workspace, "mixture"), snapshot(workspace, "leaks"), place)
    return {
        name: found
        for part in parts_of_export()
        for name, found in export_part(export, part).items()
    }


def lines(workspace, name: str) -> list[dict]:
    with open(f"{workspace.uri}/{name}", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_each_pair_is_in_the_files_of_its_split_alone(made):
    files = exported(made, "out")
    pairs = {row["pair"]: row for row in rows_of(made, "mixture")}
    for split in SPLITS:
        wanted = {key for key, row in pairs.items() if row["split"] == split}
        rows = lines(made, f"out/messages/{split}.jsonl")
        assert {row["id"] for row in rows} == wanted
        assert len(rows) == len(wanted) == files[f"messages/{split}.jsonl"][0]
    assert {row["id"] for row in lines(made, "out/sft/train.jsonl")} == {
        key for key, row in pairs.items() if row["split"] == "sft"
    }
    provenance = pq.read_table(f"{made.uri}/out/provenance.parquet")
    assert Counter(provenance["pair"].to_pylist()) == dict.fromkeys(pairs, 1)


def test_the_records_have_the_papers_fields_and_read_back(made):
    exported(made, "out2")
    pairs = {row["pair"]: row for row in rows_of(made, "mixture")}
    sft, rl = lines(made, "out2/sft/test.jsonl"), lines(made, "out2/rl/test.jsonl")
    assert {frozenset(row) for row in sft} == {frozenset(SCHEMAS["sft"].names)}
    assert {frozenset(row) for row in rl} == {frozenset(SCHEMAS["rl"].names)}
    for row in sft:
        pair, record = pairs[row["id"]], read_record(row)
        assert (record.task, record.output, record.input) == (
            *(pair["task"], pair["output"]),
            pair["input"],
        )
        assert row["cot"] == pair["cot"]
    for row in rl:
        pair = pairs[row["id"]]
        assert row["input"] == f"{pair['instruction']}\n\n{pair['input']}"
        assert row["task_type"] == f"{pair['task']}_mixup"
    for row in lines(made, "out2/messages/test.jsonl"):
        assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]
        assert row["messages"][2]["content"].rstrip().endswith("</answer>")


def test_parquet_and_jsonl_hold_the_same_and_the_hashes_tell(made):
    first, second = exported(made, "out3"), exported(made, "out4")
    assert first == second
    for name in ("sft/train", "rl/train", "messages/rl"):
        table = pq.read_table(f"{made.uri}/out3/{name}.parquet")
        assert table.to_pylist() == lines(made, f"out3/{name}.jsonl")


def test_the_survey_adds_up_whatever_the_order_of_the_buckets(made):
    tables = {name: snapshot(made, name) for name in ("mixture", "leaks", "targets", "candidates")}
    shared = Surveyed(made, tables, "t", ("qa",))
    surveys = [MixtureSurvey(), MixtureSurvey()]
    for survey, order in zip(surveys, ([0, 1, 2], [2, 0, 1]), strict=True):
        for bucket in order:
            survey.add(survey_bucket(shared, bucket))
    assert surveys[0] == surveys[1]
    survey, pairs = surveys[0], rows_of(made, "mixture")
    assert survey.pairs.total() == len(pairs)
    assert sum(sum(found.values()) for found in pairs_by_task(survey, ("qa",)).values()) == len(
        pairs
    )
    assert survey.fates.total() == len(POOL)
    variants = sum(len(row["variant_ratings"]) for row in pairs)
    assert survey.classes.total() >= variants
    assert sum(int(size) * count for size, count in survey.of("size").items()) == variants
