"""What a run may ask of a paid endpoint: requests and cost, counted before each request is sent."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass

_MILLION = 1_000_000


@dataclass(frozen=True)
class Prices:
    """The prices of a million tokens, in any one currency."""

    input: float = 0.0
    output: float = 0.0

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """What some tokens cost."""
        return (input_tokens * self.input + output_tokens * self.output) / _MILLION


@dataclass
class Usage:
    """What was used so far.

    Attributes:
        requests: Requests that were sent.
        retries: Those among them that asked again for the same answer.
        input_tokens: Tokens of prompts.
        output_tokens: Tokens of answers.
        estimated: Requests whose tokens are estimates, since the server did not state them.
        cost: Of all tokens.
    """

    requests: int = 0
    retries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    estimated: int = 0
    cost: float = 0.0

    def counts(self) -> dict[str, int]:
        """As integers, the cost in millionths of the currency, rounded."""
        counts = asdict(self)
        millionths = round(counts.pop("cost") * _MILLION)
        return {**counts, "cost_millionths": millionths}


class Budget:
    """Admits requests while the run's limits allow them.

    A request reserves the cost that it may come to. The cost is therefore not passed by more than
    the reservations of what is in flight fall short of the truth, which they do only where a
    prompt has more tokens than estimated.
    """

    def __init__(self, prices: Prices, *, max_requests: int | None, max_cost: float | None) -> None:
        self.usage = Usage()
        self.is_spent = False
        self._prices, self._max_requests, self._max_cost = prices, max_requests, max_cost
        self._reserved = 0.0
        self._settled = asyncio.Event()

    async def admit(self, input_tokens: int, output_tokens: int, *, is_retry: bool) -> bool:
        """Whether one more request may be sent; it is counted if so.

        Waits while only what is in flight stands in the way. What is admitted must be settled.

        Args:
            input_tokens: Those of the prompt, as estimated.
            output_tokens: The most that the answer may have.
            is_retry: Whether the same was asked before.
        """
        wanted = self._prices.cost(input_tokens, output_tokens)
        while not self._fits(wanted):
            if self._reserved <= 0 or self._is_out_of_requests():
                self.is_spent = True
                return False
            self._settled.clear()
            await self._settled.wait()
        self._reserved += wanted
        self.usage.requests += 1
        self.usage.retries += is_retry
        return True

    def settle(
        self,
        reserved: tuple[int, int],
        used: tuple[int, int],
        *,
        is_estimate: bool,
    ) -> None:
        """Exchange a request's reservation for what it used, both as input and output tokens."""
        # Sums of floats drift; what nothing holds is nothing.
        self._reserved = max(0.0, self._reserved - self._prices.cost(*reserved))
        if self._reserved < 1e-9:
            self._reserved = 0.0
        self.usage.input_tokens += used[0]
        self.usage.output_tokens += used[1]
        self.usage.estimated += is_estimate
        self.usage.cost += self._prices.cost(*used)
        self._settled.set()

    def _is_out_of_requests(self) -> bool:
        return self._max_requests is not None and self.usage.requests >= self._max_requests

    def _fits(self, wanted: float) -> bool:
        if self._is_out_of_requests():
            return False
        if self._max_cost is None:
            return True
        return self.usage.cost + self._reserved + wanted <= self._max_cost + 1e-12
