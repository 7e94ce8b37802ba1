"""The way to the engines by NCCL: vLLM's own transfer of weights, for GPUs.

Written after the sources and documentation of vLLM 0.31 (``vllm.distributed.weight_transfer``). It
needs GPUs on both sides and was never run, since none was there to run it on; its tests go as far
as the names, the order and the calls. An engine that dies breaks the group of NCCL ranks, and its
successor is not in it: the push raises, and the run goes on from its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from vllm.distributed.weight_transfer import (
    ParamMeta,
    WeightSource,
    WeightTransferTrainerFactory,
)
from vllm.distributed.weight_transfer.base import (
    WeightTransferInitRequest,
    WeightTransferUpdateRequest,
)

from mixup.training.grpo.pool import EnginePool

ENGINE_OPTIONS = {"weight_transfer_config": {"backend": "nccl"}}
"""Options of ``vllm.LLM`` for engines that receive weights this way."""


class Source(WeightSource):
    """The tensors of one push, as vLLM's sender reads them.

    Attributes:
        weights: All of them, gathered before any is sent.
    """

    def __init__(self) -> None:
        self.weights: list[tuple[str, torch.Tensor]] = []

    def metadata(self) -> list[ParamMeta]:
        """Name, dtype and shape of each tensor, in the order in which they come."""
        return [ParamMeta(name, one.dtype, tuple(one.shape)) for name, one in self.weights]

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        return iter(self.weights)


class Client:
    """vLLM's ``VLLMWeightSyncClient`` over the pool: every call has a time-out and a name."""

    def __init__(self, pool: EnginePool) -> None:
        self._pool = pool

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Have the engines join the group; each takes the rank after the engine before it."""
        ranks = {
            id(engine): init_info["rank_offset"] + place
            for place, engine in enumerate(self._pool.handles)
        }
        self._pool.call(
            "join the group of NCCL ranks",
            lambda engine: engine.init_weight_transfer_engine.remote(
                WeightTransferInitRequest(init_info={**init_info, "rank_offset": ranks[id(engine)]})
            ),
        )

    def start_weight_update(self) -> None:
        """Have every engine get ready."""
        self._pool.call("get ready for weights", lambda e: e.start_weight_update.remote())

    def update_weights(self, update_info: Any) -> None:
        """Have every engine receive."""
        request = WeightTransferUpdateRequest(update_info=update_info)
        self._pool.call("receive weights", lambda engine: engine.update_weights.remote(request))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Have every engine take up what it received; ``NativePush`` names the version."""
        del weight_version
        self._pool.call("take up weights", lambda e: e.finish_weight_update.remote())


class NativePush:
    """Sends weights to all engines by NCCL broadcast; see ``weights.WeightPush``."""

    def __init__(self, pool: EnginePool, *, address: str, port: int, rank: int) -> None:
        """Join all engines and the rank that sends into one group; made on every rank.

        Args:
            pool: Engines of one GPU each, started with ``ENGINE_OPTIONS``.
            address: Of the node of the trainer's rank 0, as the engines reach it.
            port: A free port there.
            rank: This trainer rank; 0 sends.
        """
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        self._pool, self._is_sender, self._source = pool, rank == 0, Source()
        info = NCCLTrainerInitInfo(
            master_address=address, master_port=port, world_size=1 + len(pool.handles), rank=rank
        )
        self._engine: Any = WeightTransferTrainerFactory.trainer_init(
            info, client=Client(pool), source=self._source
        )

    def push(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Send weights; every rank must call it.

        All are gathered before any is sent: a broadcast between two of DeepSpeed's gathers is a
        known hang (trl issue 7103).

        Raises:
            StalledError: If an engine is stuck, naming it.
        """
        for name, tensor in weights:
            if self._is_sender:
                self._source.weights.append((name, tensor))
        self._engine.send_weights()
        self._source.weights.clear()
        if self._is_sender:
            self._pool.call(f"adopt version {version}", lambda e: e.adopt.remote(version))
