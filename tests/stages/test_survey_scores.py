"""What the curation of a few rows, made by hand, says of ratings, cells and duplicates."""

import numpy as np
import pyarrow as pa
import pytest

from mixup.quality.calibration import CALIBRATION_BINS
from mixup.records import TABLES, content_key
from mixup.stages.survey_scores import PAIRS_SHOWN, ScoreSurvey, survey_scores

# Uid, cell, observed, curated, origin, suspicious, predicted, duplicate of, similarity, same source
ROWS = (
    ("a", 0, 5, 5, "own", False, 0.91, None, None, None),
    ("b", 0, 5, 2, "neighbors", True, 0.15, None, None, None),
    ("c", 0, 1, 1, "own", True, 0.11, None, None, None),
    ("d", 1, None, 4, "posterior", None, None, None, None, None),
    ("e", 1, 4, 4, "own", None, None, "a", 0.97, False),
    ("f", 1, None, 4, "posterior", None, None, "d", 1.0, True),
    ("g", 1, None, 4, "posterior", None, None, "d", 0.96, None),
    ("blind", None, 3, None, None, None, None, None, None, None),
)
VISITS = {"a": [1, 2], "b": [], "c": [1], "d": [0], "e": [], "f": [], "g": [], "gone": [0, 2]}
NAMES = (
    "uid",
    "cell",
    "curated_rating",
    "rating_origin",
    "suspicious",
    "predicted",
    "duplicate_of",
    "duplicate_similarity",
    "same_source",
)


def tables(rows) -> tuple[pa.Table, pa.Table, pa.Table]:
    made = [dict(zip(NAMES, (*row[:2], *row[3:]), strict=True)) for row in rows]
    curation = pa.Table.from_pylist(made, schema=TABLES["curation"].file_schema)
    ratings = [{"uid": row[0], "rating": row[2]} for row in rows]
    ratings = pa.Table.from_pylist(
        [*ratings, {"uid": "elsewhere", "rating": 5}], schema=TABLES["ratings"].file_schema
    )
    visits = [{"uid": uid, "visits": cells} for uid, cells in VISITS.items()]
    return curation, ratings, pa.Table.from_pylist(visits, schema=TABLES["places"].file_schema)


def survey(rows=ROWS, threshold: int = 4) -> ScoreSurvey:
    return survey_scores(*tables(rows), threshold)


def test_ratings_are_held_against_what_became_of_them():
    found = survey()
    expected = np.zeros((6, 6), int)
    expected[5, 5] = expected[5, 2] = expected[1, 1] = expected[4, 4] = 1
    assert found.curated_CC.tolist() == expected.tolist()  # "blind" has no curated rating
    names = ("rated", "tested", "suspicious", "replaced")
    assert [found.counts[name] for name in names] == [5, 3, 2, 1]


@pytest.mark.parametrize(("threshold", "high"), [(1, [2, 1]), (4, [1, 1]), (5, [1, 1])])
def test_predictions_are_held_against_observed_ratings(threshold, high):
    found = survey(threshold=threshold).calibration
    assert found.rows_B.tolist() == [0, 2, 0, 0, 0, 0, 0, 0, 0, 1]
    assert found.high_B.tolist() == [0, high[0], 0, 0, 0, 0, 0, 0, 0, high[1]]
    assert found.predicted_B[1] == pytest.approx(0.26, abs=1e-6)


def test_cells_and_visits_are_counted():
    found = survey()
    assert found.cells == {0: 3, 1: 4}
    assert (found.counts["placed"], found.counts["visits"]) == (7, 4)


def test_duplicates_are_counted_by_source_and_drawn():
    found = survey()
    names = ("near_duplicates", "same_source", "other_source")
    assert [found.counts[name] for name in names] == [3, 1, 1]
    drawn = {
        (pair.uid, pair.duplicate_of, round(pair.similarity or 0, 2), pair.same_source)
        for pair in found.pairs
    }
    assert drawn == {("e", "a", 0.97, False), ("f", "d", 1.0, True), ("g", "d", 0.96, None)}


def test_a_pool_of_an_earlier_version_has_only_what_it_kept():
    old = [(*row[:4], None, None, None, row[7], None, None) for row in ROWS]
    found = survey(old)
    assert found.calibration.rows_B.sum() == 0
    assert found.counts["near_duplicates"] == 3
    assert (
        found.counts["same_source"] == found.counts["other_source"] == found.counts["tested"] == 0
    )


def test_nothing_has_nothing():
    found = survey([])
    assert +found.counts == {}
    assert not found.cells
    assert found.curated_CC.sum() == 0
    assert len(found.calibration.rows_B) == CALIBRATION_BINS


def plain(found: ScoreSurvey) -> tuple:
    counts = found.calibration
    bins = [counts.rows_B.tolist(), counts.millionths_B.tolist(), counts.high_B.tolist()]
    return +found.counts, bins, found.curated_CC.tolist(), found.cells, found.pairs


def test_parts_add_up_to_the_whole_in_any_order():
    parts = [survey(ROWS[start::3]) for start in range(3)]
    whole = plain(survey())
    for order in ([0, 1, 2], [2, 0, 1]):
        merged = ScoreSurvey()
        for at in order:
            merged.merge(parts[at])
        assert plain(merged) == whole


def test_the_draw_of_pairs_is_bounded_and_depends_on_the_uids_alone():
    rows = [
        (f"u{at}", 0, None, 4, "posterior", None, None, "a", 0.96, True)
        for at in range(4 * PAIRS_SHOWN)
    ]
    merged = ScoreSurvey()
    for row in reversed(rows):
        merged.merge(survey([row]))
    assert len(merged.pairs) == PAIRS_SHOWN
    assert merged.pairs == survey(rows).pairs
    ranked = sorted((row[0] for row in rows), key=lambda uid: content_key("duplicate", uid))
    assert [pair.uid for pair in merged.pairs] == ranked[:PAIRS_SHOWN]
