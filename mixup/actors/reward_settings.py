"""What decides the values of rewards besides the samples, and so their revisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mixup.config import QualityPredictor, Similarity
from mixup.models.encoder import similarity_of
from mixup.records import content_key
from mixup.refresh_config import RefreshConfig, RewardMode


@dataclass(frozen=True)
class RewardSettings:
    """What decides reward values besides the samples.

    Attributes:
        mode: As in the config.
        similarity: The encoder's thresholds.
        threshold: The rating class from which quality is high.
        neighbors: Library neighbors that vote.
        effective_votes: Their worth in independent votes.
        encoder: The encoder's revision.
        library: The reference library's revision; None where there is none.
        predictor: What tells quality by the library.
    """

    mode: RewardMode
    similarity: Similarity
    threshold: int
    neighbors: int
    effective_votes: float
    encoder: str
    library: str | None
    predictor: QualityPredictor = "neighbors"

    @classmethod
    def of(
        cls, config: RefreshConfig, encoder: str, library: str | None, effective_votes: float
    ) -> RewardSettings:
        """The settings of a refresh.

        Args:
            config: The job's config.
            encoder: The encoder's revision.
            library: The reference library's revision.
            effective_votes: The worth of its votes, as stated or as fitted with it.
        """
        return cls(
            mode=config.reward.mode,
            similarity=similarity_of(config.embed.model, config.embed.similarity),
            threshold=config.curate.threshold,
            neighbors=config.curate.neighbors,
            effective_votes=effective_votes,
            encoder=encoder,
            library=library,
            predictor=config.reward.predictor,
        )

    def revision(self, component: str) -> str:
        """The revision of one component: it changes with what the component reads, only."""
        near = [self.similarity.alignment_low, self.similarity.alignment_high, self.encoder]
        reads = {
            "format": [self.mode],
            "alignment": [self.mode, *near],
            "coverage": near,
            "quality": [self.mode, self.encoder, self.library, self.threshold, *self._told_by()],
        }
        return content_key("reward-v1", component, reads[component])

    def _told_by(self) -> list[Any]:
        if self.predictor == "regression":
            return [self.predictor]
        return [self.neighbors, self.effective_votes]
