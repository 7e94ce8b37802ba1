"""Fingerprints of every tensor that an engine computes with, to be equal to the trainer's.

A push of weights can go wrong without an error: a tied head left as it was, a tensor dropped by a
filter of names, a repacked copy that nobody renewed. So the engine's side does not hash what was
sent, but what it computes with: where vLLM keeps a linear layer repacked for the CPU (the weight
itself is gone then, or, for a tied head, it is the embedding's and not what the head multiplies
by), the matrix is read back by passing the rows of the identity through the layer. A product with
one 1 and zeros is exact in any dtype, so the comparison is of bits, without a tolerance.

Fused layers (qkv, gate_up) are cut into the parts that checkpoints name; the padding of vocabulary
layers is cut off. Negative zeros and subnormal numbers count as 0, which a product may make them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from blake3 import blake3
from torch import nn

from mixup.errors import ModelError, WrongWeights

_BYTES = 16
_COLUMNS = 64
"""Columns of a matrix that are read at once: this bounds the memory of reading it back."""
_NAMED = 5


def tensor_fingerprint(tensor: torch.Tensor) -> str:
    """The blake3-128 hash of a tensor's values (a matrix's by columns), dtype and shape."""
    if tensor.ndim != 2:
        hasher = blake3(max_threads=blake3.AUTO)
        _update(hasher, tensor)
        return _digest(hasher, tensor.dtype, tuple(tensor.shape))
    blocks = (
        tensor[:, start : start + _COLUMNS].T for start in range(0, tensor.shape[1], _COLUMNS)
    )
    [found] = _matrix_fingerprints(blocks, [tensor.shape[0]])
    return found


def trainer_fingerprints(weights: Iterable[tuple[str, torch.Tensor]]) -> dict[str, str]:
    """The fingerprint of each named tensor of the trainer (``weights.named_weights``)."""
    with torch.no_grad():
        return {name: tensor_fingerprint(tensor) for name, tensor in weights}


def engine_fingerprints(model: nn.Module) -> dict[str, str]:
    """The fingerprints of all that a vLLM model computes with, by the names of its checkpoint.

    Raises:
        ModelError: If the model is split over several engines' processes (tensor parallelism).
    """
    parts: Mapping[str, Sequence[str]] = getattr(model, "packed_modules_mapping", {})
    found: dict[str, str] = {}
    with torch.inference_mode():
        for path, layer in model.named_modules():
            if getattr(layer, "tp_size", 1) != 1:
                raise ModelError(
                    f"layer {path} is split over {layer.tp_size} processes; fingerprints are made "
                    "of whole tensors, so run each engine on one GPU"
                )
            for name, parameter in layer.named_parameters(recurse=False):
                found.update(_layer_fingerprints(path, layer, name, parameter, parts))
    return found


def check_fingerprints(
    trainer: Mapping[str, str], engine: Mapping[str, str], *, who: str, version: int
) -> None:
    """Compare what an engine holds with what the trainer holds.

    Args:
        trainer: The trainer's fingerprints by tensor.
        engine: The engine's.
        who: The engine's name, for the message.
        version: The version of the weights.

    Raises:
        WrongWeights: Naming the tensors that differ, or that one of them lacks.
    """
    differ = sorted(
        name for name in trainer.keys() & engine.keys() if trainer[name] != engine[name]
    )
    lacking = sorted(trainer.keys() - engine.keys())
    unknown = sorted(engine.keys() - trainer.keys())
    if not (differ or lacking or unknown):
        return
    parts = [
        f"{len(names)} of {len(trainer)} tensors {what}: {', '.join(names[:_NAMED])}"
        + (", ..." if len(names) > _NAMED else "")
        for what, names in (
            ("differ", differ),
            ("are not in the engine", lacking),
            ("are in the engine only", unknown),
        )
        if names
    ]
    raise WrongWeights(
        f"{who} does not hold the trainer's weights of version {version}: {'; '.join(parts)}. The "
        "run stops, since its rollouts would come from another model"
    )


def _layer_fingerprints(
    path: str,
    layer: Any,
    name: str,
    parameter: torch.Tensor,
    parts: Mapping[str, Sequence[str]],
) -> Iterator[tuple[str, str]]:
    """The fingerprints of one parameter of a layer, by the names that a checkpoint has."""
    rows = _rows(layer)
    if name == "weight" and _is_repacked(layer):
        # The head of a tied model: its parameter is the embedding's, its product is its own.
        hashes = _matrix_fingerprints(_read_back(layer), rows or [layer.output_size])
    elif rows:
        hashes = [tensor_fingerprint(part) for part in _split(parameter, rows)]
    else:
        hashes = [tensor_fingerprint(parameter)]
    yield from zip(_names(path, name, parts, len(hashes)), hashes, strict=True)


def _rows(layer: Any) -> list[int]:
    """The rows of a layer's parts, without padding behind them; none: all rows, one part."""
    if sizes := getattr(layer, "output_sizes", None):
        return list(sizes)
    if vocabulary := getattr(layer, "org_vocab_size", None):
        return [vocabulary]
    return []


