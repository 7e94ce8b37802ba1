"""The stage on Ray: tasks tokenize, the driver commits, and the set is that of one process."""

import json
from pathlib import Path

import pytest
from made_pool import in_process
from tiny_tokenizer import save_tokenizer

from mixup.models.tokenizing import Encoding
from mixup.stages.examples import example_files
from mixup.stages.run import RunContext, on_ray
from mixup.stages.tokenize import tokenize
from mixup.training.tokens import TokenRows
from mixup.workspace import ensure_workspace


@pytest.mark.usefixtures("ray_cluster")
def test_a_set_made_on_ray_is_the_one_made_in_one_process(tmp_path: Path):
    model = str(save_tokenizer(tmp_path / "model"))
    for name in "ab":
        rows = [{"prompt": f"{name} {n}?", "completion": "so " * n} for n in range(200)]
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    source = example_files([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")])
    made = []
    for name, runner in (("here", in_process), ("ray", on_ray)):
        workspace = ensure_workspace(str(tmp_path / name), buckets=4)
        context = RunContext(workspace, "run", 1, commit_interval_s=0.0, runner=runner)
        found = tokenize(context, [source], Encoding(model, "chat", 400))
        made.append((found, TokenRows(workspace, found.name)))
    (here, rows), (there, others) = made
    assert (there.revision, there.rows, there.counts) == (here.revision, here.rows, here.counts)
    assert there.counts["no_answer"] == 2
    assert others.lengths_N.tolist() == rows.lengths_N.tolist()
    assert others[17].input_ids.tolist() == rows[17].input_ids.tolist()
