"""The errors of a rater, in two numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixup.errors import ConfigError
from mixup.quality.transition import RATING_CLASSES

DECAY = 0.5
"""Of a rater whose errors are not known better."""


@dataclass(frozen=True)
class RaterErrors:
    """A rater who is right as often whatever the class, and whose errors fall with the distance.

    Attributes:
        reliability: P(a rating is right), above 0 and below 1.
        decay: How much rarer a wrong rating is that is one step farther from the true class: from
            above 0 to 1, which spreads errors evenly.
    """

    reliability: float = 0.85
    decay: float = DECAY

    def __post_init__(self) -> None:
        """Raises ConfigError where a number is out of range."""
        if not 0 < self.reliability < 1:
            raise ConfigError(f"reliability is {self.reliability}; expected above 0 and below 1")
        if not 0 < self.decay <= 1:
            raise ConfigError(f"decay is {self.decay}; expected above 0 and at most 1")

    def matrix(self, classes: np.ndarray | None = None) -> np.ndarray:
        """P(rating = column | true class = row), float64 of shape (C, C).

        Args:
            classes: The C classes that the rater gives; None: all six. Of one, it is always right.
        """
        rating = np.arange(RATING_CLASSES) if classes is None else np.asarray(classes)
        if len(rating) == 1:
            return np.ones((1, 1))
        errors = self.decay ** np.abs(rating[:, None] - rating[None, :])
        np.fill_diagonal(errors, 0.0)
        errors = (1 - self.reliability) * errors / errors.sum(axis=1, keepdims=True)
        np.fill_diagonal(errors, self.reliability)
        return errors
