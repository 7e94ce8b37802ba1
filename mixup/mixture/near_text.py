"""Near-duplicate blocks of text, by MinHash: sketches that agree as far as the texts overlap.

A sketch holds, for each of some hash functions, the least hash of the text's shingles; two sketches
agree in about the share in which the sets of shingles do (their Jaccard similarity). A sketch is
divided into bands, and only texts that have a whole band in common are compared.

Source: Broder, On the resemblance and containment of documents (1997).
"""

from __future__ import annotations

import re
from functools import cache

import numpy as np
from blake3 import blake3

from mixup.errors import ShapeError
from mixup.records import content_key

HASHES = 64
BANDS = 8
"""At 8 bands of 8 hashes, texts with a similarity of 0.9 are compared with a probability of 0.99,
of 0.8 with 0.77, of 0.5 with 0.03."""
FINE_BANDS = 16
"""At 16 bands of 4, with a similarity of 0.8 with 0.9998, of 0.5 with 0.64: for what must not be
missed."""
SHINGLE_WORDS = 5

_WORD = re.compile(r"[^\W_]+")


def sketch_of(text: str) -> np.ndarray:
    """The sketch of a text, uint32 (``HASHES``,); of its words without case and punctuation.

    A text of fewer words than a shingle has is one shingle.
    """
    words = _WORD.findall(text.casefold())
    last = max(1, len(words) - SHINGLE_WORDS + 1)
    shingles = {" ".join(words[at : at + SHINGLE_WORDS]) for at in range(last)}
    hashes = np.array(
        [int.from_bytes(blake3(found.encode()).digest(length=8), "little") for found in shingles],
        dtype=np.uint64,
    )
    factors, terms = _functions()
    mixed = hashes[:, None] * factors + terms  # modulo 2**64
    return (mixed >> np.uint64(32)).astype(np.uint32).min(axis=0)


def bands_of(sketch_H: np.ndarray, bands: int = BANDS) -> list[str]:
    """The keys of a sketch's bands; texts that share one may be near-duplicates."""
    parts = np.split(np.ascontiguousarray(sketch_H, dtype="<u4"), bands)
    return [
        blake3(bytes([at]) + part.tobytes()).hexdigest(length=8) for at, part in enumerate(parts)
    ]


def agreement_of(sketches_NH: np.ndarray, others_MH: np.ndarray) -> np.ndarray:
    """The share of the hashes in which two sketches agree, float (N, M)."""
    found = np.empty((len(sketches_NH), len(others_MH)))
    for row, sketch in enumerate(sketches_NH):  # one at a time: memory of M sketches
        found[row] = (others_MH == sketch).mean(axis=1)
    return found


def united(sketches_NH: np.ndarray) -> np.ndarray:
    """The sketch of some texts taken together: each shingle that one of them has."""
    return np.asarray(sketches_NH).min(axis=0)


def leaders_of(sketches_NH: np.ndarray, threshold: float) -> np.ndarray:
    """For each text the one that represents it: itself, or the first leader that it is near to.

    Leader clustering in the order of the rows: a text becomes a leader unless its sketch agrees
    with an earlier leader's in at least ``threshold`` of the hashes, so that later texts never
    change what earlier ones belong to.

    Args:
        sketches_NH: The sketches, oldest first.
        threshold: The least share, above 0.

    Raises:
        ShapeError: The sketches are no matrix of ``HASHES`` columns.
    """
    if sketches_NH.ndim != 2 or sketches_NH.shape[1] != HASHES:
        raise ShapeError(f"sketches have shape {sketches_NH.shape}; expected (rows, {HASHES})")
    leader = np.arange(len(sketches_NH))
    leaders: list[int] = []
    for row, sketch in enumerate(sketches_NH):
        agreement = (sketches_NH[leaders] == sketch).mean(axis=1) if leaders else np.empty(0)
        near = np.flatnonzero(agreement >= threshold)
        if near.size:
            leader[row] = leaders[int(near[0])]
        else:
            leaders.append(row)
    return leader


@cache
def _functions() -> tuple[np.ndarray, np.ndarray]:
    """The factors (odd) and terms of the hash functions, the same on every machine."""
    drawn = [
        [int(content_key("minhash", kind, at)[:16], 16) for at in range(HASHES)]
        for kind in ("factor", "term")
    ]
    factors, terms = (np.array(values, dtype=np.uint64) for values in drawn)
    return factors | np.uint64(1), terms
