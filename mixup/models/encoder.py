"""Sentence encoders: texts to unit vectors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from mixup.config import Similarity
from mixup.errors import ConfigError
from mixup.models import bundled
from mixup.models.folders import model_folder
from mixup.models.memory import keep_freed_memory

_KNOWN: dict[str, Similarity] = {
    # The paper's thresholds: alignment 0.8, de-duplication 0.92.
    "BAAI/bge-m3": Similarity(
        near_duplicate=0.95, cluster_floor=0.75, alignment_low=0.5, alignment_high=0.8
    ),
    bundled.MINILM: Similarity(
        near_duplicate=0.95, cluster_floor=0.6, alignment_low=0.35, alignment_high=0.75
    ),
}


class EncodedRow(NamedTuple):
    """One text's vector, float32 (D,), NaN without a direction, and whether it was cut."""

    vector_D: np.ndarray
    truncated: bool


@dataclass(frozen=True)
class Encoded:
    """Vectors of texts.

    Attributes:
        vectors_ND: float32 (N, D); a row of NaN where the encoder gave no direction.
        truncated_N: bool (N,), whether the text was longer than the encoder's window.
    """

    vectors_ND: np.ndarray
    truncated_N: np.ndarray

    def rows(self) -> list[EncodedRow]:
        """The same, text by text; the vectors are views."""
        pairs = zip(self.vectors_ND, self.truncated_N.tolist(), strict=True)
        return [EncodedRow(*pair) for pair in pairs]


class Encoder(Protocol):
    """Anything that turns texts into unit vectors."""

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Encode N texts."""
        ...


GPU_TOKENS, CPU_TOKENS = 65_536, 2_048
"""Tokens of one forward pass, padding included. On a CPU, those few whose activations stay in its
caches."""


class SentenceEncoder:
    """A sentence-transformers model; half precision on a GPU, float32 on a CPU."""

    def __init__(
        self,
        model: str,
        *,
        encode_tokens: int | None = None,
        on_gpu: bool = False,
        cpus: float = 1.0,
    ) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        from mixup.models.onednn import multiply_by_onednn

        torch.set_num_threads(max(1, math.ceil(cpus)))  # Ray gives whole CPUs only, rounded down
        kwargs = {"dtype": torch.float16} if on_gpu else {}
        self._model = SentenceTransformer(
            str(model_folder(model)),
            device="cuda" if on_gpu else "cpu",
            trust_remote_code=False,
            model_kwargs=kwargs,
        )
        self._encode_tokens = encode_tokens or (GPU_TOKENS if on_gpu else CPU_TOKENS)
        if not on_gpu:
            keep_freed_memory()
            multiply_by_onednn(self._model, frozen=True)

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Encode texts in batches of like length."""
        lengths_N = self._lengths(texts)
        window = self._model.max_seq_length or np.iinfo(np.int64).max
        batches = list(batches_of(np.minimum(lengths_N, window), self._encode_tokens))
        if not batches:
            return Encoded(np.empty((0, 0), dtype=np.float32), np.zeros(0, dtype=bool))
        encoded_ND = np.concatenate(
            [
                self._model.encode(
                    [texts[at] for at in batch],
                    batch_size=len(batch),
                    normalize_embeddings=True,
                    convert_to_numpy=True,
                    show_progress_bar=False,
                )
                for batch in batches
            ]
        )
        vectors_ND = np.empty_like(encoded_ND, dtype=np.float32)
        vectors_ND[np.concatenate(batches)] = encoded_ND
        norms = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            vectors_ND = np.where(norms > 0.5, vectors_ND / norms, np.nan).astype(np.float32)
        return Encoded(vectors_ND, lengths_N > window)

    def _lengths(self, texts: Sequence[str]) -> np.ndarray:
        """The tokens of each text, uncut."""
        if not texts:
            return np.zeros(0, dtype=np.int64)
        tokens = self._model.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
        return np.array([len(ids) for ids in tokens], dtype=np.int64)


def batches_of(lengths_N: np.ndarray, budget: int) -> Iterator[np.ndarray]:
    """Rows in batches of like length, the longest first, which shows at once what memory it takes.

    Args:
        lengths_N: The rows' lengths in tokens, int (N,), 0 or more.
        budget: Most tokens of a batch whose rows are all as long as its longest. A row that is
            longer is a batch of its own.

    Yields:
        Places in ``lengths_N``, int (B,); each is in one batch.
    """
    order_N = np.argsort(-lengths_N, kind="stable")
    start = 0
    while start < len(order_N):
        longest = max(1, int(lengths_N[order_N[start]]))
        rows = max(1, budget // longest)
        yield order_N[start : start + rows]
        start += rows


def similarity_of(model: str, stated: Similarity | None) -> Similarity:
    """The thresholds stated in the config, or those known for the encoder.

    Raises:
        ConfigError: If none are stated and the encoder is unknown: a guess would shift every
            duplicate, cluster and reward silently.
    """
    found = stated or _KNOWN.get(model)
    if found is None:
        raise ConfigError(
            f"embed.similarity is needed: no thresholds are known for the encoder {model!r} "
            f"(known: {', '.join(_KNOWN)})"
        )
    return found
