"""The figures hold the counts they were given."""

import json

import pytest
from sample_digest import bell

from mixup.report import figures


def test_rating_counts():
    bar = figures.rating_counts((5, 0, 2, 1, 9, 3)).data[0]
    assert list(bar.x) == [0, 1, 2, 3, 4, 5]
    assert list(bar.y) == [5, 0, 2, 1, 9, 3]


def test_quality_shift_shows_shares():
    pool, release = figures.quality_shift((3, 1), (0, 8)).data
    assert list(pool.x) == [0.25, 0.75]
    assert list(pool.y) == [75, 25]
    assert list(release.y) == [0, 100]


def test_a_side_without_rows_has_no_bars():
    pool, release = figures.quality_shift((3, 1), (0, 0)).data
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


def test_every_color_has_a_dark_form():
    figure = figures.quality_shift(bell(4, 9), bell(9, 9))
    marked = figures.unit_histogram(bell(4, 9), unit="samples", mark=0.5)

    def colors(value: object) -> set[str]:
        if isinstance(value, dict):
            return set().union(*map(colors, value.values()))
        if isinstance(value, list):
            return set().union(*map(colors, value))
        return {value} if isinstance(value, str) and value.startswith("#") else set()

    used = colors(json.loads(str(figure.to_json()))) | colors(json.loads(str(marked.to_json())))
    assert used
    assert used <= set(figures.DARK)