def _split(parameter: torch.Tensor, rows: Sequence[int]) -> list[torch.Tensor]:
    return list(torch.split(parameter[: sum(rows)], list(rows)))


def _names(path: str, name: str, parts: Mapping[str, Sequence[str]], count: int) -> list[str]:
    """The checkpoint's names of a parameter of the layer at a path."""
    above, _, leaf = path.rpartition(".")
    prefix = f"{above}." if above else ""
    leaves = parts.get(leaf, [leaf]) if count > 1 else [leaf]
    return [f"{prefix}{one}.{name}" if path else name for one in leaves]


def _is_repacked(layer: nn.Module) -> bool:
    """Whether a layer multiplies by something else than its parameter: see the module."""
    from vllm.model_executor.layers.vocab_parallel_embedding import (
        ParallelLMHead,
        VocabParallelEmbedding,
    )

    looks_up = isinstance(layer, VocabParallelEmbedding) and not isinstance(layer, ParallelLMHead)
    return hasattr(layer, "cpu_linear") and not looks_up


def _read_back(layer: Any) -> Iterator[torch.Tensor]:
    """The columns of a layer's matrix, some at a time: (some columns, all rows)."""
    identity = torch.eye(layer.input_size, dtype=layer.params_dtype)
    for rows in identity.split(_COLUMNS):
        yield layer.quant_method.apply(layer, rows.contiguous(), None)


def _matrix_fingerprints(blocks: Iterable[torch.Tensor], rows: Sequence[int]) -> list[str]:
    """The fingerprints of the parts of a matrix.

    Args:
        blocks: Some of its columns after the others, each block (some columns, all rows).
        rows: How many rows each part has; what is behind them is left out.
    """
    hashers = [blake3(max_threads=blake3.AUTO) for _ in rows]
    columns, dtype = 0, torch.float32
    for block in blocks:
        columns, dtype = columns + len(block), block.dtype
        for hasher, part in zip(hashers, block[:, : sum(rows)].split(list(rows), 1), strict=True):
            _update(hasher, part)
    return [
        _digest(hasher, dtype, (count, columns))
        for hasher, count in zip(hashers, rows, strict=True)
    ]


def _update(hasher: blake3, values: torch.Tensor) -> None:
    if values.is_floating_point():
        values = values.masked_fill(values.abs() < torch.finfo(values.dtype).tiny, 0.0)
    hasher.update(values.contiguous().cpu().reshape(-1).view(torch.uint8).numpy().data)


def _digest(hasher: blake3, dtype: torch.dtype, shape: tuple[int, ...]) -> str:
    hasher.update(f"{dtype} {shape}".encode())
    return hasher.hexdigest(length=_BYTES)
