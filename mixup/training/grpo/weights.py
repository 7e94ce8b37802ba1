"""The trainer's weights as an engine wants them, and the ways in which they get there.

``named_weights`` gives a trained model's tensors under the names of its checkpoint: LoRA merged on
the fly (the trained model itself is not touched), a tied head named although it is the embedding
(an engine may keep a copy of it in another form), and under ZeRO-3 one layer gathered at a time.

Two ways lead to the engines, behind ``WeightPush``: the object store, which is for CPUs and for
small models and which a replaced engine can load from again; and vLLM's own transfer by NCCL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from mixup.errors import ConfigError

Gather = Callable[[Sequence[nn.Parameter]], AbstractContextManager[Any]]
"""Makes sharded parameters whole for a block; every rank must enter it."""

_BUCKET_BYTES = 256_000_000
_ADAPTER = {"lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector"}
_DROPPED = ("base_model.model.", "_checkpoint_wrapped_module.", "modules_to_save.default.")


def whole(parameters: Sequence[nn.Parameter]) -> AbstractContextManager[Any]:
    """Makes parameters whole that DeepSpeed's ZeRO-3 keeps in parts; others are whole already."""
    if not any(hasattr(parameter, "ds_id") for parameter in parameters):
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(list(parameters))


def named_weights(
    model: nn.Module, *, dtype: torch.dtype | None = None, gather: Gather = whole
) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a trained model, one at a time, by the names of its checkpoint.

    Gathering is collective: under ZeRO-3 every rank must go through all of them. Nothing is
    gathered any more when a tensor is given, so that sending it cannot get in the way of the next.

    Args:
        model: A transformers model, or a PEFT model around one.
        dtype: What the engines compute in; the model's own without it.
        gather: Makes parameters whole.

    Raises:
        ConfigError: If an adapter is of a kind that is not merged here.
    """
    for path, layer in model.named_modules():
        places = set(path.split("."))
        if places & _ADAPTER or "original_module" in places:
            continue
        adapted = model.get_submodule(path.rpartition(".")[0]) if _is_base(path) else None
        for name, parameter in layer.named_parameters(recurse=False):
            used = [parameter] if adapted is None else list(adapted.parameters())
            with gather(used), torch.no_grad():
                tensor = parameter.detach()
                if adapted is not None and name == "weight":
                    tensor = _merged(adapted, tensor)
                parted = hasattr(parameter, "ds_id")
                tensor = tensor.to(dtype or tensor.dtype, copy=parted)
            yield checkpoint_name(path, name), tensor


def checkpoint_name(path: str, name: str) -> str:
    """The name that a checkpoint has for a parameter of the module at a path."""
    full = f"{path}.{name}" if path else name
    for wrapper in _DROPPED:
        full = full.replace(wrapper, "")
    return full.replace(".base_layer.", ".")


def _is_base(path: str) -> bool:
    return path.rpartition(".")[2] == "base_layer"


def _merged(layer: Any, weight: torch.Tensor) -> torch.Tensor:
    """A LoRA layer's weight with its active adapters added, as PEFT's own merge adds them."""
    if layer.merged:
        return weight
    for adapter in layer.active_adapters:
        if adapter not in layer.lora_A and adapter not in layer.lora_embedding_A:
            continue
        if adapter in layer.lora_variant or layer.lora_bias.get(adapter):
            raise ConfigError(
                f"adapter {adapter!r} is a variant of LoRA (DoRA, biases, ...), which is not "
                "merged for the engines; use plain LoRA"
            )
        weight = weight + layer.get_delta_weight(adapter).to(weight.dtype)
    return weight


@dataclass(frozen=True)
class Bucket:
    """Some tensors in a form that Ray's object store shares without a copy.

    Attributes:
        arrays: Each tensor's bytes, by its name.
        dtypes: Each tensor's dtype, as ``torch`` names it.
        shapes: Each tensor's shape.
    """

    arrays: Mapping[str, np.ndarray]
    dtypes: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor]) -> Bucket:
        """The bucket of some tensors."""
        return cls(
            {name: _bytes(tensor) for name, tensor in tensors.items()},
            {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()},
            {name: tuple(tensor.shape) for name, tensor in tensors.items()},
        )

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors, as copies of the shared memory."""
        for name, array in self.arrays.items():
            values = torch.from_numpy(array.copy()).view(getattr(torch, self.dtypes[name]))
            yield name, values.reshape(self.shapes[name])


def buckets(
    weights: Iterable[tuple[str, torch.Tensor]], *, most_bytes: int = _BUCKET_BYTES
) -> Iterator[Bucket]:
    """Tensors in buckets of at most so many bytes, unless one alone has more."""
    held: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in weights:
        if held and size + tensor.nbytes > most_bytes:
            yield Bucket.of(held)
            held, size = {}, 0
        held[name], size = tensor, size + tensor.nbytes
    if held:
        yield Bucket.of(held)


class WeightPush(Protocol):
    """A way from the trainer to all engines."""

    def push(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Have every engine hold the weights, under a version; every rank must call it.

        Raises:
            StalledError: If an engine does not answer in time, naming it.
        """
        ...


def _bytes(tensor: torch.Tensor) -> np.ndarray:
    return tensor.contiguous().cpu().reshape(-1).view(torch.uint8).numpy()
