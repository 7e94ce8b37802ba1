"""The failures that mixup raises on purpose; a bad row is data and never one of them."""

from __future__ import annotations


class MixupError(Exception):
    """Any failure that mixup explains: the message has the value, what was expected, what to do."""


class ConfigError(MixupError, ValueError):
    """The config or the input is wrong; found before anything starts (exit code 2)."""


class RecordError(MixupError, ValueError):
    """A row that cannot become a record; ingest turns it into a quarantine row.

    Attributes:
        reason: A short stable name of the defect, such as ``not_json``, used for counting.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class ShapeError(MixupError, ValueError):
    """An array whose shape or type does not fit the others it is used with."""


class TableError(MixupError):
    """A table, a commit or the workspace's lock is not in the state that is needed."""


class LedgerError(TableError):
    """Counts that must add up do not."""


class ModelError(MixupError):
    """A model that cannot be found, loaded or run."""


class EngineDied(ModelError):
    """A language model's engine failed in a way after which it cannot be used; replace it."""


class TrainingError(MixupError):
    """A training that cannot go on: running it again as it is would end in the same way."""


class WrongWeights(TrainingError):
    """An engine does not hold the weights that the trainer holds, or not their version."""


class StalledError(MixupError):
    """No row of a stage finished for the time that the config allows.

    Attributes:
        details: The last log lines of those who should have been at work.
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class ResourceError(MixupError):
    """The cluster lacks what the run asks for."""
