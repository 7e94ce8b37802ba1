"""A draw of a pool's rows and what a regression says of each: it stands for the whole pool."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixup.errors import ShapeError
from mixup.quality.posterior import at_least, with_own_rating
from mixup.quality.rater_errors import RaterErrors
from mixup.quality.regression import Regression, folds_of_rated
from mixup.quality.transition import check_ratings


@dataclass(frozen=True)
class Panel:
    """P rows.

    Attributes:
        classes: The C rating classes, ascending.
        shares_PC: float32 P(class) of each before its own rating is heard.
        own_P: int64 own ratings 0-5, -1 for unrated.
    """

    classes: np.ndarray
    shares_PC: np.ndarray
    own_P: np.ndarray

    def __post_init__(self) -> None:
        """Raises ShapeError where the three parts do not fit each other."""
        if self.shares_PC.shape != (len(self.own_P), len(self.classes)):
            raise ShapeError(
                f"shares {self.shares_PC.shape} of {len(self.own_P)} rows, {len(self.classes)} "
                "classes"
            )

    @classmethod
    def of(
        cls, regression: Regression, vectors_PD: np.ndarray, own_P: np.ndarray, uids: list[str]
    ) -> Panel:
        """What a regression says of rows.

        Args:
            regression: The models.
            vectors_PD: Unit vectors.
            own_P: Own ratings 0-5, -1 for unrated.
            uids: The rows' uids.

        Raises:
            ShapeError: Arrays that do not fit each other.
        """
        own = check_ratings(own_P)
        shares = regression.probabilities(vectors_PD, folds_of_rated(own, uids))
        return cls(regression.classes, shares.astype(np.float32), own)

    def quality(self, *, threshold: int, rater: RaterErrors) -> np.ndarray:
        """The quality, P(true rating >= threshold), that ``curate`` gives each row, (P,).

        Args:
            threshold: Lowest rating that counts as high.
            rater: As in ``with_own_rating``.
        """
        q = with_own_rating(self.shares_PC, self.own_P, self.classes, rater=rater)
        return np.minimum(at_least(q, self.classes, threshold), 1.0)
