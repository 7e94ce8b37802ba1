"""Starts workers under Ray Train: what they need is there first, and a failure is explained.

Nothing here knows what is trained.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mixup.actors.resources import Demand, check_demand
from mixup.errors import MixupError, ResourceError, TrainingError
from mixup.training.deepspeed import worker_environment
from mixup.training_config import WorkersConfig

logger = logging.getLogger(__name__)

_POLL_S = 0.5


@dataclass(frozen=True)
class Launch:
    """A run of workers.

    Attributes:
        name: The run's name.
        storage: A folder or URL that all nodes reach, where Ray Train keeps its own notes.
        workers: How many there are and what each asks for.
    """

    name: str
    storage: str
    workers: WorkersConfig

    @property
    def demand(self) -> Demand:
        """What the workers hold."""
        asked = self.workers
        return Demand("training workers", asked.count, asked.cpus, float(asked.gpus))

    @property
    def bundle(self) -> dict[str, float]:
        """The resources of one worker, as Ray names them."""
        asked = self.workers
        found = {"CPU": asked.cpus, "GPU": float(asked.gpus), "memory": asked.memory_gb * 1e9}
        return {name: amount for name, amount in found.items() if amount}


def run_workers(
    function: Callable[[dict[str, Any]], object],
    given: Mapping[str, Any],
    launch: Launch,
    watch: Callable[[], object],
) -> None:
    """Run a function in every worker, to its end; workers that die are started again, all of them.

    Args:
        function: Takes ``given``; it goes on by itself from what it finds in the workspace.
        given: Can be pickled.
        launch: The run.
        watch: Called twice a second meanwhile, in the caller's thread.

    Raises:
        ResourceError: If the cluster has not what the workers ask for; nothing was started.
        MixupError: The failure of a worker that mixup explains.
        TrainingError: If workers died more often than the config allows.
    """
    wait_for(launch.demand, [launch.bundle] * launch.workers.count, launch.workers.wait_s)
    ended: list[BaseException | None] = []
    # In a thread Ray Train leaves the signals alone, and Ctrl-C and SIGTERM are as everywhere.
    thread = threading.Thread(
        target=_fit, args=(function, given, launch, ended), name="ray-train", daemon=True
    )
    thread.start()
    while thread.is_alive():
        thread.join(_POLL_S)
        watch()
    error = ended[0] if ended else TrainingError("the workers' controller ended without a word")
    if error is not None:
        raise _explained(error, launch.workers) from error


def _fit(
    function: Callable[[dict[str, Any]], object],
    given: Mapping[str, Any],
    launch: Launch,
    ended: list[BaseException | None],
) -> None:
    try:
        _trainer(function, given, launch).fit()
        ended.append(None)
    except BaseException as error:  # noqa: BLE001  raised where the thread is waited for
        ended.append(error)


def _trainer(
    function: Callable[[dict[str, Any]], object], given: Mapping[str, Any], launch: Launch
) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from mixup.training.failures import EndAtOnce

    workers = launch.workers
    return TorchTrainer(
        function,
        train_loop_config=dict(given),
        scaling_config=ScalingConfig(
            num_workers=workers.count,
            use_gpu=bool(workers.gpus),
            resources_per_worker=launch.bundle,
        ),
        torch_config=TorchConfig(
            backend="nccl" if workers.gpus else "gloo", timeout_s=int(workers.timeout_s)
        ),
        run_config=RunConfig(
            name=launch.name,
            storage_path=launch.storage,
            failure_config=FailureConfig(max_failures=workers.max_failures),
            callbacks=[EndAtOnce()],
            worker_runtime_env={"env_vars": worker_environment(workers)},
        ),
    )


def wait_for(demand: Demand, bundles: Sequence[Mapping[str, float]], wait_s: float) -> None:
    """Wait until the cluster has room for all of some bundles at once, each on one node.

    They are booked and given back, so that what is asked is answered by Ray's own scheduler.

    Raises:
        ResourceError: If the cluster is too small, or has not had room for ``wait_s`` seconds; says
            what is free and what is asked for.
    """
    import ray
    from ray.util import placement_group, remove_placement_group

    check_demand([demand], free_cpus=0.0)
    started = time.monotonic()
    booked = placement_group([dict(bundle) for bundle in bundles], strategy="PACK")
    try:
        while not booked.wait(timeout_seconds=_POLL_S):
            if time.monotonic() - started > wait_s:
                free = ray.available_resources()
                raise ResourceError(_short_of(demand, bundles[0], free, wait_s))
    finally:
        remove_placement_group(booked)


def _short_of(
    demand: Demand, bundle: Mapping[str, float], free: Mapping[str, float], wait_s: float
) -> str:
    asked = ", ".join(f"{amount:g} {name}" for name, amount in bundle.items())
    have = ", ".join(f"{free.get(name, 0.0):g} {name}" for name in bundle)
    return (
        f"{demand.count} {demand.what} ask for {asked} each, and the cluster had no room for all "
        f"of them in {wait_s:g} s (free now, in all: {have}); wait for other jobs to end, make the "
        "workers fewer or smaller, or raise workers.wait_s"
    )


def _explained(error: BaseException, workers: WorkersConfig) -> MixupError:
    """The failure in mixup's own words."""
    own = getattr(error, "controller_failure", error)
    if isinstance(own, MixupError):
        return own
    failures = getattr(own, "worker_failures", {})
    for found in failures.values():
        if isinstance(found, MixupError):
            return found
    if any(_is_out_of_memory(found) for found in (own, *failures.values())):
        return TrainingError(_NO_MEMORY)
    if failures:
        logger.debug("the workers' failures: %s", own)
        rank, first = next(iter(failures.items()))
        said = f"worker {rank} of {workers.count}: {type(first).__name__}: {first}"
        lines = [line.strip() for line in str(own).splitlines() if line.strip()]
        return TrainingError(
            f"workers failed more than workers.max_failures={workers.max_failures} times; the last "
            f"time {' '.join(said.split())[:400]} (... {' / '.join(lines[-3:])[-300:]}). The last "
            "checkpoint is kept, and the same command goes on from there; -v shows all"
        )
    return TrainingError(f"the training failed: {type(own).__name__}: {own}"[:800])


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether Ray ended a worker since its node had hardly any memory left."""
    from ray.exceptions import OutOfMemoryError

    return isinstance(error, OutOfMemoryError)


_NO_MEMORY = (
    "a node had hardly any memory left, so Ray ended the workers on it. Lower "
    "optimizer.micro_batch, set gradient_checkpointing=true, end what else runs there, or have "
    "workers.memory_gb book what each of them needs. The last checkpoint is kept, and the same "
    "command goes on from there"
)
