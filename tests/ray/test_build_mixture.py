"""The mixture job on Ray: rules, nothing to do, more text, and a teacher behind an endpoint."""

import json
import logging
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from chat_server import Reply, Request, chat_server, rates, says
from made_mixture import rows_of, write_articles

from mixup.mixture_config import MixtureConfig
from mixup.operations.report import draw_report, report_location
from mixup.operations.status import status
from mixup.pipelines.build_mixture import build_mixture
from mixup.workspace import open_workspace

ARTICLES = 12


def config(folder: Path, **changed) -> MixtureConfig:
    if not (folder / "a.jsonl").exists():
        write_articles(folder / "a.jsonl", ARTICLES)
    given = {
        "workspace": str(folder / "w"),
        "text": {"paths": [str(folder / "a.jsonl")]},
        "embed": {"model": "bundled:minilm", "actor_cpus": 1.0},
        "commit_interval_s": 0.5,
    }
    return MixtureConfig.model_validate({**given, **changed})


@pytest.mark.usefixtures("ray_cluster")
def test_text_becomes_a_training_set_and_a_rerun_does_nothing(tmp_path, caplog):
    caplog.set_level(logging.INFO, "mixup")
    done = build_mixture(config(tmp_path))
    manifest, folder = done.manifest, Path(done.mixture)
    assert done.is_new
    counts = manifest["counts"]
    assert counts["articles"] == ARTICLES
    assert counts["pairs"] > ARTICLES
    assert sum(manifest["fates"].values()) == counts["rows"]
    stages = {stage["stage"]: stage for stage in manifest["stages"]}
    assert list(stages) == ["segment", "near", "teach", "collect", "embed", "rate", "mix", "leaks"]
    for stage in stages.values():
        assert sum(stage["parts"].values()) == stage["rows_in"]
    written = {
        split: pq.read_table(folder / f"messages/{split}.parquet").num_rows
        for split in ("sft", "rl", "validation", "test")
    }
    assert sum(written.values()) == counts["pairs"]
    by_split = Counter()
    for found in counts["by_task"].values():
        by_split.update(found)
    assert written == dict(by_split)

    workspace = open_workspace(str(tmp_path / "w"))
    assert report_location(workspace) == f"{done.mixture}/report.html"
    assert draw_report(workspace) == (folder / "report.html").read_text(encoding="utf-8")
    found = status(workspace)
    assert (found.mixture, found.pairs) == (done.mixture, counts["pairs"])
    assert found.to_json()["tables"]["mixture"]["rows"] == counts["pairs"]

    caplog.clear()
    again = build_mixture(config(tmp_path))
    assert not again.is_new
    assert again.mixture == done.mixture
    assert "nothing to do" in caplog.text

    # A new file: what was made before stays as it was.
    before = {row["pair"] for row in rows_of(workspace, "mixture")}
    write_articles(tmp_path / "b.jsonl", 2, start=ARTICLES)
    both = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
    more = build_mixture(config(tmp_path, text={"paths": both}, fuse={"share": 0.2}))
    assert more.is_new
    teach = next(stage for stage in more.manifest["stages"] if stage["stage"] == "teach")
    assert teach["rows_in"] < stages["teach"]["rows_in"] / 3
    assert len(before & {row["pair"] for row in rows_of(workspace, "mixture")}) > len(before) / 2


def teacher_and_judge(request: Request, times: int) -> Reply:
    if "Overall rating" in request.prompt:
        return rates(Overall=9)
    if "question" not in request.prompt.partition("BEGIN")[0]:
        return says("I would rather not.")
    if times == 0 and len(request.prompt) % 3 == 0:
        return Reply(429, b"{}")
    return says(
        json.dumps(
            {
                "question": "What is known of the town in this text?",
                "answer": "It is a town on the coast. Its harbour was built by Thomas Reid, and "
                "the bridge was never rebuilt. A market is held there each month.",
            }
        )
    )


@pytest.mark.usefixtures("ray_cluster")
def test_a_model_teaches_a_judge_rates_and_what_fails_has_a_reason(tmp_path):
    with chat_server(teacher_and_judge) as server:
        endpoint = {"type": "endpoint", "base_url": server.base_url, "model": "m"}
        endpoint |= {"backoff_s": 0.01, "retries": 2, "structured": "none"}
        done = build_mixture(
            config(
                tmp_path,
                teacher=endpoint,
                rate={"type": "judge", "engine": endpoint},
                tasks=["qa", "para"],
                max_dropped_share=1.0,
            )
        )
    made = done.manifest["made"]
    assert made["qa"].get("made", 0) > 0
    assert made["para"] == {"prose": sum(made["qa"].values())}
    teach = next(stage for stage in done.manifest["stages"] if stage["stage"] == "teach")
    assert teach["extra"]["outstanding"] == made["para"]["prose"]
    assert teach["extra"]["requests"] >= teach["rows_in"]
    rows = rows_of(open_workspace(str(tmp_path / "w")), "targets")
    assert {row["rating_source"] for row in rows} == {"judge"}
    assert {row["rating"] for row in rows} == {5}
