"""One line of progress while workers train, read from what they write into the workspace."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from mixup.errors import StalledError
from mixup.training.metrics import read_progress
from mixup.workspace import Workspace

logger = logging.getLogger(__name__)

_LINE_EVERY_S = 30.0
_SHOWN = ("loss", "reward", "held_out_loss", "held_out_reward", "tokens_per_second", "epoch")


class TrainingLine:
    """A bar on a terminal; elsewhere a plain line every half minute.

    Args:
        workspace: The workspace.
        folder: Where the workers say how far they are.
        start: The step they begin with.
        steps: All steps of the training.
        stall_timeout_s: Seconds without a step after which the training has failed.
    """

    def __init__(
        self, workspace: Workspace, folder: str, start: int, steps: int, stall_timeout_s: float
    ) -> None:
        self._workspace, self._folder, self._steps = workspace, folder, steps
        self._stall_timeout_s = stall_timeout_s
        self._step = start
        self._moved = self._shown = time.monotonic()
        is_seen = sys.stderr.isatty()
        self._bar = tqdm(
            desc="train",
            unit=" steps",
            total=steps,
            initial=start,
            leave=False,
            disable=not is_seen,
        )

    def __enter__(self) -> TrainingLine:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def look(self) -> None:
        """Look how far the workers are, and show it.

        Raises:
            StalledError: If no step was done for too long.
        """
        found, now = read_progress(self._workspace, self._folder), time.monotonic()
        if found is not None and found["step"] != self._step:
            self._bar.update(max(found["step"] - self._step, 0))
            self._bar.set_postfix_str(_words(found))
            self._step, self._moved = found["step"], now
        if now - self._moved > self._stall_timeout_s:
            raise StalledError(
                f"train: no step was done for {self._stall_timeout_s:g} s (stall_timeout_s); the "
                "last checkpoint is kept, and the same command goes on from there"
            )
        if self._bar.disable and found is not None and now - self._shown >= _LINE_EVERY_S:
            logger.info("train: step %d of %d; %s", self._step, self._steps, _words(found))
            self._shown = now


def _words(progress: Mapping[str, Any]) -> str:
    shown = [name for name in _SHOWN if progress.get(name) is not None]
    return ", ".join(f"{name.replace('_', ' ')} {progress[name]:.4g}" for name in shown)
