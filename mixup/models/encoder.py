"""Sentence encoders: texts to unit vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


GPU_ROWS, CPU_ROWS = 256, 8
"""Texts of one forward pass. On a CPU, those few whose activations stay in its caches."""


class SentenceEncoder:
    """A sentence-transformers model; half precision on a GPU, float32 on a CPU."""

    def __init__(
        self, model: str, *, encode_rows: int | None = None, on_gpu: bool = False, cpus: float = 1.0
    ) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        if not on_gpu:
            keep_freed_memory()
        torch.set_num_threads(max(1, math.ceil(cpus)))  # Ray gives whole CPUs only, rounded down
        kwargs = {"dtype": torch.float16} if on_gpu else {}
        self._model = SentenceTransformer(
            str(model_folder(model)),
            device="cuda" if on_gpu else "cpu",
            trust_remote_code=False,
            model_kwargs=kwargs,
        )
        self._encode_rows = encode_rows or (GPU_ROWS if on_gpu else CPU_ROWS)

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Encode texts in batches sorted by length (the library sorts), longest first."""
        vectors = self._model.encode(
            list(texts),
            batch_size=self._encode_rows,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        ).astype(np.float32)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            vectors = np.where(norms > 0.5, vectors / norms, np.nan)
        return Encoded(vectors.astype(np.float32), self._truncated(texts))

    def _truncated(self, texts: Sequence[str]) -> np.ndarray:
        window = int(self._model.max_seq_length or 0)
        flags = np.zeros(len(texts), dtype=bool)
        # No token is shorter than a byte, so only longer texts are worth tokenizing.
        long = [i for i, text in enumerate(texts) if window and len(text.encode()) > window - 2]
        if long:
            tokenizer = self._model.tokenizer
            ids = tokenizer([texts[i] for i in long], truncation=False, verbose=False)["input_ids"]
            flags[long] = [len(tokens) > window for tokens in ids]
        return flags


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
