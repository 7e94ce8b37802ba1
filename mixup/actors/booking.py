"""Room in the cluster for several kinds of actors, asked for at once and given back at once.

Two jobs that each hold half of what they need would wait for each other for ever. So all kinds are
asked for together; a job that has got some of them only gives them back after a short while, tries
again, and ends with a statement of what is short when its time is over.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mixup.actors.resources import Demand, check_demand
from mixup.errors import ResourceError

logger = logging.getLogger(__name__)

_HALF_S = (4.0, 8.0)
"""How long a part is held without the rest, drawn anew each time: two jobs do not stay in step."""

_POLL_S = 0.2


class Booking:
    """Room for some kinds of actors, in a placement group each."""

    def __init__(self, groups: Mapping[str, Any]) -> None:
        self._groups = dict(groups)

    @classmethod
    def of(cls, demands: Sequence[Demand], wait_s: float, *, extra_gb: float = 0.0) -> Booking:
        """Wait until the cluster has room for all of some demands at the same time.

        Args:
            demands: What is needed; their names are those of the parts.
            wait_s: How long to wait.
            extra_gb: Memory that each actor of the last demand books as well.

        Raises:
            ResourceError: If the cluster is too small, or has not had room for all of them for
                ``wait_s`` seconds; says what is short. Nothing is held then.
        """
        check_demand(demands, free_cpus=0.0)
        bundles = {demand.what: _bundles(demand) for demand in demands}
        if extra_gb and demands:
            for bundle in bundles[demands[-1].what]:
                bundle["memory"] = extra_gb * 1e9
        deadline = time.monotonic() + wait_s
        while True:
            groups = _ask({name: found for name, found in bundles.items() if found})
            try:
                lacking = _wait(groups, deadline)
            except BaseException:
                _give_back(groups)
                raise
            if not lacking:
                return cls(groups)
            _give_back(groups)
            if time.monotonic() >= deadline:
                raise ResourceError(_short(demands, bundles, lacking, wait_s))

    def placement(self, what: str) -> dict[str, Any]:
        """Options that place an actor in its kind's room; none where it needs no room."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        if what not in self._groups:
            return {}
        return {"scheduling_strategy": PlacementGroupSchedulingStrategy(self._groups[what])}

    def give_back(self, *names: str) -> None:
        """Give some kinds' room back, or all of it; actors in it are stopped."""
        chosen = names or tuple(self._groups)
        _give_back({name: self._groups.pop(name) for name in chosen if name in self._groups})

    def __enter__(self) -> Booking:
        return self

    def __exit__(self, *exception: object) -> None:
        self.give_back()


def _bundles(demand: Demand) -> list[dict[str, float]]:
    bundle = {"CPU": float(demand.cpus), "GPU": float(demand.gpus)}
    held = {name: amount for name, amount in bundle.items() if amount}
    return [dict(held) for _ in range(demand.count)] if held else []


def _ask(bundles: Mapping[str, list[dict[str, float]]]) -> dict[str, Any]:
    from ray.util import placement_group

    return {name: placement_group(found, strategy="PACK") for name, found in bundles.items()}


def _wait(groups: Mapping[str, Any], deadline: float) -> list[str]:
    """Wait for all groups; those that are lacking when some are held for too long, or at the end.

    While none is there nothing is held, and the wait goes on to the deadline.
    """
    import ray

    half: float | None = None
    # Not `PlacementGroup.wait`, which takes whole seconds only: a part of one counts as 0.
    ready = {name: group.ready() for name, group in groups.items()}
    while ready:
        done, _ = ray.wait(list(ready.values()), num_returns=len(ready), timeout=_POLL_S)
        lacking, now = [name for name in ready if ready[name] not in done], time.monotonic()
        if not lacking or now >= deadline:
            return lacking
        if len(lacking) == len(groups):
            half = None
        elif half is None:
            half = now + random.uniform(*_HALF_S)
        elif now >= half:
            return lacking
    return []


def _give_back(groups: Mapping[str, Any]) -> None:
    from ray.util import remove_placement_group

    for group in groups.values():
        remove_placement_group(group)


def _short(
    demands: Sequence[Demand],
    bundles: Mapping[str, list[dict[str, float]]],
    lacking: Sequence[str],
    wait_s: float,
) -> str:
    import ray

    free = ray.available_resources()
    kinds = sorted({kind for found in bundles.values() for bundle in found for kind in bundle})
    have = ", ".join(f"{free.get(kind, 0.0):g} {kind}" for kind in kinds)
    asked = "; ".join(f"{d.what} {d.count} x {d.cpus:g} CPU {d.gpus:g} GPU" for d in demands)
    return (
        f"the cluster had no room for all of this job at once in {wait_s:g} s: "
        f"{', '.join(lacking)} lacked it. Asked for: {asked}; free now, in all: {have}. All "
        "of it is given back. Wait for other jobs to end, make the actors fewer or smaller, or "
        "raise workers.wait_s"
    )
