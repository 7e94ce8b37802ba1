"""What is said of workers that failed."""

from __future__ import annotations

import pytest
from ray.exceptions import OutOfMemoryError

from mixup.errors import TrainingError
from mixup.training.launch import _explained
from mixup.training_config import WorkersConfig


class _Failed(Exception):
    def __init__(self, failures: dict[int, Exception]) -> None:
        super().__init__("workers failed")
        self.worker_failures = failures


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (OutOfMemoryError("4 worker(s) were killed"), "micro_batch"),
        (_Failed({1: OutOfMemoryError("killed")}), "micro_batch"),
        (_Failed({0: ValueError("odd shape")}), "worker 0 of 1: ValueError: odd shape"),
        (_Failed({0: TrainingError("the loss is nan")}), "^the loss is nan$"),
        (RuntimeError("no controller"), "the training failed: RuntimeError: no controller"),
    ],
)
def test_a_failure_is_told_with_its_remedy(failure, said):
    with pytest.raises(TrainingError, match=said):
        raise _explained(failure, WorkersConfig())
