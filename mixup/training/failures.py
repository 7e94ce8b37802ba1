"""Which failures of workers end a training at once, and which are followed by another attempt."""

from __future__ import annotations

from collections.abc import Mapping

from ray.train import UserCallback

from mixup.errors import MixupError


class EndAtOnce(UserCallback):
    """Ends a run of Ray Train whose worker failed for a reason that another attempt would meet.

    Ray starts all workers again after any failure. A loss that is no number, or memory that does
    not suffice, is met again at the same step; a worker that was killed is not. Ray takes an
    exception that is raised here for the end of the run.
    """

    def after_exception(
        self, run_context: object, worker_exceptions: Mapping[int, Exception]
    ) -> None:
        """Raise the failure that mixup explains, if there is one among the workers'."""
        for error in worker_exceptions.values():
            if isinstance(error, MixupError):
                raise error
