"""Prompt sets from files and from the table, in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_pool import in_process

from mixup.errors import MixupError
from mixup.lock import acquire
from mixup.models.chat import render_chat
from mixup.records import PROMPT_SETS
from mixup.stages.examples import AS_PAIRS, ExampleFiles, example_files
from mixup.stages.prompt_set import PromptSet, items_of, make_prompts
from mixup.stages.run import RunContext
from mixup.text.prompts import INSTRUCTIONS, build_messages
from mixup.training.grpo.prompts import PromptRows
from mixup.workspace import Workspace, ensure_workspace

MODEL = "bundled:smollm2"
ITEMS = ["Q: What has Ayr?\nA: A harbour.", "Q: Where is it?\nA: In Ayr."]
ANSWER = "Q: What is found in Ayr?\nA: A harbour."


def row(number: int, **changed: str) -> dict[str, str]:
    given = "\n\n".join([INSTRUCTIONS["qa"], *ITEMS, f"Q: And {number}?\nA: No."])
    found = {"id": f"{number:032x}", "input": given, "output": ANSWER, "task_type": "qa_mixup"}
    return found | changed


def source_of(folder: Path, rows: list[dict[str, str]]) -> ExampleFiles:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return example_files([str(path)], form="mixture", split="rl", parts=AS_PAIRS)


def made(workspace: Workspace, source: ExampleFiles, max_tokens: int = 600) -> PromptSet:
    with acquire(workspace, "r") as lease:
        context = RunContext(workspace, "r", lease.token, runner=in_process)
        return make_prompts(context, source, MODEL, max_tokens)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return ensure_workspace(str(tmp_path / "w"), buckets=1)


def test_rows_are_what_distillation_would_ask(workspace, tmp_path):
    found = made(workspace, source_of(tmp_path, [row(number) for number in range(3)]))
    assert (found.rows, found.left_out) == (3, {})
    rows = PromptRows(workspace, found.name)
    assert len(rows) == 3
    for number in range(3):
        one = rows[number]
        items = [*ITEMS, f"Q: And {number}?\nA: No."]
        assert one.messages == build_messages(items, "qa")
        assert one.items == tuple(items)
        assert (one.pair, one.task, one.target) == (f"{number:032x}", "qa", ANSWER)
    (part,) = (tmp_path / "w" / PROMPT_SETS / found.name).glob("*.parquet")
    tokens = pq.read_table(part)["tokens"].to_pylist()
    assert tokens == [len(render_chat(MODEL, rows[number].messages)) for number in range(3)]


def test_what_is_left_out_is_counted(workspace, tmp_path):
    bad = [row(1, input="word " * 900), row(2, output=" "), {"id": "x"}, row(3)]
    found = made(workspace, source_of(tmp_path, bad))
    assert found.rows == 1
    assert found.left_out == {"prompt_too_long": 1, "empty_output": 1, "unknown_schema": 1}


def test_a_set_that_is_there_is_taken(workspace, tmp_path, monkeypatch):
    source = source_of(tmp_path, [row(1)])
    first = made(workspace, source)

    def write_prompts(*given: object) -> None:
        raise RuntimeError("it is there")

    monkeypatch.setattr("mixup.stages.prompt_set.write_prompts", write_prompts)
    assert made(workspace, source) == first
    other = source_of(tmp_path, [row(1), row(2)])
    with pytest.raises(RuntimeError, match="it is there"):  # another content has to be written
        made(workspace, other)


def test_nothing_to_ask_is_said(workspace, tmp_path):
    source = source_of(tmp_path, [row(1)])
    with pytest.raises(MixupError, match=r"none of 1 pairs can be asked: .*prompt_too_long.: 1"):
        made(workspace, source, max_tokens=10)


def test_a_published_mixture_is_entered_by_its_split(workspace, tmp_path):
    folder = tmp_path / "mixture"
    for name in ("rl/train", "rl/test"):
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(row(7 if "test" in name else 8)) + "\n")
        table = [row(7 if "test" in name else 8)]
        pq.write_table(pa.Table.from_pylist(table), folder / f"{name}.parquet")
    pq.write_table(pa.table({"pair": ["x"]}), folder / "provenance.parquet")
    for split, number in (("rl", 8), ("test", 7)):
        source = example_files([str(folder)], form="mixture", split=split, parts=AS_PAIRS)
        found = made(workspace, source)
        assert PromptRows(workspace, found.name)[0].pair == f"{number:032x}"


def test_numbers_are_no_keys(workspace, tmp_path):
    rows = [row(1, id="1"), row(2, id="1")]
    found = made(workspace, source_of(tmp_path, rows))
    keys = {PromptRows(workspace, found.name)[number].pair for number in range(2)}
    assert len(keys) == 2
    assert all(len(key) == 32 for key in keys)


def test_items_are_parted_at_blank_lines():
    assert items_of("a\nb\n\n  c \n \n<answer>") == ["a\nb", "c", "&lt;answer&gt;"]
