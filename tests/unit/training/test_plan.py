"""The plan of batches: what every step trains, whatever the number of ranks."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup.errors import ConfigError, ShapeError
from mixup.training.plan import BatchPlan, PlanSettings, seeded_order

WINDOW = 64
SETTINGS = PlanSettings(window=WINDOW, batch=8, micro=2, epochs=2)


def lengths(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, WINDOW + 1, rows).astype(np.int32)


def rows_in(micros) -> list[int]:
    return [row for micro in micros for sequence in micro for row in sequence]


def epoch_rows(plan, epoch):
    steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
    return [row for step in steps for row in plan.rows_of(step).tolist()]


@pytest.mark.parametrize("packing", [False, True])
@given(rows=st.integers(1, 200), batch=st.integers(1, 20), seed=st.integers(0, 5))
def test_every_row_is_trained_once_an_epoch(packing, rows, batch, seed):
    settings = replace(SETTINGS, batch=batch, packing=packing, seed=seed, group_batches=2)
    plan = BatchPlan(lengths(rows), settings)
    assert plan.steps == 2 * plan.steps_per_epoch
    assert sorted(epoch_rows(plan, 0)) == sorted(epoch_rows(plan, 1)) == list(range(rows))


@pytest.mark.parametrize("packing", [False, True])
@given(rows=st.integers(1, 100), world=st.integers(1, 7), micro=st.integers(1, 4))
def test_the_global_batch_is_the_same_for_any_world(packing, rows, world, micro):
    plan = BatchPlan(lengths(rows), replace(SETTINGS, micro=micro, packing=packing))
    for step in range(plan.steps):
        one = plan.micro_batches(step, rank=0, world=1)
        many = [plan.micro_batches(step, rank=rank, world=world) for rank in range(world)]
        assert len({len(own) for own in many}) == 1, "every rank takes part in every forward pass"
        dealt = [m for own in many for m in own if m]
        assert sorted(dealt) == sorted(one), "the very same micro-batches, dealt out"
        assert sorted(rows_in(one)) == sorted(plan.rows_of(step).tolist())
        assert all(len(m) <= micro for m in one)


def test_micro_batches_that_do_not_come_out_even_end_with_empty_ones():
    plan = BatchPlan(np.full(5, 10), replace(SETTINGS, batch=5, micro=1))
    shares = [plan.micro_batches(0, rank=rank, world=3) for rank in range(3)]
    assert sorted([len(m) for m in own] for own in shares) == [[1, 0], [1, 1], [1, 1]]
    assert sorted(rows_in([m for own in shares for m in own])) == list(range(5))


def test_ranks_get_about_as_many_tokens():
    plan = BatchPlan(lengths(4000), replace(SETTINGS, batch=256, micro=1))
    for step in range(3):
        held = [
            sum(lengths(4000)[rows_in(plan.micro_batches(step, rank=rank, world=4))])
            for rank in range(4)
        ]
        assert max(held) < 1.05 * min(held)


@pytest.mark.parametrize("packing", [False, True])
def test_the_plan_is_decided_by_the_seed_alone(packing):
    settings = replace(SETTINGS, packing=packing)
    plan, again = (BatchPlan(lengths(100), settings) for _ in range(2))
    other = BatchPlan(lengths(100), replace(settings, seed=7))
    order = [plan.rows_of(step).tolist() for step in range(plan.steps)]
    assert order == [again.rows_of(step).tolist() for step in range(plan.steps)]
    assert order[0] != other.rows_of(0).tolist()
    assert plan.fingerprint == again.fingerprint != other.fingerprint


def test_the_fingerprint_tells_other_rows():
    same = BatchPlan(lengths(100), SETTINGS)
    moved = lengths(100)
    moved[[3, 4]] = moved[4] + 1 if moved[4] < WINDOW else 1
    assert BatchPlan(moved, SETTINGS).fingerprint != same.fingerprint
    assert BatchPlan(lengths(100), SETTINGS, np.arange(99)).fingerprint != same.fingerprint


def test_an_epoch_has_another_order_than_the_one_before():
    for packing in (False, True):
        plan = BatchPlan(lengths(100), replace(SETTINGS, packing=packing))
        assert epoch_rows(plan, 0) != epoch_rows(plan, 1)


def test_a_step_is_a_position_that_needs_no_other():
    """A resumed run asks for step k first; another may have gone through all before it."""
    gone_through = BatchPlan(lengths(100), SETTINGS)
    before = [gone_through.micro_batches(step, rank=1, world=2) for step in range(20)]
    for step in (19, 13, 0):
        fresh = BatchPlan(lengths(100), SETTINGS)
        assert fresh.micro_batches(step, rank=1, world=2) == before[step]
        assert gone_through.micro_batches(step, rank=1, world=2) == before[step]


def test_the_order_is_the_same_on_every_machine_and_version():
    """Written down once: a resumed run must find the order that it left."""
    # by hand, with integers of Python: three rounds of splitmix64 over 42, 1, 0, then two a place
    assert seeded_order(8, 42, 1, 0).tolist() == [2, 7, 1, 3, 0, 6, 4, 5]


def test_an_order_is_an_even_permutation():
    orders = np.array([seeded_order(10, seed, 0) for seed in range(4000)])
    assert (np.sort(orders, axis=1) == np.arange(10)).all()
    firsts = np.bincount(orders[:, 0], minlength=10)
    assert abs(firsts - 400).max() < 5 * np.sqrt(400 * 0.9)
    follows = (orders[:, 0] < orders[:, 1]).mean()
    assert abs(follows - 0.5) < 5 * 0.5 / np.sqrt(4000)


def test_grouping_by_length_pads_less_and_leaves_batches_mixed():
    def padding(settings):
        plan = BatchPlan(lengths(2000), settings)
        held = spent = 0
        for step in range(plan.steps_per_epoch):
            for micro in plan.micro_batches(step, rank=0, world=1):
                sizes = lengths(2000)[rows_in([micro])]
                held, spent = held + sizes.sum(), spent + sizes.max() * len(sizes)
        return spent / held

    assert padding(replace(SETTINGS, batch=16, micro=4)) < 1.05
    sizes = lengths(2000)
    plan = BatchPlan(sizes, replace(SETTINGS, batch=16, group_batches=1000))
    means = [sizes[plan.rows_of(step)].mean() for step in range(plan.steps_per_epoch)]
    assert np.corrcoef(means, np.arange(len(means)))[0, 1] ** 2 < 0.1


def test_packing_fills_the_windows():
    plan = BatchPlan(lengths(2000), replace(SETTINGS, packing=True))
    assert plan.fill > 0.93
    assert plan.tokens == lengths(2000).sum()
    for step in range(plan.steps_per_epoch):
        for micro in plan.micro_batches(step, rank=0, world=1):
            assert all(lengths(2000)[sequence].sum() <= WINDOW for sequence in micro)


def test_the_rest_of_an_epoch_is_its_last_step_and_no_shorter_rows_than_others():
    sizes = lengths(2003)
    plan = BatchPlan(sizes, replace(SETTINGS, batch=50, epochs=40))
    rests = [plan.rows_of((e + 1) * plan.steps_per_epoch - 1) for e in range(40)]
    assert {len(rest) for rest in rests} == {3}
    mean = sizes[np.concatenate(rests)].mean()
    assert abs(mean - sizes.mean()) < 4 * sizes.std() / np.sqrt(120)


@pytest.mark.parametrize(
    ("epochs", "max_steps", "steps"),
    [(1, None, 13), (2, None, 26), (0.5, None, 7), (2, 5, 5), (1, 99, 13), (0.01, None, 1)],
)
def test_the_run_has_the_steps_that_are_asked_for(epochs, max_steps, steps):
    settings = replace(SETTINGS, epochs=epochs, max_steps=max_steps)
    plan = BatchPlan(lengths(100), settings)
    assert (plan.steps_per_epoch, plan.steps) == (13, steps)
    with pytest.raises(ConfigError, match=f"step {steps}"):
        plan.rows_of(steps)


def test_some_rows_can_be_trained_alone():
    wanted = np.array([3, 5, 8, 13])
    plan = BatchPlan(lengths(20), SETTINGS, wanted)
    assert sorted(epoch_rows(plan, 0)) == wanted.tolist()


def test_what_cannot_be_planned_is_refused():
    with pytest.raises(ConfigError, match="no rows"):
        BatchPlan(np.array([], np.int32), SETTINGS)
    with pytest.raises(ShapeError, match="rows of 3 to 65 tokens"):
        BatchPlan(np.array([3, 65]), SETTINGS)
    with pytest.raises(ShapeError, match="rows of 0 to 3"):
        BatchPlan(np.array([3, 0]), SETTINGS)
    for bad in ({"batch": 0}, {"micro": 0}, {"epochs": 0}, {"max_steps": 0}, {"window": 0}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            BatchPlan(lengths(3), replace(SETTINGS, **bad))
    with pytest.raises(ConfigError, match="rank 2 of 2"):
        BatchPlan(lengths(3), SETTINGS).micro_batches(0, rank=2, world=2)


def test_what_goes_through_one_forward_pass_is_not_in_the_fingerprint():
    lengths = np.array([3, 4, 5, 6, 7])
    plans = [BatchPlan(lengths, PlanSettings(window=8, batch=4, micro=micro)) for micro in (1, 2)]
    assert plans[0].fingerprint == plans[1].fingerprint
    assert all(
        plans[0].rows_of(step).tolist() == plans[1].rows_of(step).tolist()
        for step in range(plans[0].steps)
    )
    other = BatchPlan(lengths, PlanSettings(window=8, batch=2))
    assert other.fingerprint != plans[0].fingerprint
