"""What the quality of rows rests on, counted: their neighbors' votes and their own rating.

Quality is a function of these two and of T. So their counts, added up over cells, tell for any T
how votes are best tempered and how many rows reach which quality; no row has to be seen again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixup.errors import ShapeError
from mixup.quality.posterior import at_least, posterior, with_own_rating
from mixup.quality.rater_errors import RaterErrors
from mixup.quality.transition import RATING_CLASSES, Transition, check_ratings, nearest_classes


@dataclass(frozen=True)
class Ballots:
    """The B different pairs of votes and own rating; at most 142,443 with 16 neighbors.

    Attributes:
        votes_BC: int64 neighbors of each of the six ratings, the row itself left out.
        own_B: int64 own ratings 0-5, -1 for unrated.
        rows_B: int64 how many rows have the pair.
    """

    votes_BC: np.ndarray
    own_B: np.ndarray
    rows_B: np.ndarray

    def __post_init__(self) -> None:
        """Raises ShapeError where the three parts do not fit each other."""
        if self.votes_BC.shape != (len(self.own_B), RATING_CLASSES) or (
            len(self.rows_B) != len(self.own_B)
        ):
            raise ShapeError(
                f"votes {self.votes_BC.shape}, {len(self.own_B)} ratings, {len(self.rows_B)} counts"
            )

    @classmethod
    def of(cls, votes_MC: np.ndarray, own_M: np.ndarray) -> Ballots:
        """The ballots of M rows.

        Args:
            votes_MC: Votes of each of the six ratings, as ``neighbor_votes``.
            own_M: Own ratings 0-5, -1 for unrated.

        Raises:
            ShapeError: Votes and ratings do not fit.
        """
        votes, own = np.asarray(votes_MC).astype(np.int64), check_ratings(own_M)
        return cls(votes, own, np.ones(len(own), np.int64))._merged()

    @classmethod
    def none(cls) -> Ballots:
        """No row."""
        return cls.of(np.empty((0, RATING_CLASSES)), np.empty(0, np.int64))

    @classmethod
    def sum(cls, parts: Sequence[Ballots]) -> Ballots:
        """The ballots of all parts, at least one."""
        return cls(
            np.concatenate([part.votes_BC for part in parts]),
            np.concatenate([part.own_B for part in parts]),
            np.concatenate([part.rows_B for part in parts]),
        )._merged()

    def _merged(self) -> Ballots:
        pairs = np.column_stack([self.votes_BC, self.own_B])
        found, place = np.unique(pairs, axis=0, return_inverse=True)
        rows = np.zeros(len(found), np.int64)
        np.add.at(rows, place.ravel(), self.rows_B)
        return Ballots(found[:, :-1], found[:, -1], rows)

    def votes_for(self, classes: np.ndarray) -> np.ndarray:
        """The votes by the classes of a T, (B, C): for one that it lacks, the nearest."""
        columns = nearest_classes(np.arange(RATING_CLASSES), classes)[:, None] == classes
        return self.votes_BC @ columns.astype(np.int64)


def ballot_quality(
    ballots: Ballots,
    transition: Transition,
    *,
    threshold: int,
    effective_votes: float | None,
    rater: RaterErrors,
) -> np.ndarray:
    """The quality, P(true rating >= threshold), that ``curate`` gives a row of each ballot, (B,).

    Args:
        ballots: Votes and own ratings.
        transition: T and p.
        threshold: Lowest rating that counts as high.
        effective_votes: As in ``posterior``.
        rater: As in ``with_own_rating``.

    Raises:
        ConfigError: As there.
    """
    classes = transition.classes
    q = posterior(ballots.votes_for(classes), transition, effective_votes=effective_votes)
    q = with_own_rating(q, ballots.own_B, classes, rater=rater)
    return at_least(q, classes, threshold)
