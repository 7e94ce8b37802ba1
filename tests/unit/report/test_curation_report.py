"""Score curation in the report: numbers by hand, plain words, and text that stays text."""

import dataclasses
import json

import pytest
from sample_digest import CURATION, HOSTILE, empty_digest, full_digest

from mixup.errors import ShapeError
from mixup.report import figures
from mixup.report.curation import (
    PAIR_CHARS,
    SIZE_BINS,
    Calibration,
    CellsFound,
    CuratedRatings,
    Duplicates,
    ScoreCuration,
    pair_text,
    size_bins,
)
from mixup.report.curation_charts import (
    calibration_words,
    cells_words,
    curation_charts,
    ratings_words,
)
from mixup.report.curation_figures import size_range
from mixup.report.page import render_page
from mixup.report.wording import visible

BINS = (0,) * 8
CALIBRATION = Calibration(rows=(10, 0, *BINS), predicted=(0.5, 0.0, *BINS), high=(2, 0, *BINS))
MATRIX = tuple((0,) * at + (7,) + (0,) * (5 - at) for at in range(6))


def chart(name: str, **changed):
    charts = {item.id: item for item in curation_charts(dataclasses.replace(CURATION, **changed))}
    return charts[name]


def traces(item) -> list[dict]:
    return json.loads(str(item.figure.to_json()))["data"]


def test_the_calibration_curve_has_a_point_for_each_bin_with_rows():
    item = chart("calibration", calibration=CALIBRATION)
    # Ten rows predicted to be high with 0.05 on average, two were: 95 % Wilson 0.0567 to 0.5098.
    (diagonal, curve) = traces(item)
    assert diagonal["x"] == diagonal["y"] == [0, 1]
    assert (curve["x"], curve["y"], curve["customdata"]) == ([0.05], [0.2], [10])
    assert curve["error_y"]["array"] == pytest.approx([0.3098], abs=1e-4)
    assert curve["error_y"]["arrayminus"] == pytest.approx([0.1433], abs=1e-4)
    assert item.rows == (("0.0 to 0.1", "10", "0.050", "0.200", "0.057 to 0.510"),)
    assert "10 rated rows" in item.caption
    assert "Expected calibration error 0.150" in item.caption
    assert CALIBRATION.error == pytest.approx(0.15)


def test_the_threshold_is_named():
    assert "a rating of 3 or more" in chart("calibration", threshold=3).caption


def test_curated_ratings_are_counted_and_colored_by_their_share():
    item = chart("curated")
    (heat,) = traces(item)
    assert heat["text"][1] == ["15", "2,300", "85", "", "", ""]
    assert heat["z"][0][:2] == pytest.approx([0.975, 0.025])
    assert ("1", "2", "85", "3.5 %") in item.rows
    assert "16,640 rated rows" in item.caption


def test_sizes_of_cells():
    assert size_bins([1, 200, 201, 4_000, 4_001], 4_000) == (2, 1, *(0,) * 17, 2)
    assert sum(size_bins(range(1, 8), 7)) == 7
    assert size_range(1, SIZE_BINS, 4_000) == "201 to 400"
    item = chart("cells")
    assert item.rows[19] == ("3,801 to 4,000", "1")
    assert sum(traces(item)[0]["y"]) == 8


def test_without_data_there_is_no_chart():
    assert list(curation_charts(None)) == []
    assert list(curation_charts(ScoreCuration())) == []
    one = dataclasses.replace(CURATION, cells=CellsFound(cells=1, rows=9, most=9, cap=10))
    assert [item.id for item in curation_charts(one)] == ["calibration", "curated"]


def test_every_color_of_the_figures_has_a_dark_form():
    def colors(value: object) -> set[str]:
        if isinstance(value, dict):
            return set().union(*map(colors, value.values()))
        if isinstance(value, list):
            return set().union(*map(colors, value))
        return {value} if isinstance(value, str) and value.startswith("#") else set()

    drawn = [json.loads(str(item.figure.to_json())) for item in curation_charts(CURATION)]
    assert len(drawn) == 3
    assert set().union(*map(colors, drawn)) <= set(figures.DARK)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Calibration(rows=(0,) * 9),
        lambda: CuratedRatings(counts=((0,) * 6,) * 5),
        lambda: CellsFound(sizes=(0,)),
    ],
)
def test_counts_of_another_shape_are_refused(make):
    with pytest.raises(ShapeError):
        make()


