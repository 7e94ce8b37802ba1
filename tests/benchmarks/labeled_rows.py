"""Real rows whose true class is stated by their own metadata, with vectors of the bundled encoder.

The class of a row is read from a flag, a status, a rating or its source by ``CLASS_OF``, never from
its text or its vector. It says how good a row is as roughly as such metadata does; what matters
here is that it is real, and that neighbors share it as often as they do in real pools.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from real_vectors import vectors_of
from whole_pool import DATA

from mixup.clusters.linearize import embed_text
from mixup.errors import RecordError
from mixup.records import uid_of
from mixup.text.formats import parse_row

STATUS = {"ok": 4, "too similar": 2, "too short": 1}

Row = Mapping[str, Any]


def _flags(row: Row) -> int:
    """What Claude said of an Alpaca row: accurate and helpful 5, accurate 4, helpful 3, else 2."""
    flags = row["claude_accuracy_ge_4_5"], row["helpfulness_ge_4_5"]
    return {(True, True): 5, (True, False): 4, (False, True): 3, (False, False): 2}[flags]


CLASS_OF: Mapping[str, tuple[int, Callable[[Row], int]]] = {
    "stanford_alpaca_subset": (1300, _flags),
    "alpaca_libre": (800, lambda row: STATUS.get(row["status"], 0)),
    "prometheus_eval_ratings": (640, lambda row: round(float(row["rating_mean"]))),
    "alpaca_gpt4_en_demo_1k": (350, lambda row: 5),
    "databricks_dolly_3k": (350, lambda row: 4),
    "dolly_hhrlhf_small": (250, lambda row: 3),
    "flan_v2_cot": (650, lambda row: 3),
    "gpteacher": (400, lambda row: 3),
    "p3_t0_50k": (760, lambda row: 1),
    "llm_adapters_qa": (500, lambda row: 0),
}
"""For each file: how many rows are drawn of it, and the class of one."""


@dataclass(frozen=True)
class LabeledRows:
    """N rows, in a seeded order.

    Attributes:
        uids: Their content keys.
        files: The file that each is from.
        truth_N: True classes 0-5.
        vectors_ND: Unit vectors.
    """

    uids: list[str]
    files: np.ndarray
    truth_N: np.ndarray
    vectors_ND: np.ndarray


def labeled_rows(share: float = 1.0) -> LabeledRows:
    """A seeded draw of rows.

    Args:
        share: Of the rows that ``CLASS_OF`` names.
    """
    found: dict[str, tuple[str, int, str]] = {}
    for name, (count, class_of) in CLASS_OF.items():
        rows = pq.read_table(DATA / f"{name}.parquet").to_pylist()
        left = round(share * count)
        for at in np.random.default_rng(0).permutation(len(rows)).tolist():
            if left == 0:
                break
            with suppress(RecordError):  # such as an empty answer
                turns = parse_row(rows[at]).turns
                uid = uid_of(turns)
                if uid not in found:
                    found[uid] = (name, class_of(rows[at]), embed_text(turns))
                    left -= 1
    uids = [list(found)[at] for at in np.random.default_rng(1).permutation(len(found)).tolist()]
    files, truth, texts = zip(*(found[uid] for uid in uids), strict=True)
    return LabeledRows(uids, np.array(files), np.array(truth), vectors_of(uids, texts))
