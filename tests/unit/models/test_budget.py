import asyncio

import pytest

from mixup.models.budget import Budget, Prices


def test_the_price_of_tokens():
    assert Prices(2.0, 8.0).cost(1_000_000, 250_000) == pytest.approx(4.0)
    assert Prices().cost(10**9, 10**9) == 0.0


def test_requests_are_counted_to_the_last():
    async def run() -> None:
        budget = Budget(Prices(), max_requests=3, max_cost=None)
        admitted = await asyncio.gather(*(budget.admit(1, 1, is_retry=i > 1) for i in range(9)))
        assert admitted == [True] * 3 + [False] * 6
        assert budget.is_spent
        assert (budget.usage.requests, budget.usage.retries) == (3, 1)

    asyncio.run(run())


def test_a_reservation_holds_back_the_others_until_it_is_settled():
    """1 input token costs 1, an answer at most 2: a budget of 10 holds three of 3, then more."""

    async def run() -> None:
        prices = Prices(1e6, 1e6)
        budget = Budget(prices, max_requests=None, max_cost=10.0)
        for _ in range(3):
            assert await budget.admit(1, 2, is_retry=False)
        fourth = asyncio.create_task(budget.admit(1, 2, is_retry=False))
        await asyncio.sleep(0.01)
        assert not fourth.done()
        budget.settle((1, 2), (1, 1), is_estimate=False)  # used 2 of 3: 2 + 6 + 3 > 10
        await asyncio.sleep(0.01)
        assert not fourth.done()
        budget.settle((1, 2), (1, 1), is_estimate=False)  # 4 + 3 + 3 = 10
        assert await fourth
        assert not budget.is_spent
        for _ in range(2):
            budget.settle((1, 2), (1, 2), is_estimate=True)
        assert budget.usage.cost == pytest.approx(10.0)
        assert not await budget.admit(1, 0, is_retry=False)
        assert budget.is_spent
        assert budget.usage.counts() == {
            "requests": 4,
            "retries": 0,
            "input_tokens": 4,
            "output_tokens": 6,
            "estimated": 2,
            "cost_millionths": 10_000_000,
        }

    asyncio.run(run())