def test_a_row_of_a_pair_is_cut_and_says_what_it_lost():
    row = pair_text("u", "x" * (PAIR_CHARS + 5), ["a", "b"])
    assert (len(row.text), row.lost, row.sources) == (PAIR_CHARS, 5, ("a", "b"))
    assert pair_text("u", "short", []).lost == 0


def test_what_became_of_the_ratings_is_said():
    words = ratings_words(full_digest())
    assert words.startswith("15,400 of 16,640 observed ratings could be tested")
    assert "2,044 are suspicious, and 515 of these were replaced" in words


@pytest.mark.parametrize(
    ("rated", "untested", "expected"),
    [
        (0, None, "No row has an observed rating"),
        (9, "1,200 samples are too few", "suspicious: 1,200 samples are too few."),
        (9, None, "no cell has enough rated rows"),
    ],
)
def test_why_no_rating_could_be_flagged_is_said(rated, untested, expected):
    curation = dataclasses.replace(CURATION, ratings=CuratedRatings(rated, MATRIX))
    scores = full_digest().scores
    assert scores is not None
    scores = dataclasses.replace(scores, untested=untested)
    digest = dataclasses.replace(full_digest(), curation=curation, scores=scores)
    assert expected in ratings_words(digest)


def test_why_nothing_can_be_held_against_predictions_is_said():
    assert "No row has an observed rating" in calibration_words(ScoreCuration())
    rated = ScoreCuration(ratings=CuratedRatings(rated=9))
    assert "enough rated neighbors" in calibration_words(rated)


@pytest.mark.parametrize(
    ("cells", "expected"), [(0, "No row has a vector"), (1, "exact"), (2, "next door")]
)
def test_how_neighbors_were_found_is_said(cells, expected):
    assert expected in cells_words(CellsFound(cells=cells, rows=9 * cells))


def test_the_mean_number_of_cells_of_a_row():
    assert CURATION.cells.replication == pytest.approx(1 + 17_000 / 18_244)
    assert CellsFound().replication is None


@pytest.fixture(scope="module")
def html() -> str:
    return render_page(full_digest())


def section(html: str) -> str:
    return html[html.index('<section id="curation">') : html.index('<section id="stages">')]


def test_the_page_shows_all_of_it(html):
    text = " ".join(section(html).split())
    for name in ("noise", "calibration", "curated", "precision", "cells"):
        assert f'id="plot-{name}"' in text
    for statement in (
        "3,890</p> <p>rows in the largest, of 4,000 at most",
        "0.03</p> <p>drift since the cells were fitted, over 1,250 new rows",
        "1.93</p>",
        "3</p> <p>cells done in this run",
        "1,690</p> <p>rows that repeat another to the letter",
        "812</p> <p>near-duplicates",
        "Of 12 near-duplicates it is not known",
        "7 of 812 near-duplicates, a seeded draw",
        "Show 5 more",
        "Similarity 0.951",
        "Similarity not on record",
        "another source",
        "Cut here: 70 more characters",
    ):
        assert statement in text


def test_garbage_in_pairs_is_shown_and_never_obeyed(html):
    found = section(html)
    assert "<script" not in found
    assert "<img" not in found
    assert "javascript:" not in found.replace("&#34;javascript:", "")
    assert "\u202e" not in found
    assert visible(HOSTILE[3]) in found
    assert "{{ 7 * 7 }}" in found


def test_one_cell_is_said_to_be_exact():
    one = CellsFound(cells=1, rows=9, most=9, cap=10)
    curation = dataclasses.replace(CURATION, cells=one, duplicates=Duplicates())
    found = section(render_page(dataclasses.replace(full_digest(), curation=curation)))
    assert "All 9 rows are in one cell, so the neighbors of each row are exact" in found
    assert 'id="plot-cells"' not in found
    assert "No row repeats another." in found


def test_a_drift_that_cannot_be_told_is_no_number():
    cells = dataclasses.replace(CURATION.cells, drift=None, new=12)
    curation = dataclasses.replace(CURATION, cells=cells)
    found = section(render_page(dataclasses.replace(full_digest(), curation=curation)))
    assert "—</p> <p>drift since the cells were fitted: 12 new rows are too few to tell" in found


def test_a_digest_of_an_earlier_version_says_so():
    assert "an earlier version made it" in section(render_page(empty_digest()))
