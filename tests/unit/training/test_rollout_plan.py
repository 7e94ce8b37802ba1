import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup.errors import ConfigError
from mixup.training.grpo.prompts import RolloutPlan


def plan(**changed) -> RolloutPlan:
    values = {"rows": 23, "prompts": 4, "minibatches": 2, "seed": 1, "set": "s"}
    return RolloutPlan(**{**values, **changed})


def of_step(found: RolloutPlan, step: int, world: int = 1) -> list[int]:
    parts = [found.minibatches_of(step, rank=rank, world=world) for rank in range(world)]
    return [row for part in parts for rows in part for row in rows]


def test_an_epoch_asks_each_prompt_at_most_once_and_leaves_less_than_a_step():
    found = plan()
    assert (found.steps_per_epoch, found.steps) == (5, 5)
    asked = [row for step in range(found.steps) for row in of_step(found, step)]
    assert len(asked) == len(set(asked)) == 20


def test_the_next_epoch_has_another_order():
    found = plan(epochs=2.0)
    assert found.steps == 10
    first, second = (
        [row for step in steps for row in of_step(found, step)]
        for steps in (range(5), range(5, 10))
    )
    assert first != second
    assert len(set(second)) == 20


@given(st.integers(0, 4), st.sampled_from([1, 2]), st.integers(0, 2**40))
def test_the_ranks_together_ask_the_same_prompts_in_each_update(step, world, seed):
    found = plan(seed=seed, prompts=8, rows=43, minibatches=2)
    alone = found.minibatches_of(step, rank=0, world=1)
    ranks = [found.minibatches_of(step, rank=rank, world=world) for rank in range(world)]
    for update, rows in enumerate(alone):
        together = [row for rank in ranks for row in rank[update]]
        assert together == rows


def test_a_part_of_the_rows_is_the_same_part_in_each_epoch():
    found = plan(max_rows=8, epochs=2.0)
    halves = [
        {row for step in steps for row in of_step(found, step)} for steps in (range(2), range(2, 4))
    ]
    assert halves[0] == halves[1]
    assert len(halves[0]) == 8
    assert set(np.arange(8)) != halves[0]  # drawn


def test_the_fingerprint_tells_plans_apart():
    changes = [{}, {"seed": 2}, {"set": "t"}, {"prompts": 8}, {"minibatches": 1}, {"max_rows": 9}]
    assert len({plan(**change).fingerprint for change in changes}) == len(changes)


def test_what_cannot_be_planned_is_refused():
    with pytest.raises(ConfigError, match="there are 3 prompts, and one step asks 4"):
        plan(rows=3)
    with pytest.raises(ConfigError, match="do not come out even in 3 minibatches"):
        plan(minibatches=3)
    with pytest.raises(ConfigError, match="2 prompts of an update do not come out even for 3"):
        plan().minibatches_of(0, rank=0, world=3)
    with pytest.raises(ConfigError, match="step 5 of 5"):
        plan().minibatches_of(5, rank=0, world=1)
