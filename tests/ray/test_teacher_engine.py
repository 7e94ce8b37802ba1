"""The bundled model as a teacher in a vLLM engine: its yield is told, and nothing is invented."""

from __future__ import annotations

import pytest
from made_mixture import cut, rows_of, teaching, text_files, write_articles

from mixup.lock import acquire
from mixup.mixture_config import EngineTeacher
from mixup.stages.candidates import MADE, teach_state
from mixup.stages.run import RunContext
from mixup.stages.teach import model_teacher, teach_by_model
from mixup.workspace import ensure_workspace

CONFIG = EngineTeacher(
    model="bundled:smollm2",
    max_tokens=160,
    context_tokens=1024,
    engine_gpus=0,
    engine_cpus=1.25,
    batch_rows=8,
)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_cluster")
def test_every_item_that_was_asked_for_is_made_or_has_a_reason(tmp_path):
    workspace = ensure_workspace(str(tmp_path / "w"), buckets=2)
    write_articles(tmp_path / "a.jsonl", 4)
    files = text_files(tmp_path / "a.jsonl")
    cut(workspace, files)
    teacher = model_teacher(CONFIG)
    with acquire(workspace, "taught") as lease:
        context = RunContext(workspace, "taught", lease.token, commit_interval_s=0.2)
        work = teaching(workspace, [file.fingerprint for file in files], teacher)
        counts = teach_by_model(context, teach_state(context, work), work, CONFIG)
    rows = [row for row in rows_of(workspace, "candidates") if row["teacher"] == teacher]
    assert counts.rows_in == len(rows) == 4 * 5
    assert len({row["candidate"] for row in rows}) == len(rows)
    assert all((row["uid"] is None) == (row["reason"] is not None) for row in rows)
    assert counts.parts[MADE] == sum(row["reason"] is None for row in rows)
    assert counts.extra["output_tokens"] > 0
    segments = {row["segment"]: row["text"] for row in rows_of(workspace, "segments")}
    for row in rows:
        if row["task"] == "qa" and row["uid"]:
            numbers = [word for word in row["turns"][1]["content"].split() if word.isdigit()]
            assert all(number in segments[row["segment"]] for number in numbers)
    print(counts.parts)
