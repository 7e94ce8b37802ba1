"""Real rows with real quality labels, each file with vectors of the bundled encoder.

The labels are the files' own: two of Claude's flags on Alpaca rows, the status that Alpaca Libre
gave its rows, and GPT-4's ratings of answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from real_vectors import vectors_of
from whole_pool import DATA

from mixup.clusters.linearize import embed_text
from mixup.errors import RecordError
from mixup.records import uid_of
from mixup.text.formats import parse_row

STATUS = {"ok": 4, "too similar": 2, "blacklist": 1, "too short": 1, "bad start": 1}
HIGH = 4

Row = Mapping[str, Any]


def flagged(name: str) -> Callable[[Row], float]:
    """A true flag is class 4. What lies below a mark of 4.5 is not told apart: class 2."""
    return lambda row: 4.0 if row[name] else 2.0


MARKS: Mapping[str, tuple[str, Callable[[Row], float]]] = {
    "Alpaca, Claude: accurate": ("stanford_alpaca_subset", flagged("claude_accuracy_ge_4_5")),
    "Alpaca, Claude: helpful": ("stanford_alpaca_subset", flagged("helpfulness_ge_4_5")),
    "Alpaca Libre, status": ("alpaca_libre", lambda row: float(STATUS.get(row["status"], 0))),
    "Prometheus, GPT-4": ("prometheus_eval_ratings", lambda row: row["rating_mean"]),
}
"""For each benchmark its file, and a row's mark, 0 to 5; a mean of several may lie in between."""


@dataclass(frozen=True)
class RatedRows:
    """N rows, by ascending uid, which is a random order.

    Attributes:
        uids: Their keys.
        vectors_ND: Unit vectors.
        marks_N: The labels, 0 to 5.
        lengths_N: Characters of the answers.
    """

    uids: list[str]
    vectors_ND: np.ndarray
    marks_N: np.ndarray
    lengths_N: np.ndarray

    @property
    def classes_N(self) -> np.ndarray:
        """The marks as rating classes, halves upwards."""
        return np.floor(self.marks_N + 0.5).astype(np.int64)


def rated_rows(name: str, most: int) -> RatedRows:
    """So many rows of a benchmark at most; skips where its file is absent.

    Args:
        name: A key of ``MARKS``.
        most: The rows of the lowest uids, so that a larger draw holds a smaller one.
    """
    file, mark = MARKS[name]
    path = DATA / f"{file}.parquet"
    if not path.exists():
        pytest.skip(f"no real ratings at {path}")
    rows: dict[str, tuple[str, float, int]] = {}
    for row in pq.read_table(path).to_pylist():
        try:
            turns = parse_row(row).turns
        except RecordError:  # rows without an answer, which ingest would quarantine
            continue
        rows.setdefault(uid_of(turns), (embed_text(turns), mark(row), len(row["output"])))
    uids = sorted(rows)[:most]
    texts, marks, lengths = zip(*(rows[uid] for uid in uids), strict=True)
    return RatedRows(uids, vectors_of(uids, texts), np.array(marks), np.array(lengths, float))
