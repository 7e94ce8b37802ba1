"""What is measured while training, and where it is written down.

``metrics.jsonl`` is always written, by rank 0: a line for every logged step, evaluation and
generation. A training that goes on from a checkpoint drops the lines after it and writes them
again. Beside it lies ``progress.json``, where the job and ``mixup status`` read how far it is.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from mixup.errors import ConfigError
from mixup.workspace import Workspace

METRICS = "metrics.jsonl"
PROGRESS = "progress.json"
# A document of an object store is written whole, and each time costs a request.
_EVERY_S, _EVERY_S_REMOTE = 0.5, 15.0

_PACKAGES: Mapping[str, Sequence[str]] = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
}

# Dense bf16 peak of one GPU, in FLOP/s. Source: NVIDIA's data sheets. By part of its name.
_PEAKS: Sequence[tuple[str, float]] = (
    *(("B200", 2250e12), ("GH200", 989e12), ("H200", 989e12), ("H100 PCIe", 756e12)),
    *(("H100", 989e12), ("A100", 312e12), ("L40S", 362e12), ("L4", 121e12), ("A10", 125e12)),
)


def check_plugins(names: Sequence[str], workspace: Workspace) -> None:
    """Check that the packages of the plug-ins are installed here, and have where to write.

    Raises:
        ConfigError: Naming the package that is missing, or the plug-in that cannot write.
    """
    if "tensorboard" in names and not workspace.is_local:
        raise ConfigError(
            "metrics.to names tensorboard, whose files an object store does not take; leave it out "
            "(metrics.jsonl is written always), or name mlflow or wandb"
        )
    for name in names:
        if not any(find_spec(package) for package in _PACKAGES[name]):
            wanted = " or ".join(_PACKAGES[name])
            raise ConfigError(
                f"metrics.to names {name}, but the package {wanted} is not installed; install it "
                f"on every machine that trains, or leave {name} out"
            )


def peak_flops(device: str) -> float | None:
    """The dense bf16 FLOP/s that a GPU of a name can do at most; None where it is not known."""
    return next((peak for part, peak in _PEAKS if part in device), None)


@dataclass(frozen=True)
class FlopCount:
    """The arithmetic of a model.

    Attributes:
        weights: Its parameters, without the embedding where that is not a layer of its own.
        trained: Those that are trained.
        layers: Its layers.
        hidden: Its hidden size.
    """

    weights: int
    trained: int
    layers: int
    hidden: int

    def of_step(self, lengths: Sequence[int]) -> float:
        """The floating point operations of forward and backward passes over rows of some lengths.

        A pass forward takes 2 for each weight and token, one backward 2 for the activations and 2
        for each trained weight; causal attention 2 · 2 · layers · hidden · T for the T/2 tokens
        before each, and twice that backward. Source: Kaplan et al. 2020, appendix B, and PaLM's
        appendix B; without what gradient checkpointing computes twice, as MFU is defined.
        """
        tokens = float(sum(lengths))
        linear = (4.0 * self.weights + 2.0 * self.trained) * tokens
        squares = float(sum(length * length for length in lengths))
        return linear + 6.0 * self.layers * self.hidden * squares


class MetricsLog:
    """Writes ``metrics.jsonl`` and ``progress.json`` into a folder of the workspace; rank 0 only.

    Args:
        workspace: The workspace.
        folder: The folder, relative to it.
        after: Lines of later steps are dropped, since they are written again.
    """

    def __init__(self, workspace: Workspace, folder: str, *, after: int = 0) -> None:
        self._workspace, self._folder = workspace, folder
        self._lines = [row for row in read_metrics(workspace, folder) if row["step"] <= after]
        self._wait_s = _EVERY_S if workspace.is_local else _EVERY_S_REMOTE
        self._written, self._progress = 0.0, None
        self._write_lines()

    def add(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Add a line of a kind: ``train``, ``held_out`` or ``generation``."""
        row = {"kind": kind, "step": step, **{key: _plain(value) for key, value in values.items()}}
        row["at"] = round(time.time(), 3)
        self._lines.append(row)
        if self._workspace.is_local:
            with open(self._path, "a", encoding="utf-8") as stream:
                stream.write(_line(row))
        self.flush(force=False)

    def progress(self, document: Mapping[str, Any]) -> None:
        """Say how far the training is."""
        self._progress = {key: _plain(value) for key, value in document.items()}
        self.flush(force=False)

    def flush(self, *, force: bool = True) -> None:
        """Write what is not written yet, if it is time to, or at once."""
        if not force and time.monotonic() - self._written < self._wait_s:
            return
        self._written = time.monotonic()
        if self._progress is not None:
            document = {**self._progress, "at": time.time()}
            self._workspace.write_json(f"{self._folder}/{PROGRESS}", document)
        if not self._workspace.is_local:
            self._write_lines()

    @property
    def _path(self) -> str:
        return self._workspace.path(f"{self._folder}/{METRICS}")

    def _write_lines(self) -> None:
        data = "".join(map(_line, self._lines)).encode()
        self._workspace.write_bytes(f"{self._folder}/{METRICS}", data)


def read_metrics(workspace: Workspace, folder: str) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``; one that was cut off by a kill is left out."""
    filesystem, root = workspace.filesystem()
    try:
        with filesystem.open_input_stream(f"{root}/{folder}/{METRICS}") as stream:
            text = stream.read().decode("utf-8")
    except FileNotFoundError:
        return []
    whole = text.split("\n")[:-1]  # not splitlines: generated text may hold other line ends
    return [json.loads(line) for line in whole]


def read_progress(workspace: Workspace, folder: str) -> dict[str, Any] | None:
    """How far the training of a folder is; None where it has not begun."""
    return workspace.read_json(f"{folder}/{PROGRESS}")


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """A value that JSON has; what is not finite is null."""
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
