"""Room that is asked for at once: nobody keeps half of it."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import ray

from mixup.actors.booking import Booking
from mixup.actors.resources import Demand
from mixup.errors import ResourceError


def free() -> float:
    return ray.available_resources().get("CPU", 0.0)


def wait_until_free(cpus: float) -> None:
    deadline = time.monotonic() + 20
    while free() < cpus:
        assert time.monotonic() < deadline, ray.available_resources()
        time.sleep(0.1)


@ray.remote(num_cpus=1)
class Holder:
    def ready(self) -> bool:
        return True


def test_an_actor_lives_in_its_kinds_room(ray_cluster):
    wait_until_free(2.0)
    demands = [Demand("engines", 1, 1.0), Demand("rewards", 1, 1.0)]
    with Booking.of(demands, 10) as booking:
        assert free() == 0.0
        holder = Holder.options(**booking.placement("engines")).remote()
        assert ray.get(holder.ready.remote(), timeout=30)
        booking.give_back("rewards")
        wait_until_free(1.0)
    wait_until_free(2.0)


def test_what_is_short_is_said_and_all_is_given_back(ray_cluster):
    wait_until_free(2.0)
    holder: Any = Holder.remote()
    ray.get(holder.ready.remote())
    start = time.monotonic()
    demands = [Demand("engines", 1, 1.0), Demand("workers", 1, 1.0)]
    said = r"no room .* in 2 s: \w+ lacked it\. Asked for: engines 1 x 1 CPU 0 GPU; workers 1"
    with pytest.raises(ResourceError, match=said):
        Booking.of(demands, 2)
    assert time.monotonic() - start < 15
    wait_until_free(1.0)
    ray.kill(holder)


def test_more_than_there_is_is_said_at_once(ray_cluster):
    start = time.monotonic()
    with pytest.raises(ResourceError, match="has 2 CPU, this stage needs 2.5: engines 1 x 0.5"):
        Booking.of([Demand("engines", 1, 0.5), Demand("workers", 2, 1.0)], 60)
    assert time.monotonic() - start < 5


@pytest.mark.thorough
def test_two_jobs_that_need_all_of_it_both_get_it(ray_cluster):
    """Each would wait for ever for the half that the other one holds."""
    wait_until_free(2.0)
    demands = [Demand("engines", 1, 1.0), Demand("workers", 1, 1.0)]
    done: list[str] = []

    def job(name: str) -> None:
        for _ in range(3):
            with Booking.of(demands, 60):
                time.sleep(0.3)
        done.append(name)

    threads = [threading.Thread(target=job, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert sorted(done) == ["a", "b"]
    wait_until_free(2.0)
