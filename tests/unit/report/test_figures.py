"""The figures hold the counts they were given."""

import json

import pytest
from sample_digest import bell

from mixup.report import figures
from mixup.report.timeline import SpanRow


def test_rating_counts():
    bar = figures.rating_counts((5, 0, 2, 1, 9, 3)).data[0]
    assert list(bar.x) == [0, 1, 2, 3, 4, 5]
    assert list(bar.y) == [5, 0, 2, 1, 9, 3]


def test_quality_shift_shows_shares():
    pool, release = figures.shift((3, 1), (0, 8), "x").data
    assert list(pool.x) == [0.25, 0.75]
    assert list(pool.y) == [75, 25]
    assert list(release.y) == [0, 100]


def test_a_side_without_rows_has_no_bars():
    pool, release = figures.shift((3, 1), (0, 0), "x").data
    assert len(pool.y) == 2
    assert not release.y


def test_size_counts_are_sorted():
    bar = figures.size_counts({5: 1, 2: 7}).data[0]
    assert (list(bar.x), list(bar.y)) == ([2, 5], [7, 1])
    assert figures.size_counts({}).data[0].y in ((), None)


def test_unit_histogram_marks_a_threshold():
    figure = figures.unit_histogram(bell(10, 50), unit="samples", mark=0.6)
    assert sum(figure.data[0].y) == sum(bell(10, 50))
    assert figure.data[0].x[0] == pytest.approx(0.025)
    assert figure.layout["shapes"][0]["x0"] == 0.6
    assert not figures.unit_histogram(bell(10, 50), unit="samples").layout["shapes"]


def test_lanes_keep_their_order_and_their_spans():
    spans = [SpanRow("generate:1", 0.0, 2.0), SpanRow("generate:1", 3.0, 3.5)]
    figure = figures.work_lanes({"generate:1": spans, "format": [SpanRow("format", 1.0, 1.25)]})
    first, second = figure.data
    assert (list(first.base), list(first.x), list(first.y)) == ([0.0, 3.0], [2.0, 0.5], [0, 0])
    assert list(second.y) == [1]
    assert first.marker.color != second.marker.color
    assert list(figure.layout["yaxis"]["ticktext"]) == ["generate:1", "format"]


def test_names_of_lanes_carry_no_markup():
    name = "<a href='javascript:1'>x</a>" * 9
    text = str(figures.work_lanes({name: [SpanRow(name, 0, 1)]}).to_json())
    assert "<a" not in text
    assert "javascript:1'" not in text


def test_every_color_has_a_dark_form():
    figure = figures.shift(bell(4, 9), bell(9, 9), "x")
    marked = figures.unit_histogram(bell(4, 9), unit="samples", mark=0.5)

    def colors(value: object) -> set[str]:
        if isinstance(value, dict):
            return set().union(*map(colors, value.values()))
        if isinstance(value, list):
            return set().union(*map(colors, value))
        return {value} if isinstance(value, str) and value.startswith("#") else set()

    lanes = {name: [SpanRow(name, 0, 1)] for name in ("generate", "format")}
    curve = figures.precision_curve([0.1, 0.6], [0.4, 0.8], [1.0, 0.3], mark=0.6)
    drawn = (figure, marked, figures.work_lanes(lanes), curve)
    used = set().union(*(colors(json.loads(str(found.to_json()))) for found in drawn))
    assert used
    assert used <= set(figures.DARK)


def test_rating_noise_has_one_field_for_each_pair_of_classes_that_occur():
    figure = figures.rating_noise((0, 3, 5), ((0.8, 0.1, 0.1), (0.2, 0.6, 0.2), (0.0, 0.3, 0.7)))
    drawn = json.loads(str(figure.to_json()))
    (heat,) = drawn["data"]
    assert heat["x"] == heat["y"] == ["0", "3", "5"]
    layout = drawn["layout"]
    assert layout["xaxis"]["type"] == layout["yaxis"]["type"] == "category"
    assert layout["yaxis"]["autorange"] == "reversed"
