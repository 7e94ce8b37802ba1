"""The cut that reaches a precision: by hand, its invariants, and the tiers that it makes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup.errors import ConfigError, ShapeError
from mixup.quality.threshold import cut_of, margin_at, precision_curve, tiers


def test_curve_by_hand():
    # 10 rows of .95, 10 of .7, 80 of .2: kept from .2 on they are .325 in the mean.
    curve = precision_curve(np.array([0.2, 0.95, 0.7]), np.array([80, 10, 10]))
    assert curve.cuts == (0.2, 0.7, 0.95)
    assert curve.rows == (100, 20, 10)
    assert curve.precision == pytest.approx((0.325, 0.825, 0.95))
    assert curve.total == 100


@pytest.mark.parametrize(
    ("precision", "cut"), [(0.3, 0.2), (0.325, 0.2), (0.33, 0.7), (0.825, 0.7), (0.9, 0.95)]
)
def test_the_lowest_cut_that_reaches_a_precision(precision, cut):
    curve = precision_curve(np.array([0.2, 0.95, 0.7]), np.array([80, 10, 10]))
    assert cut_of(curve, precision - 1e-9) == cut


def test_a_precision_that_no_row_reaches_is_refused_with_what_can_be_had():
    curve = precision_curve(np.array([0.2, 0.95]), np.array([80, 1_234]))
    with pytest.raises(ConfigError, match=r"1,234 surest rows .* 0\.950 of them; ask for less"):
        cut_of(curve, 0.96)


def test_without_a_row_nothing_is_reached():
    curve = precision_curve(np.empty(0), np.empty(0, int))
    assert (curve.cuts, curve.total) == ((), 0)
    with pytest.raises(ConfigError, match="no row has a quality"):
        cut_of(curve, 0.5)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 9)), min_size=1, max_size=30))
def test_precision_rises_with_the_cut_and_is_not_below_it(rows):
    quality, count = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    curve = precision_curve(quality, count)
    assert np.all(np.diff(curve.precision) >= -1e-9)
    assert np.all(np.array(curve.precision) >= np.array(curve.cuts) - 1e-9)
    kept = [count[quality >= cut].sum() for cut in curve.cuts]
    assert curve.rows == tuple(kept)
    assert curve.rows[0] == curve.total == count.sum()


def test_the_margin_leaves_room_on_both_sides():
    assert margin_at(0.5, 0.05) == 0.05
    assert margin_at(0.98, 0.05) == pytest.approx(0.01)
    assert margin_at(0.02, 0.05) == pytest.approx(0.01)


def test_tiers_change_only_beyond_the_margin():
    quality = np.array([0.46, 0.54, 0.44, 0.56, 0.46, 0.54, np.nan])
    previous = np.array(["high", "low", "high", "low", None, "unrated", "high"], dtype=object)
    found = tiers(quality, previous, keep_at=0.5, margin=0.05)
    assert found.tolist() == ["high", "low", "low", "high", "low", "high", "unrated"]
    assert tiers(quality[:2], None, keep_at=0.5, margin=0.05).tolist() == ["low", "high"]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ShapeError):
        precision_curve(np.array([0.1, 0.2]), np.array([1]))
    with pytest.raises(ShapeError):
        precision_curve(np.array([np.nan]), np.array([1]))
