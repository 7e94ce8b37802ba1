"""What a digest says of stages and engines."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from mixup.clusters.cells import Cells
from mixup.config import IngestConfig
from mixup.ledger import StageCounts
from mixup.quality.calibration import calibration_counts
from mixup.refresh_config import CurateConfig, RefreshConfig
from mixup.report.digest import StageRow
from mixup.stages.fitted_cells import FittedCells
from mixup.stages.manifests import SPANS_KEPT
from mixup.stages.run import RunContext
from mixup.stages.summary import _engine, _spans, stage_row, stage_rows
from mixup.stages.summary_scores import curation_of
from mixup.stages.survey import Survey
from mixup.stages.survey_scores import ScoreSurvey
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
    assert stage_row(DISTILL) == StageRow(
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


def test_stages_without_work_follow_those_that_ran():
    rows = stage_rows([DISTILL], ["embed", "rate"])
    assert [row.stage for row in rows] == ["distill", "embed", "rate"]
    assert rows[1] == StageRow("embed", None, None, None, None, "nothing to do")


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


# --- score curation ------------------------------------------------------------------------------

CONFIG = RefreshConfig(
    workspace="w",
    ingest=IngestConfig(paths=["x"]),
    curate=CurateConfig(threshold=3, cell_rows=200),
)
CURATE = StageCounts(
    stage="curate",
    unit="records",
    rows_in=9,
    parts={"high": 9},
    extra={"cells": 3, "cells_done": 2},
)
TREE = Cells(np.eye(1, 4), np.zeros(1, np.int32), np.array([-1]), np.array([-1]), similarity=0.6)


def scored() -> Survey:
    survey = Survey(1)
    survey.counts["duplicate"] = 4
    survey.scores = ScoreSurvey(
        counts=Counter(rated=7, tested=5, suspicious=2, replaced=1, placed=300, visits=90)
        + Counter(near_duplicates=6, same_source=3, other_source=2),
        calibration=calibration_counts(np.array([0.25, 0.95]), np.array([True, True])),
        cells=Counter({0: 200, 1: 99, 4: 1}),
    )
    return survey


def test_score_curation_is_told_as_it_was_counted():
    found = curation_of(scored(), CONFIG, [DISTILL, CURATE], ["embed"], None, ())
    assert found.threshold == 3
    assert found.calibration.rows == (0, 0, 1, 0, 0, 0, 0, 0, 0, 1)
    assert found.calibration.error == pytest.approx((0.75 + 0.05) / 2)
    ratings = found.ratings
    assert (ratings.rated, ratings.tested, ratings.suspicious, ratings.replaced) == (7, 5, 2, 1)
    cells = found.cells
    assert (cells.cells, cells.rows, cells.most, cells.cap, cells.done) == (3, 300, 200, 200, 2)
    assert cells.replication == pytest.approx(1.3)
    assert cells.drift is None
    twice = found.duplicates
    assert (twice.exact, twice.near, twice.same_source, twice.other_source) == (4, 6, 3, 2)


def test_no_cell_is_done_where_curation_had_nothing_to_do():
    assert curation_of(scored(), CONFIG, [DISTILL], ["curate"], None, ()).cells.done == 0
    assert curation_of(scored(), CONFIG, [DISTILL], [], None, ()).cells.done is None


def test_drift_is_told_where_enough_rows_came_since_the_fit():
    # At a mean similarity of 0.5 new rows lie a quarter further away than those of the fit.
    fitted = FittedCells("f", TREE, new=1_000, similarity=500.0)

    def cells(found: FittedCells):
        return curation_of(scored(), CONFIG, [CURATE], [], found, ()).cells

    assert cells(fitted).drift == pytest.approx(0.25)
    assert cells(fitted).new == 1_000
    assert cells(replace(fitted, new=999)).drift is None
