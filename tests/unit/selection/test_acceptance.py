from dataclasses import replace

import pytest

from mixup.rewards.rubric import Combined
from mixup.selection.acceptance import REJECTIONS, AcceptanceRules, Facts, rejection

RULES = AcceptanceRules(
    min_quality=0.5,
    min_alignment=0.3,
    min_coverage=0.4,
    min_combined=0.6,
    max_copied=0.9,
    max_repetition=0.3,
    max_lost=0.7,
)
VALUES = {"quality": 0.5, "alignment": 0.3, "coverage": 0.4, "format": 1.0}
# Everything exactly at its limit, which passes.
GOOD = Facts(
    reason=None,
    is_cut=False,
    values=VALUES,
    combined=Combined(0.6, {}, ()),
    copied=0.9,
    repetition=0.3,
    lost=0.7,
)


def with_value(name: str, value: float | None) -> Facts:
    return replace(GOOD, values={**VALUES, name: value})


def test_a_sample_at_every_limit_is_accepted():
    assert rejection(GOOD, RULES) is None


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (replace(GOOD, reason="missing_label"), "missing_label"),
        (replace(GOOD, is_cut=True), "cut_off"),
        (with_value("quality", None), "unscored"),
        (with_value("alignment", None), "unscored"),
        (with_value("coverage", None), "unscored"),
        (replace(GOOD, values={}), "unscored"),
        (replace(GOOD, combined=Combined(None, {}, ("format",))), "unscored"),
        (replace(GOOD, copied=0.91), "copied_input"),
        (replace(GOOD, repetition=0.31), "repetitive"),
        (replace(GOOD, lost=0.71), "lost_content"),
        (with_value("quality", 0.49), "low_quality"),
        (with_value("alignment", 0.29), "low_alignment"),
        (with_value("coverage", 0.39), "low_coverage"),
        (replace(GOOD, combined=Combined(0.59, {}, ())), "low_reward"),
    ],
)
def test_each_defect_alone_rejects_with_its_reason(facts, reason):
    assert rejection(facts, RULES) == reason
    assert reason in (*REJECTIONS, "missing_label")


def test_of_several_reasons_the_first_of_the_list_is_given():
    all_bad = replace(
        GOOD,
        values=dict.fromkeys(VALUES, 0.0),
        combined=Combined(0.0, {}, ()),
        copied=1.0,
        repetition=1.0,
    )
    steps = [
        (all_bad, "copied_input"),
        (replace(all_bad, copied=0.0), "repetitive"),
        (replace(all_bad, copied=0.0, repetition=0.0), "low_quality"),
        (replace(all_bad, values={}), "unscored"),
        (replace(all_bad, values={}, is_cut=True), "cut_off"),
        (replace(all_bad, reason="no_think", is_cut=True), "no_think"),
    ]
    for facts, reason in steps:
        assert rejection(facts, RULES) == reason


@pytest.mark.parametrize("name", ["quality", "alignment", "coverage"])
def test_a_value_that_is_not_a_number_never_passes(name):
    assert rejection(with_value(name, float("nan")), RULES) is not None
