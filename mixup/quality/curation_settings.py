"""The numbers of score curation."""

from __future__ import annotations

from dataclasses import dataclass

from mixup.errors import ConfigError
from mixup.quality.rater_errors import RaterErrors
from mixup.quality.transition import RATING_CLASSES


@dataclass(frozen=True)
class CurationSettings:
    """The numbers of score curation; similarities are those of the encoder in use.

    Attributes:
        threshold: Lowest rating, 0-5, that counts as high quality.
        neighbors: Library neighbors that vote on a row.
        transition_neighbors: Neighbors counted for the transition.
        long_tail_neighbors: Neighbors averaged for the long-tail score.
        effective_votes: All votes on a row count together as at most so many; None: each fully.
        rater: The errors of observed ratings.
        smoothing: Added to each count of the transition.
        min_rated: Smaller libraries do not vote.
        keep_at: Quality from which a row is high.
        margin: How far beyond ``keep_at`` quality must go to change a previous tier.
        duplicate_similarity: Cosine similarity from which a row is a near-duplicate.
    """

    threshold: int = 4
    neighbors: int = 16
    transition_neighbors: int = 3
    long_tail_neighbors: int = 15
    effective_votes: float | None = 4.0
    rater: RaterErrors = RaterErrors()
    smoothing: float = 0.01
    min_rated: int = 20
    keep_at: float = 0.5
    margin: float = 0.05
    duplicate_similarity: float = 0.95

    def __post_init__(self) -> None:
        """Raises ConfigError where the tier could not be decided or nothing could vote."""
        if not 0 <= self.margin <= min(self.keep_at, 1 - self.keep_at):
            raise ConfigError(f"keep_at {self.keep_at} -/+ margin {self.margin} leaves 0 to 1")
        if not 1 <= self.threshold < RATING_CLASSES or self.min_rated < 2:
            raise ConfigError(
                f"threshold {self.threshold} must be 1 to 5, min_rated {self.min_rated} at least 2"
            )
