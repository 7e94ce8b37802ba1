"""What is scored: an output as the reward actors read it, the texts in it, and their vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mixup.actors.deaths import CRASHED
from mixup.clusters.linearize import embed_text
from mixup.records import Turn
from mixup.rewards.coverage import sentences
from mixup.text.parse import extract_answer


@dataclass(frozen=True)
class ScoreRequest:
    """A sample to be scored.

    Attributes:
        key: The sample's key.
        task: Its task type.
        text: The whole output, which the format component reads.
        answer: The answer's text: what is between the answer tags, or the whole output.
        pair: The distilled pair as the encoder reads examples; the answer where it did not parse.
        targets: Texts that the answer should mean: the gold answer in training, the cluster's
            inputs at application time.
        inputs: The cluster's inputs, which the answer should cover.
    """

    key: str
    task: str
    text: str
    answer: str
    pair: str
    targets: tuple[str, ...]
    inputs: tuple[str, ...]


def request_of(
    key: str,
    task: str,
    text: str,
    turns: Sequence[Turn] | None,
    *,
    targets: Sequence[str],
    inputs: Sequence[str],
) -> ScoreRequest:
    """An output as the reward actors read it.

    An output without answer tags is scored whole, as in the paper's code; its format says so.

    Args:
        key: The output's key.
        task: Its task type.
        text: The whole output.
        turns: The pair that was parsed from it; None where it did not parse.
        targets: Texts that the answer should mean.
        inputs: Texts that it should cover.
    """
    answer = extract_answer(text) or text
    return ScoreRequest(
        key=key,
        task=task,
        text=text,
        answer=answer,
        pair=embed_text(turns) if turns else answer,
        targets=tuple(targets),
        inputs=tuple(inputs),
    )


@dataclass(frozen=True)
class Score:
    """A component's outcome for a sample: a value in [0, 1], or the reason why there is none."""

    value: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Texts:
    """The vectors of a batch's texts.

    Attributes:
        rows: The row of each text in ``vectors_ND``.
        vectors_ND: Unit vectors; NaN where a text has none.
        crashed: The texts that the encoder died of.
    """

    rows: Mapping[str, int]
    vectors_ND: np.ndarray
    crashed: frozenset[str]

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """The vectors of some texts, (texts, D)."""
        return self.vectors_ND[[self.rows[text] for text in texts]]

    def missing(self, texts: Sequence[str]) -> Score | None:
        """Why a score of these texts cannot be computed; None where all have a vector."""
        if any(text in self.crashed for text in texts):
            return Score(None, CRASHED)
        finite = not texts or bool(np.isfinite(self.vectors(texts)).all())
        return None if finite else Score(None, "no_vector")


def texts_of(request: ScoreRequest) -> list[str]:
    """The texts whose vectors a request needs; none where there is no answer."""
    if not request.answer.strip():
        return []
    said = [*sentences(request.answer), request.answer, request.pair]
    return [*said, *request.targets, *request.inputs]
