"""The arithmetic of spans, on values worked by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_digest import SPANS

from mixup.report.timeline import (
    SpanRow,
    Timeline,
    engine_use,
    lanes,
    length,
    merge,
    overlap,
    timeline_of,
    waits,
)

INTERVALS = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 10)).map(lambda pair: (pair[0], sum(pair))),
    max_size=12,
)


@pytest.mark.parametrize(
    ("given_", "gap", "expected"),
    [
        ([], 0, []),
        ([(5, 7), (1, 2)], 0, [(1, 2), (5, 7)]),
        ([(1, 4), (2, 3)], 0, [(1, 4)]),
        ([(1, 4), (3, 6), (6, 8)], 0, [(1, 8)]),
        ([(1, 4), (5, 6), (9, 9)], 1, [(1, 6), (9, 9)]),
        ([(4, 1), (0, math.nan), (2, math.inf), (7, 8)], 0, [(7, 8)]),
    ],
)
def test_merge(given_, gap, expected):
    assert merge(given_, gap) == expected


def test_a_second_covered_twice_counts_once():
    assert length([(0, 4), (2, 6), (10, 11)]) == 7
    assert overlap([(0, 4), (8, 12)], [(3, 9), (3, 5)]) == 2


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([(2, 3), (5, 8)], [2, 2, 2]),
        ([(0, 4), (4, 10)], []),
        ([], [10]),
        ([(-5, 1), (9, 20)], [8]),
        ([(20, 30)], [10]),
    ],
)
def test_waits_of_a_window(intervals, expected):
    assert waits(intervals, 0, 10) == expected


@given(INTERVALS, INTERVALS)
def test_lengths_agree_with_counting_seconds(first, second):
    def seconds(intervals):
        return {at for start, end in intervals for at in range(start, end)}

    assert length(first) == len(seconds(first))
    assert overlap(first, second) == len(seconds(first) & seconds(second))
    assert sum(waits(first, 0, 60)) == 60 - len(seconds(first))


def test_engine_use_of_two_engines():
    use = engine_use(SPANS, 125.0, 500_000)
    assert use is not None
    assert (use.engines, use.window, use.busy, use.longest_wait) == (2, 100.0, 160.0, 30.0)
    assert use.share == pytest.approx(160 / 250)
    assert use.window_share == pytest.approx(0.8)
    # quality and coverage cover 1041-1045, encode 1098-1102; engine 1 ends at 1100.
    assert (use.reward_busy, use.overlap) == (8.0, 6.0)
    assert use.overlap_share == pytest.approx(0.75)
    assert use.tokens_per_second == 4_000


def test_an_engine_that_comes_late_waits():
    use = engine_use([("generate:0", 0, 10), ("generate:1", 4, 10)], None, None)
    assert use is not None
    assert use.longest_wait == 4
    assert use.share is None
    assert use.tokens_per_second is None


def test_no_engine_no_use():
    assert engine_use([], 10.0, 5) is None
    assert engine_use([("format", 0, 1)], 10.0, 5) is None


def test_a_span_recorded_twice_counts_once():
    use = engine_use([("generate", 0, 10), ("generate", 0, 10)], 20.0, 1)
    assert use is not None
    assert use.share == 0.5


def test_lanes_begin_with_engines():
    spans = [("format", 0, 1), ("generate:1", 2, 3), ("generate:0", 1, 2), ("bad", 3, 2)]
    assert list(lanes(spans)) == ["generate:0", "generate:1", "format"]


def test_the_timeline_starts_at_zero():
    found = timeline_of([("format", 105.5, 106.0), ("generate", 100.25, 104.0)])
    assert found == Timeline(
        (SpanRow("generate", 0.0, 3.75), SpanRow("format", 5.25, 5.75)), resolution=0.0
    )
    assert timeline_of([]) == Timeline()


def test_many_spans_become_few_without_losing_their_reach():
    spans = [(f"lane:{at % 3}", float(at), at + 0.5) for at in range(9_000)]
    found = timeline_of(spans, limit=100)
    assert 3 <= len(found.spans) <= 100
    assert found.resolution >= 2.5  # the wait between two spans of a lane
    assert max(span.end for span in found.spans) == 8_999.5
    few = timeline_of(spans[:90], limit=100)
    assert (len(few.spans), few.resolution) == (90, 0.0)


def test_a_lane_is_never_left_out():
    spans = [(f"lane:{at}", 0.0, 1.0) for at in range(30)]
    assert len(timeline_of(spans, limit=5).spans) == 30
