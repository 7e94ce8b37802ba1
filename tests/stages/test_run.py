import logging
import threading

import pytest
from made_pool import make_workspace

from mixup.commits import Committer, Completion, WrittenFile
from mixup.stages import manifests as streaming
from mixup.stages.manifests import SPANS_KEPT, Manifest, commit_stream
from mixup.stages.run import OUTSTANDING, RunContext, StageState, stage_state
from mixup.tables import ensure_table

FILE = WrittenFile("records", "bucket=3/a.parquet", 3, 10, 1234, '{"numRecords": 10}')


def completion(**changed) -> Completion:
    given = {"stage": "rate", "fingerprint": "f", "inputs": {"a": 3, "b": 1}, "counts": {}}
    return Completion(**{**given, "run": "r", **changed})


def state(last: Completion | None, inputs: dict | None = None) -> StageState:
    return StageState("rate", "ratings", "f", inputs or {"a": 3, "b": 1}, last)


def test_a_stage_that_never_ended_is_not_current():
    assert not state(None).is_current
    assert state(None).consumed("a") == -1


def test_a_stage_is_current_when_nothing_that_decides_it_changed():
    assert state(completion()).is_current
    assert not state(completion(fingerprint="g")).is_current
    assert not state(completion(), {"a": 4, "b": 1}).is_current
    assert not state(completion(inputs={"a": 3})).is_current


def test_what_was_consumed_counts_under_the_same_fingerprint_only():
    assert state(completion()).consumed("a") == 3
    assert state(completion()).consumed("c") == -1
    assert state(completion(fingerprint="g")).consumed("a") == -1


def test_what_a_run_left_is_taken_up_by_the_next_one():
    left = state(completion(counts={"rated": 3, OUTSTANDING: 2}))
    assert not left.is_current
    assert left.consumed("a") == -1  # it may lie in a bucket that has not changed since
    assert state(completion(counts={"rated": 3, OUTSTANDING: 0})).is_current


def test_a_completion_holds_the_versions_that_were_read(tmp_path):
    workspace = make_workspace(tmp_path / "w")
    ensure_table(workspace, "records")
    found = stage_state(
        workspace, "rate", "ratings", inputs=["records", "occurrences"], decides=["x", 1]
    )
    assert dict(found.inputs) == {"records": 0, "occurrences": -1}
    assert found.last is None
    with_end = found.completion("run-1", {"rated": 2})
    Committer(workspace, token=1, run="run-1", tables=["ratings"]).complete("ratings", with_end)
    again = stage_state(
        workspace, "rate", "ratings", inputs=["records", "occurrences"], decides=["x", 1]
    )
    assert again.last == with_end
    assert again.is_current
    other = stage_state(
        workspace, "rate", "ratings", inputs=["records", "occurrences"], decides=["x", 2]
    )
    assert not other.is_current
    ensure_table(workspace, "occurrences")
    later = stage_state(
        workspace, "rate", "ratings", inputs=["records", "occurrences"], decides=["x", 1]
    )
    assert not later.is_current


def test_the_pool_is_a_set_of_files(tmp_path):
    workspace = make_workspace(tmp_path / "w")
    first = RunContext(workspace, "r", 1, ("a", "b"))
    assert first.pool_key == RunContext(workspace, "other", 2, ("b", "a")).pool_key
    assert first.pool_key != RunContext(workspace, "r", 1, ("a",)).pool_key


@pytest.mark.parametrize(
    "manifest",
    [
        Manifest(),
        Manifest([FILE], {"records": ["x", "y"]}, {"rows": 3}, [("generate", 1.5, 2.5)]),
    ],
)
def test_a_manifest_survives_a_block(manifest):
    table = manifest.to_table()
    assert table.num_rows == 1
    found = Manifest.from_json(table["manifest"][0].as_py())
    assert list(found.files) == list(manifest.files)
    assert {k: list(v) for k, v in found.removed.items()} == dict(manifest.removed)
    assert found.counts == manifest.counts
    assert list(found.spans) == list(manifest.spans)


class Spy(Committer):
    """What a committer is given, in order."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def add(self, files, removed=None):
        self.calls.append((list(files), dict(removed or {})))

    def commit(self):
        self.calls.append("commit")


def test_a_stream_is_committed_as_it_comes_and_summed():
    first_came = threading.Event()

    class Waited(Spy):
        def add(self, files, removed=None):
            super().add(files, removed)
            first_came.set()

    spy = Waited()

    def manifests():
        yield Manifest([FILE], {}, {"rows": 2, "good": 1}, [("a", 0.0, 1.0)])
        assert first_came.wait(timeout=20)
        yield Manifest([], {"records": ["x"]}, {"rows": 3}, [("b", 1.0, 2.0)])

    spans: list = []
    totals = commit_stream(manifests(), spy, stage="rate", unit="rows", spans=spans)
    assert totals == {"rows": 5, "good": 1}
    assert spy.calls == [([FILE], {}), ([], {"records": ["x"]}), "commit"]
    assert spans == [("a", 0.0, 1.0), ("b", 1.0, 2.0)]


def test_an_empty_stream_commits_nothing_new():
    spy = Spy()
    assert commit_stream((), spy, stage="rate", unit="rows") == {}
    assert spy.calls == ["commit"]


def test_the_spans_that_are_kept_are_bounded():
    spans: list = []
    many = [("a", 0.0, 1.0)] * (SPANS_KEPT // 4)
    manifests = [Manifest(spans=many)] * 20
    commit_stream(manifests, Spy(), stage="s", unit="rows", spans=spans)
    assert SPANS_KEPT <= len(spans) <= SPANS_KEPT + len(many)


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(streaming.time, "monotonic", lambda: now[0])

    class Slow(Spy):
        def add(self, files, removed=None):
            now[0] += 10.0

    manifests = [Manifest(counts={"rows": 7})] * 10
    with caplog.at_level(logging.INFO, "mixup.stages.manifests"):
        commit_stream(manifests, Slow(), stage="embed", unit="rows")
    assert caplog.messages == [
        "embed: 21 rows so far",
        "embed: 42 rows so far",
        "embed: 63 rows so far",
    ]
