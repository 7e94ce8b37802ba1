"""Cover: which keys have no final outcome yet, and which outcomes are to be tried again."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

MAX_ATTEMPTS = 3
RETRYABLE = (
    *("engine_error", "timeout", "actor_died"),
    # An endpoint's (models.endpoint.UNANSWERED), and a judge's answers (text.judging.UNPARSABLE).
    *("connection_error", "rate_limited", "http_error", "bad_response", "request_refused"),
    *("no_answer", "prose", "not_json", "cut_json", "not_object", "wrong_keys"),
    *("not_integer", "out_of_range"),
)
"""Reasons after which a key is tried again, up to ``MAX_ATTEMPTS`` times in all."""


def uncovered(candidates: pa.Table, outcomes: pa.Table, key: str) -> pa.Table:
    """The candidates whose key has no final outcome, with the ``attempts`` made so far.

    Args:
        candidates: Rows with a unique ``key`` column.
        outcomes: Rows with ``key`` and, if the table keeps them, ``reason`` and ``attempts``.
        key: The name of the key column.
    """
    if "reason" not in outcomes.column_names:
        fresh = pc.invert(pc.is_in(candidates[key], value_set=_flat(outcomes[key])))
        return candidates.filter(fresh)
    again = is_retryable(outcomes)
    final = outcomes.filter(pc.invert(again))
    missing = candidates.filter(pc.invert(pc.is_in(candidates[key], value_set=_flat(final[key]))))
    retried = outcomes.filter(again)
    made: dict[str, int] = {}
    for found, count in zip(retried[key].to_pylist(), retried["attempts"].to_pylist(), strict=True):
        made[found] = max(made.get(found, 0), count or 0)
    attempts = [made.get(found, 0) for found in missing[key].to_pylist()]
    return missing.append_column("attempts", pa.array(attempts, pa.int32()))


def is_retryable(outcomes: pa.Table) -> pa.ChunkedArray:
    """Which outcomes, by ``reason`` and ``attempts``, are to be tried again; no entry is null."""
    again = pc.is_in(outcomes["reason"], value_set=pa.array(RETRYABLE))
    return pc.and_(again, pc.less(pc.fill_null(outcomes["attempts"], 0), MAX_ATTEMPTS))


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
