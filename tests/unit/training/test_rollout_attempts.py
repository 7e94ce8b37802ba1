"""The table of rollouts: of each step one attempt counts, whatever died when."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup.commits import Committer
from mixup.training.grpo.rollouts import (
    TABLE,
    RewardPart,
    RolloutRow,
    counting_attempts,
    counting_rollouts,
    last_attempt,
    rollout_table,
    write_rollouts,
)
from mixup.workspace import Workspace, ensure_workspace


def row(step: int, prompt: str = "p", index: int = 0, reward: float | None = 0.5) -> RolloutRow:
    return RolloutRow(
        step=step,
        prompt=prompt,
        index=index,
        version=step,
        task="qa",
        question="What?",
        text="That.",
        tokens=3,
        finish="stop",
        seed=7,
        logprob=-0.5,
        rewards=[RewardPart("format", 1.0), RewardPart("quality", None, "no_vector")],
        reward=reward,
        advantage=math.nan,
        reason="no_reward",
    )


def test_a_new_attempt_replaces_earlier_ones_from_its_first_step_on():
    first = [(step, 1) for step in range(1, 8)]
    second = [(step, 2) for step in range(5, 7)]
    assert counting_attempts(first) == {step: 1 for step in range(1, 8)}
    # Step 7 of the first attempt trained a model that is gone; the second has not reached it yet.
    assert counting_attempts(first + second) == {1: 1, 2: 1, 3: 1, 4: 1, 5: 2, 6: 2}
    third = [(step, 3) for step in range(3, 9)]
    assert counting_attempts(first + second + third) == {1: 1, 2: 1, **{s: 3 for s in range(3, 9)}}
    assert counting_attempts([]) == {}


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=5))
def test_a_run_that_ends_has_one_attempt_for_each_step(attempts: list[tuple[int, int]]):
    """Attempts go on from a checkpoint within what is done; the last one goes to the end."""
    pairs, done = [], 0
    for number, (start, steps) in enumerate([*attempts, (3, 20)], 1):
        begin = min(start, done + 1)
        pairs += [(step, number) for step in range(begin, begin + steps)]
        done = begin + steps - 1 if steps else done  # what later attempts can go on from
    last = max(step for step, attempt in pairs if attempt == len(attempts) + 1)
    found = counting_attempts(pairs)
    assert sorted(step for step in found if step <= last) == list(range(1, last + 1))
    assert all((step, attempt) in set(pairs) for step, attempt in found.items())


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return ensure_workspace(str(tmp_path / "w"), buckets=4)


def test_rows_come_back_from_the_attempt_that_counts(workspace: Workspace):
    committer = Committer(workspace, token=1, run="job", tables=[TABLE], interval_s=0)
    assert last_attempt(workspace, "a") == 0
    committer.add([write_rollouts(workspace, "a", 1, [row(1), row(2, reward=0.1)])])
    committer.add([write_rollouts(workspace, "a", 2, [row(2, reward=0.9), row(2, index=1)])])
    committer.add([write_rollouts(workspace, "b", 5, [row(1)])])
    committer.commit()
    assert (last_attempt(workspace, "a"), last_attempt(workspace, "b")) == (2, 5)
    found = counting_rollouts(workspace, "a", ["step", "index", "attempt", "reward"])
    rows = sorted(tuple(one.values()) for one in found.to_pylist())
    assert [one[:3] for one in rows] == [(1, 0, 1), (2, 0, 2), (2, 1, 2)]
    assert [one[3] for one in rows] == pytest.approx([0.5, 0.9, 0.5])


def test_what_is_missing_is_null_and_keeps_its_reason():
    [found] = rollout_table("a", 1, [row(1, reward=None)]).to_pylist()
    assert found["reward"] is None
    assert found["advantage"] is None
    assert found["rewards"][1] == {"component": "quality", "value": None, "reason": "no_vector"}
