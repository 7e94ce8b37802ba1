"""The coverage reward: is every input still found in the distilled answer?"""

from __future__ import annotations

import re

import numpy as np

from mixup.rewards.alignment import cosines, ramp

# A capital, digit or quote must follow, so "e.g. this" and "3.5" stay whole.
_BREAK = re.compile(r"(?<=[.!?…])[ \t]+(?=[^\sa-z])|(?<=[。！？])")
_OPEN_END = re.compile(
    r"(?:^\(?(?:\d+|[A-Za-z])[.)]|\b(?:Dr|Mr|Mrs|Ms|Prof|St|vs|Fig|No|[A-Z])\.)$"
)


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order: cut at line ends and after . ! ? and their CJK forms.

    List markers, initials and common titles stay with what follows them; pieces without a letter
    or a digit are dropped.
    """
    found: list[str] = []
    for line in text.splitlines():
        found.extend(_joined([piece.strip() for piece in _BREAK.split(line)]))
    return [piece for piece in found if any(char.isalnum() for char in piece)]


def _joined(pieces: list[str]) -> list[str]:
    joined: list[str] = []
    for piece in pieces:
        if joined and _OPEN_END.search(joined[-1]):
            joined[-1] = f"{joined[-1]} {piece}".strip()
        else:
            joined.append(piece)
    return joined


def coverage_score(
    input_vectors_KD: np.ndarray,
    sentence_vectors_SD: np.ndarray,
    *,
    low: float = 0.5,
    high: float = 0.8,
) -> float:
    """The mean over inputs, in [0, 1], of how well the closest sentence covers each input.

    Args:
        input_vectors_KD: embeddings of the cluster's inputs, at least one.
        sentence_vectors_SD: embeddings of the answer's sentences; include the whole answer as one
            of them, so that an input spread over two sentences counts as covered.
        low: cosine up to which an input counts as lost; calibrated per encoder.
        high: cosine from which an input counts as covered; calibrated per encoder.

    Raises:
        ShapeError: if the vectors do not fit, or one is zero or not finite.
        ConfigError: if low is not below high.

    Source: ours. Similarity to the mean of the inputs alone lets an answer drop one of them.
    """
    best_K = cosines(input_vectors_KD, sentence_vectors_SD).max(axis=1)
    return float(ramp(best_K, low=low, high=high).mean())
