"""Weights, and the combined reward that keeps its parts."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup.errors import ConfigError, ShapeError
from mixup.rewards.rubric import COMPONENTS, Rubric, combine

PAPER = {"quality": 0.5, "alignment": 0.4, "format": 0.1}


def test_the_paper_weights_by_hand():
    combined = combine({"quality": 0.8, "alignment": 0.5, "format": 1.0}, PAPER)
    assert combined.value == pytest.approx(0.7)
    assert combined.breakdown == pytest.approx({"quality": 0.4, "alignment": 0.2, "format": 0.1})
    assert combined.missing == ()


@pytest.mark.parametrize("gap", [None, math.nan])
def test_a_missing_component_leaves_no_value(gap):
    combined = combine({"quality": gap, "alignment": 0.5, "format": 1.0}, PAPER)
    assert combined.value is None
    assert combined.missing == ("quality",)
    assert combined.breakdown["quality"] is None


def test_an_absent_component_is_missing_and_one_without_weight_is_not():
    assert combine({"format": 1.0}, {"format": 1.0, "quality": 1.0}).missing == ("quality",)
    assert combine({"format": 1.0}, {"format": 2.0, "quality": 0.0}).value == 1.0


def test_task_weights_replace_and_are_renormalized():
    rubric = Rubric(PAPER, {"para": {"quality": 4, "format": 1}})
    assert rubric.for_task("qa") == pytest.approx({**PAPER, "coverage": 0})
    assert rubric.for_task("para") == {"quality": 0.8, "alignment": 0, "format": 0.2, "coverage": 0}
    assert Rubric().for_task("mcq") == pytest.approx({**PAPER, "coverage": 0})


@given(
    st.fixed_dictionaries({name: st.floats(0, 1) for name in COMPONENTS}),
    st.fixed_dictionaries({name: st.floats(0.01, 10) for name in COMPONENTS}),
)
def test_the_value_lies_between_its_parts_and_sums_them(values, weights):
    combined = combine(values, weights)
    assert combined.value is not None
    assert min(values.values()) - 1e-9 <= combined.value <= max(values.values()) + 1e-9
    parts = [part for part in combined.breakdown.values() if part is not None]
    assert sum(parts) == pytest.approx(combined.value)


@pytest.mark.parametrize(
    "weights", [{"fluency": 1}, {"format": -1}, {"format": 0}, {}, {"format": math.nan}]
)
def test_weights_that_mean_nothing_are_refused(weights):
    with pytest.raises(ConfigError):
        Rubric(weights)
    with pytest.raises(ConfigError):
        Rubric(PAPER, {"qa": weights})


@pytest.mark.parametrize("value", [-0.1, 1.1, math.inf])
def test_values_outside_the_range_are_refused(value):
    with pytest.raises(ShapeError, match="format"):
        combine({"format": value}, {"format": 1.0})
