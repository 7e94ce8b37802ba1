"""The cluster: reaching it or starting it, and what is asked for against what is there."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from mixup.actors import ray_data
from mixup.config import RayConfig
from mixup.errors import ConfigError, ResourceError
from mixup.interrupts import same_signals
from mixup.workspace import Workspace

logger = logging.getLogger(__name__)

_FREE_CPUS = 0.3
"""Kept free for light tasks that feed the actors: a pool that holds every CPU starves itself."""


@dataclass(frozen=True)
class Demand:
    """Actors that a stage holds at the same time.

    Attributes:
        what: Their name, for the message.
        count: How many.
        cpus: CPUs of each.
        gpus: GPUs of each.
    """

    what: str
    count: int
    cpus: float
    gpus: float = 0.0


@contextmanager
def cluster(config: RayConfig) -> Iterator[None]:
    """A Ray cluster for the block: the one that is there, or one started here and stopped after."""
    # Ray starts workers at nice 15, and they starve beside any other process.
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # The C++ core writes warnings about Ray Data's own actors to the terminal at level error.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray
    from ray._private import auto_init_hook

    # A thread of a run that was given up must not start a cluster of its own after this one's end.
    # RAY_ENABLE_AUTO_CONNECT says so too, but is read only when Ray is imported.
    auto_init_hook.enable_auto_connect = False
    joined = ray.is_initialized()
    if not joined:
        _start(config)
    try:
        ray_data.set_up()
        others = ray_data.executions()
        try:
            yield
        finally:
            # One that a stage gave up, and that still asks for something after this process has
            # left the cluster, can end the process: with exit code 1, at once, without a word.
            for execution in ray_data.executions() - others:
                execution.shutdown(force=True)
            if _can_scale():  # else the autoscaler keeps what a stage asked for
                _request([])
    finally:
        if not joined:
            ray.shutdown()


def _start(config: RayConfig) -> None:
    import ray

    address = config.address or os.environ.get("RAY_ADDRESS")
    environment = {"env_vars": _passed_on()}
    with warnings.catch_warnings(), same_signals():
        warnings.simplefilter("ignore")
        if address:
            ray.init(address=address, log_to_driver=False, runtime_env=environment)
            return
        # Nobody reads what these daemons gather in a cluster of one run, and they take a hundredth
        # of two cores from the engines on them: new log files are looked for ten times a second.
        for name, value in _SELDOM.items():
            os.environ.setdefault(name, value)
        ray.init(
            address="local",
            num_cpus=config.cpus,
            object_store_memory=int(config.object_store_gb * 1e9),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=environment,
        )


_SELDOM = {
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",
    "LOG_NAME_UPDATE_INTERVAL_S": "30",
    "REPORTER_UPDATE_INTERVAL_MS": "60000",
}
_PASSED_ON = ("HF_HUB_OFFLINE", "HF_HOME", "MIXUP_CACHE", "MIXUP_ROOT", "TOKENIZERS_PARALLELISM")


def _passed_on() -> dict[str, str]:
    """The driver's variables that workers get.

    Those that a submitted job sets in its runtime environment are left out: workers have them from
    there, and Ray refuses a driver that names them again.
    """
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    given = (job.get("runtime_env") or {}).get("env_vars") or {}
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ.keys() - given}


def check_place(workspace: Workspace, *, shared: bool) -> None:
    """Refuse a local workspace on several nodes, unless it is declared shared.

    Raises:
        ConfigError: If it is refused.
    """
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if (
        workspace.is_local
        and not shared
        and len({node["NodeManagerHostname"] for node in nodes}) > 1
    ):
        raise ConfigError(
            f"the workspace {workspace.uri} is a local folder, but the cluster has {len(nodes)} "
            "nodes; use s3:// or gs://, or set workspace_shared=true if all nodes mount it"
        )


def check_demand(demands: Sequence[Demand], *, free_cpus: float = _FREE_CPUS) -> None:
    """Check that the cluster, scaled up, holds a stage's actors and the tasks that feed them.

    Args:
        demands: What the stage holds at the same time.
        free_cpus: CPUs that must be left for those tasks.

    Raises:
        ResourceError: Naming what is short and what asks for it.
    """
    import ray

    there = ray.cluster_resources()
    for kind in ("CPU", "GPU"):
        asked = sum(d.count * (d.cpus if kind == "CPU" else d.gpus) for d in demands)
        needed = asked + (free_cpus if kind == "CPU" else 0.0)
        have = there.get(kind, 0.0)
        if asked and needed > have + 1e-6:
            parts = ", ".join(f"{d.what} {d.count} x {d.cpus} CPU {d.gpus} GPU" for d in demands)
            if _can_scale():
                logger.info("asking the autoscaler for %.1f %s (has %.1f)", needed, kind, have)
                _request(demands)
                return
            raise ResourceError(
                f"the cluster has {have:g} {kind}, this stage needs {needed:g}: {parts}; make the "
                "actors fewer or smaller, or the cluster larger"
            )


def _can_scale() -> bool:
    """Whether an autoscaler runs in the cluster."""
    from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_initialized

    return _internal_kv_initialized() and bool(_internal_kv_get(b"__autoscaling_config"))


def _request(demands: Sequence[Demand]) -> None:
    from ray.autoscaler.sdk import request_resources

    bundles = [{"CPU": d.cpus, "GPU": d.gpus} for d in demands for _ in range(d.count)]
    request_resources(bundles=[{k: v for k, v in bundle.items() if v} for bundle in bundles])
