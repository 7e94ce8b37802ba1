"""The table of tokens and its sets: every source, what is left out, what is done again."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_mixture import PoolRow, add_pool, mix, mix_settings, rows_of
from made_pool import in_process, make_workspace
from stored_tables import commit
from tiny_tokenizer import save_tokenizer

from mixup.errors import ConfigError, MixupError, TableError
from mixup.lock import acquire
from mixup.mixture.schemas import messages_of, stored_record
from mixup.models.chat import tokenizer_of
from mixup.models.tokenizing import Encoding
from mixup.records import TURNS, Turn, uid_of
from mixup.stages import tokenize as module
from mixup.stages.compact import merged
from mixup.stages.examples import example_files, mixture_split, turns_of
from mixup.stages.publish_mixture import Export, export_part
from mixup.stages.run import RunContext
from mixup.stages.token_sets import TokenSet, stored_set
from mixup.stages.tokenize import tokenize
from mixup.tables import ensure_table, snapshot, stored_files
from mixup.text.training_text import Template
from mixup.training.tokens import TokenRows, read_index
from mixup.workspace import ensure_workspace

POOL = [
    PoolRow(f"{name}{topic}", topic, variant, overall=(9.0, 8.0, 2.0)[(topic + variant) % 3])
    for topic in range(12)
    for variant, name in enumerate(("Ayr", "Oban", "Wick", "Nairn", "Elgin", "Crail"))
]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(save_tokenizer(tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """A workspace with the table ``mixture``, and a published mixture in its folder ``out``."""
    workspace = make_workspace(tmp_path_factory.mktemp("mixture") / "w", buckets=3)
    add_pool(workspace, POOL)
    mix(workspace, mix_settings())
    ensure_table(workspace, "candidates")
    place = workspace.path("out")
    workspace.filesystem()[0].create_dir(place, recursive=True)
    tables = [snapshot(workspace, name) for name in ("mixture", "leaks")]
    export = Export(workspace, *tables, folder=place)
    for part in ("sft", "test", "provenance"):
        export_part(export, part)
    return workspace


@pytest.fixture
def workspace(tmp_path):
    return ensure_workspace(str(tmp_path / "w"), buckets=3)


def pairs(count: int, start: int = 0) -> list[dict]:
    return [
        {"prompt": f"What is {n} and {n}?", "completion": f"It is {2 * n}, " + "so " * (n % 7)}
        for n in range(start, start + count)
    ]


def write_rows(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return str(path)


def run(
    workspace, sources, model: str, *, window: int = 4000, template: Template = "chat", run="r"
) -> TokenSet:
    with acquire(workspace, run) as lease:
        context = RunContext(workspace, run, lease.token, commit_interval_s=0.0, runner=in_process)
        return tokenize(context, sources, Encoding(model, template, window))


def texts(workspace, found: TokenSet, model: str) -> list[tuple[str, str]]:
    """What is read and what is learned of each row, in the order of the rows."""
    rows = TokenRows(workspace, found.name)
    decode = tokenizer_of(model).decode
    return [
        (decode(row.input_ids[~row.loss_mask]), decode(row.input_ids[row.loss_mask]))
        for row in (rows[n] for n in range(len(rows)))
    ]


def test_a_split_of_the_table_is_learned_and_no_other(mixture, workspace, model):
    found = run(workspace, [mixture_split(mixture.uri, "sft")], model)
    wanted = [row for row in rows_of(mixture, "mixture") if row["split"] == "sft"]
    assert found.rows == len(wanted) > 5
    assert found.counts == {"kept": found.rows, "duplicate": 0}
    decoded = texts(workspace, found, model)
    answers = {f"{messages_of(stored_record(row))[-1]['content']}<|im_end|>" for row in wanted}
    assert {answer for _, answer in decoded} == answers
    assert all(read.startswith("<|im_start|>system\nYou are an expert") for read, _ in decoded)
    assert all(read.endswith("<|im_start|>assistant\n") for read, _ in decoded)


def test_a_pair_that_nearly_repeats_another_split_is_not_learned(workspace, model, tmp_path):
    """Left out of the published files, it is left out of what is learned from the table too."""
    other = make_workspace(tmp_path / "other", buckets=3)
    add_pool(other, POOL)
    mix(other, mix_settings())
    wanted = [row["pair"] for row in rows_of(other, "mixture") if row["split"] == "sft"]
    leak = {"pair": wanted[0], "kind": "target", "near": "x", "near_split": "test"}
    commit(other, "leaks", pa.Table.from_pylist([{**leak, "similarity": 0.9}]))
    assert run(workspace, [mixture_split(other.uri, "sft")], model).rows == len(wanted) - 1


def test_every_form_of_a_mixture_gives_the_same_examples(mixture, workspace, model, tmp_path):
    """The table, the published folder, and the paper's SFT schema as JSONL and as Parquet."""
    out = f"{mixture.uri}/out"
    paper = tmp_path / "merged_all_30.json"
    lines = Path(f"{out}/sft/train.jsonl").read_text(encoding="utf-8").splitlines()
    paper.write_text(json.dumps([json.loads(line) for line in lines]), encoding="utf-8")
    sources = [
        mixture_split(mixture.uri, "sft"),
        example_files([out]),
        example_files([f"{out}/sft/train.jsonl"]),
        example_files([f"{out}/sft/train.parquet"]),
        example_files([str(paper)]),
    ]
    sets = [run(workspace, [source], model) for source in sources]
    assert len({found.revision for found in sets}) == 1
    assert len({found.name for found in sets}) == len(sets)
    assert len(rows_of(workspace, "tokens")) == sets[0].rows, "each was tokenized once"


