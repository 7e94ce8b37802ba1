"""What a digest says of stages and engines."""

from mixup.ledger import StageCounts
from mixup.report.digest import StageRow
from mixup.stages.run import SPANS_KEPT, RunContext
from mixup.stages.summary import _engine, _spans, _stage_row
from mixup.workspace import ensure_workspace

DISTILL = StageCounts(
    stage="distill",
    unit="samples",
    rows_in=12,
    parts={"parsed": 9, "rejected:cut_off": 3},
    dropped=("rejected:cut_off",),
    seconds=20.0,
    extra={"tokens": 600, "clusters": 4},
)


def test_a_stage_is_told_with_its_tokens_and_parts():
    assert _stage_row(DISTILL) == StageRow(
        stage="distill",
        rows_in=12,
        rows_out=9,
        dropped=3,
        seconds=20.0,
        unit="samples",
        tokens=600,
        parts={"parsed": 9, "rejected:cut_off": 3},
        extra={"clusters": 4},
    )


def test_spans_are_those_of_the_run_and_give_the_engines_use(tmp_path):
    workspace = ensure_workspace(str(tmp_path / "w"), buckets=1)
    workspace.write_json("runs/one/spans.json", [["generate", 5.0, 15.0], ["format", 14.0, 16.0]])
    spans = _spans(RunContext(workspace, "one", 1, ()))
    use = _engine(spans, [DISTILL])
    assert use is not None
    assert (use.share, use.tokens_per_second, use.overlap) == (0.5, 30.0, 1.0)
    assert _spans(RunContext(workspace, "two", 1, ())) == []
    assert _engine([], [DISTILL]) is None
    assert _engine(spans, []) is None


def test_no_share_of_the_stage_where_spans_were_left_out():
    use = _engine([("generate", float(at), at + 0.5) for at in range(SPANS_KEPT)], [DISTILL])
    assert use is not None
    assert use.share is None
    assert use.window_share is not None
