"""Advantages against a plain reference: missing rewards, lone rewards, equal rewards, any split."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup.errors import ConfigError, ShapeError
from mixup.training.grpo.advantages import (
    FEW_REWARDS,
    NO_REWARD,
    ZERO_VARIANCE,
    group_advantages,
)

NAN = math.nan


def reference(rewards: list[float], group: int, floor: float, least: int = 2) -> list[float]:
    """One group after the other, by the standard library."""
    found = []
    for start in range(0, len(rewards), group):
        own = rewards[start : start + group]
        there = [reward for reward in own if not math.isnan(reward)]
        if len(there) < least:
            found += [0.0] * group
            continue
        mean, deviation = statistics.fmean(there), max(floor, statistics.stdev(there))
        found += [0.0 if math.isnan(reward) else (reward - mean) / deviation for reward in own]
    return found


def test_a_batch_worked_by_hand():
    rewards = [1.0, 0.0, 0.5, NAN, NAN, NAN, 0.7, NAN, 0.3, 0.3, 0.3, 0.3, 0.9, 0.1, 0.5, 0.5]
    found = group_advantages(np.array(rewards), 4, floor=0.1)
    last = 0.4 / math.sqrt((0.4**2 + 0.4**2) / 3)
    expected = [1.0, -1.0, 0.0, 0.0, *[0.0] * 8, last, -last, 0.0, 0.0]
    assert found.values_N == pytest.approx(expected, abs=1e-12)
    assert found.kept_N.tolist() == [True] * 3 + [False] * 5 + [True] * 8
    assert found.reasons[3:8] == (NO_REWARD, NO_REWARD, NO_REWARD, FEW_REWARDS, NO_REWARD)
    assert (found.groups, found.few, found.constant, found.missing) == (4, 1, 1, 4)


def test_groups_of_equal_rewards_are_left_out_on_demand():
    rewards = np.array([0.1 + 0.2, 0.1 + 0.2, 0.1 + 0.2, 1.0, 0.0, NAN])
    kept = group_advantages(rewards, 3, floor=0.1)
    dropped = group_advantages(rewards, 3, floor=0.1, drop_constant=True)
    assert kept.kept_N.tolist() == [True] * 5 + [False]
    assert dropped.kept_N.tolist() == [False] * 3 + [True] * 2 + [False]
    assert dropped.reasons[:3] == (ZERO_VARIANCE,) * 3
    assert kept.values_N.tolist() == dropped.values_N.tolist()
    assert kept.values_N[:3].tolist() == [0.0] * 3  # exactly, not what rounding leaves
    assert kept.constant == dropped.constant == 1


def test_a_deviation_below_the_floor_does_not_blow_up_noise():
    rewards = np.array([0.5, 0.5 + 1e-9])
    assert abs(group_advantages(rewards, 2, floor=0.05).values_N).max() < 1e-7
    assert abs(group_advantages(rewards, 2, floor=1e-12).values_N).max() > 0.7


def test_the_scale_is_of_the_group_of_the_batch_or_none():
    rewards = np.array([0.0, 1.0, 0.4, 0.6])
    none = group_advantages(rewards, 2, scale="none", floor=0.01)
    assert none.values_N == pytest.approx([-0.5, 0.5, -0.1, 0.1])
    batch = group_advantages(rewards, 2, scale="batch", floor=0.01)
    assert batch.values_N == pytest.approx(none.values_N / np.std(rewards, ddof=1))
    group = group_advantages(rewards, 2, scale="group", floor=0.01)
    assert group.values_N == pytest.approx([-(0.5**0.5), 0.5**0.5, -(0.5**0.5), 0.5**0.5])


rewards_of_groups = st.integers(2, 5).flatmap(
    lambda group: st.tuples(
        st.just(group),
        st.integers(1, 4).flatmap(
            lambda groups: st.lists(
                st.one_of(st.just(NAN), st.floats(0, 1, width=32)),
                min_size=group * groups,
                max_size=group * groups,
            )
        ),
    )
)


@given(rewards_of_groups, st.sampled_from([0.01, 0.2]))
def test_equal_to_the_reference(batch: tuple[int, list[float]], floor: float):
    group, rewards = batch
    found = group_advantages(np.array(rewards), group, floor=floor)
    assert found.values_N == pytest.approx(reference(rewards, group, floor), abs=1e-9)
    assert [reason is None for reason in found.reasons] == found.kept_N.tolist()


@given(rewards_of_groups)
def test_whole_groups_do_not_depend_on_the_split_over_ranks(batch: tuple[int, list[float]]):
    group, rewards = batch
    whole = group_advantages(np.array(rewards), group, floor=0.1).values_N
    parts = [
        group_advantages(np.array(rewards[start : start + group]), group, floor=0.1).values_N
        for start in range(0, len(rewards), group)
    ]
    assert np.concatenate(parts).tolist() == whole.tolist()


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(ShapeError, match="not whole groups of 3"):
        group_advantages(np.zeros(4), 3, floor=0.1)
    with pytest.raises(ConfigError, match="floor"):
        group_advantages(np.zeros(4), 2, floor=0.0)
    with pytest.raises(ConfigError, match="cannot need 1"):
        group_advantages(np.zeros(4), 2, floor=0.1, least=1)