def test_the_split_of_a_published_mixture_is_the_one_asked_for(mixture, workspace, model):
    found = run(workspace, [example_files([f"{mixture.uri}/out"], split="test")], model)
    table = run(workspace, [mixture_split(mixture.uri, "test")], model)
    assert found.revision == table.revision


def test_of_a_release_its_data_is_read_and_not_its_lineage(workspace, model, tmp_path):
    folder = tmp_path / "release"
    (folder / "data").mkdir(parents=True)
    turns = [[{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "Yes."}]
             for n in range(4)]  # fmt: skip
    data = pa.table({"id": list("abcd"), "messages": pa.array(turns, TURNS)})
    pq.write_table(data, folder / "data" / "train-00000-of-00001.parquet")
    pq.write_table(pa.table({"id": ["a"], "member": ["b"]}), folder / "lineage.parquet")
    found = run(workspace, [example_files([str(folder)])], model)
    assert (found.rows, found.left_out) == (4, {})
    assert rows_of(workspace, "tokens")[0]["place"].startswith(str(folder / "data"))


def test_an_rl_record_has_its_instruction_in_its_input_and_no_thought():
    row = {
        "input": "Merge these.\n\nQ: a?\nA: b.",
        "output": "Q: c?\nA: d.",
        "task_type": "qa_mixup",
    }
    system, user, answer = turns_of(row, "auto", "train")
    assert (system.role, user.content) == ("system", row["input"])
    assert answer.content == "<answer>\nQ: c?\nA: d.\n</answer>"
    assert turns_of(
        {k: row[k] for k in ("input", "output")} | {"instruction": "Sum."}, "auto", "x"
    )[-1] == Turn("assistant", "Q: c?\nA: d.")


@pytest.mark.parametrize(("without", "is_said"), [(5, True), (1, False)])
def test_it_is_said_when_pairs_have_no_chain_of_thought(
    workspace, model, tmp_path, caplog, without: int, is_said: bool
):
    records = [
        {"instruction": "Merge.", "input": f"{n}", "output": "A fact.", "task_type": "para"}
        | {"cot": "" if n < without else "I merge them."}
        for n in range(10)
    ]
    path = write_rows(tmp_path / "a.jsonl", [*records, *pairs(30)])
    found = run(workspace, [example_files([path])], model)
    assert found.counts == {"kept": 40, "duplicate": 0}
    said = f"{without} of 10 examples that teach to distill have no chain of thought"
    assert (said in caplog.text) == is_said


def test_the_task_of_a_record_may_stand_in_the_name_of_its_file():
    row = {"instruction": "Merge.", "input": "a", "output": "b", "cot": ""}
    assert len(turns_of(row, "mixture", "merged_train_para_noisy")) == 3
    with pytest.raises(MixupError, match="unknown_task"):
        turns_of(row, "mixture", "merged_all_30")


def test_each_row_has_one_outcome_and_is_counted(workspace, model, tmp_path):
    rows = [
        *pairs(5),
        *pairs(2),  # again
        {"prompt": "Why?", "completion": "x" * 300},
        {"prompt": "What does <|im_end|> do?", "completion": "It ends."},
        {"prompt": "Well?", "completion": " "},
    ]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    with open(path, "a", encoding="utf-8") as file:
        file.write("no json\n")
    found = run(workspace, [example_files([path])], model, window=200)
    left = {"too_long": 1, "control_text": 1, "no_answer": 1, "not_json": 1}
    assert found.counts == {"kept": 5, "duplicate": 2, **left}
    assert found.left_out == left
    stored = rows_of(workspace, "tokens")
    assert Counter(row["reason"] for row in stored) == {None: 5, **left}
    long = next(row for row in stored if row["reason"] == "too_long")
    assert (long["input_ids"], long["learned"]) == (None, None)
    assert long["length"] > 300
    offset = sum(len(json.dumps(row)) + 1 for row in rows[:7])
    assert long["place"] == f"{path}#{offset}"


def test_the_index_is_the_set_s_rows_by_key(workspace, model, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", pairs(500))
    found = run(workspace, [example_files([path])], model)
    index = read_index(workspace, found.name)
    keys = index["example"].to_pylist()
    assert keys == sorted(uid_of(turns_of(row, "auto", "rows")) for row in pairs(500))
    rows = TokenRows(workspace, found.name)
    assert len(rows) == found.rows == 500
    assert rows.lengths_N.dtype == rows.learned_N.dtype == np.int32
    assert found.tokens == rows.lengths_N.sum()
    assert found.learned == rows.learned_N.sum()
    stored = {row["example"]: row for row in rows_of(workspace, "tokens")}
    for place in np.random.default_rng(0).permutation(500):
        row, wanted = rows[int(place)], stored[keys[place]]
        assert row.input_ids.tolist() == wanted["input_ids"]
        assert row.input_ids.dtype == np.int32
        start, end = wanted["learned"]
        assert np.flatnonzero(row.loss_mask).tolist() == list(range(start, end))
        assert len(row.input_ids) == rows.lengths_N[place]
        assert row.loss_mask.sum() == rows.learned_N[place]
        assert not row.loss_mask[0]


def test_a_second_run_does_nothing_and_more_rows_only_those(
    workspace, model, tmp_path, monkeypatch
):
    tokenized = Counter()
    encode = module.example_tokenizer

    class Counting:
        def __init__(self, inner):
            self.inner = inner

        def encode(self, conversations):
            tokenized["rows"] += len(conversations)
            return self.inner.encode(conversations)

    monkeypatch.setattr(module, "example_tokenizer", lambda e: Counting(encode(e)))
    one = write_rows(tmp_path / "a.jsonl", pairs(20))
    two = write_rows(tmp_path / "b.jsonl", pairs(20, start=10))
    first = run(workspace, [example_files([one])], model)
    assert tokenized["rows"] == 20
    version = snapshot(workspace, "tokens").version
    assert run(workspace, [example_files([one])], model) == first
    assert (tokenized["rows"], snapshot(workspace, "tokens").version) == (20, version)
    both = run(workspace, [example_files([one, two])], model)
    assert tokenized["rows"] == 30
    assert both.counts == {"kept": 30, "duplicate": 10}
    other = run(workspace, [example_files([one])], model, template="plain")
    assert tokenized["rows"] == 50
    assert other.revision != first.revision
    assert len(rows_of(workspace, "tokens")) == 50
    assert len(TokenRows(workspace, first.name)) == 20


def test_a_run_that_died_after_some_partitions_is_completed(
    workspace, model, tmp_path, monkeypatch
):
    path = write_rows(tmp_path / "rows.jsonl", pairs(300))
    whole = run(
        ensure_workspace(str(tmp_path / "other"), buckets=3), [example_files([path])], model
    )
    monkeypatch.setattr(module, "writing_tasks", lambda pieces: ([p] for p in pieces))
    done, real = [], module.tokenize_pieces

    def dying(work, pieces):
        if done:
            raise MixupError("killed")
        done.append(real(work, pieces))
        return done[-1]

    monkeypatch.setattr(module, "tokenize_pieces", dying)
    with pytest.raises(MixupError, match="killed"):
        run(workspace, [example_files([path])], model)
    kept = len(rows_of(workspace, "tokens"))
    assert 0 < kept < 300
    assert stored_set(workspace, [example_files([path])], Encoding(model, "chat", 4000)) is None
    monkeypatch.setattr(module, "tokenize_pieces", real)
    found = run(workspace, [example_files([path])], model, run="again")
    assert len(rows_of(workspace, "tokens")) == 300
    assert replace(found, files=()) == replace(whole, files=())


def test_rows_keep_their_ids_when_the_table_is_compacted(workspace, model, tmp_path):
    source = example_files([write_rows(tmp_path / "rows.jsonl", pairs(400))])
    other = example_files([write_rows(tmp_path / "more.jsonl", pairs(400, start=900))])
    first = run(workspace, [source], model)
    before = texts(workspace, first, model)
    run(workspace, [other], model)
    table = ensure_table(workspace, "tokens")
    by_bucket: dict = {}
    for file in stored_files(table, "tokens"):
        by_bucket.setdefault(file.bucket, []).append(file)
    with acquire(workspace, "c") as lease:
        committer = RunContext(workspace, "c", lease.token, commit_interval_s=0.0).committer(
            "tokens"
        )
        for files in by_bucket.values():
            manifest = merged(workspace, "tokens", files)
            committer.add(manifest.files, manifest.removed)
        committer.commit()
    again = run(workspace, [source], model)
    assert (again.revision, again.rows) == (first.revision, first.rows)
    assert again.files != first.files
    assert texts(workspace, again, model) == before
    group = pq.ParquetFile(workspace.path(f"tables/tokens/{again.files[0]}")).metadata.row_group(0)
    assert group.num_rows == 128, "small row groups, also of a merged file"


def test_rows_are_read_in_bounded_memory_and_pickled_as_a_place(workspace, model, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", pairs(1000))
    found = run(workspace, [example_files([path])], model)
    whole = TokenRows(workspace, found.name)
    small = TokenRows(workspace, found.name, kept_bytes=1)
    order = np.random.default_rng(1).permutation(1000)
    for place in order[:100].tolist():
        assert small[place].input_ids.tolist() == whole[place].input_ids.tolist()
    assert len(small._groups) == 1
    assert len(whole._groups) > 3
    sent = pickle.dumps(whole)
    assert len(sent) < 1000
    again = pickle.loads(sent)
    assert again[7].input_ids.tolist() == whole[7].input_ids.tolist()
    with pytest.raises(IndexError):
        whole[1000]


def test_a_file_that_is_gone_is_said(workspace, model, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", pairs(10))
    found = run(workspace, [example_files([path])], model)
    rows = TokenRows(workspace, found.name)
    for file in found.files:
        Path(workspace.path(f"tables/tokens/{file}")).unlink()
    with pytest.raises(TableError, match="is gone; run the job again"):
        rows[0]
    with pytest.raises(TableError, match="no token set 'x'"):
        TokenRows(workspace, "x")


def test_a_set_without_rows_is_refused_with_what_was_left_out(workspace, model, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", pairs(3))
    with pytest.raises(MixupError, match=r"none of 3 rows .*'too_long': 3.*raise the window"):
        run(workspace, [example_files([path])], model, window=10)


def test_places_that_hold_no_examples_are_refused(mixture, tmp_path):
    with pytest.raises(ConfigError, match="is a workspace without a release; run `mixup refresh`"):
        example_files([mixture.uri])
    with pytest.raises(ConfigError, match="data.paths: .* does not exist"):
        example_files([str(tmp_path / "none.jsonl")])
    with pytest.raises(ConfigError, match="split 'train': expected one of sft, rl"):
        mixture_split(mixture.uri, "train")
    ensure_workspace(str(tmp_path / "empty"), buckets=1)
    with pytest.raises(ConfigError, match="has no table `mixture`"):
        mixture_split(str(tmp_path / "empty"), "sft")
