"""When a key counts as done."""

import pyarrow as pa
import pytest

from mixup.cover import MAX_ATTEMPTS, RETRYABLE, uncovered


def outcomes(*rows: tuple[str, str | None, int | None]) -> pa.Table:
    keys, reasons, attempts = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {
            "uid": pa.array(keys, pa.string()),
            "reason": pa.array(reasons, pa.string()),
            "attempts": pa.array(attempts, pa.int32()),
        }
    )


def missing(found: pa.Table) -> dict[str, int]:
    return dict(zip(found["uid"].to_pylist(), found["attempts"].to_pylist(), strict=True))


def candidates(*keys: str) -> pa.Table:
    return pa.table({"uid": pa.array(keys, pa.string())})


@pytest.mark.parametrize("reason", RETRYABLE)
def test_a_key_is_covered_by_a_value_a_final_reason_or_spent_attempts(reason):
    held = outcomes(
        ("value", None, 1),
        ("final", "no_direction", 1),
        ("again", reason, 1),
        ("nearly", reason, MAX_ATTEMPTS - 1),
        ("spent", reason, MAX_ATTEMPTS),
        ("unknown", reason, None),
        ("stranger", None, 1),
    )
    keys = candidates("value", "final", "again", "nearly", "spent", "unknown", "new")
    assert missing(uncovered(keys, held, "uid")) == {
        "again": 1,
        "nearly": MAX_ATTEMPTS - 1,
        "unknown": 0,
        "new": 0,
    }


def test_a_later_value_covers_an_earlier_failure():
    held = outcomes(("a", "timeout", 1), ("a", None, 2), ("b", "timeout", 1), ("b", "timeout", 2))
    assert missing(uncovered(candidates("a", "b"), held, "uid")) == {"b": 2}


def test_nothing_held_leaves_all_and_nothing_asked_leaves_nothing():
    assert missing(uncovered(candidates("a", "b"), outcomes(), "uid")) == {"a": 0, "b": 0}
    assert uncovered(candidates(), outcomes(("a", None, 1)), "uid").num_rows == 0


def test_a_table_without_reasons_covers_by_being_there():
    held = pa.table({"uid": pa.chunked_array([["a"], ["c"]])})
    found = uncovered(candidates("a", "b", "c", "d"), held, "uid")
    assert found["uid"].to_pylist() == ["b", "d"]


def test_chunked_candidates_are_compared_whole():
    keys = pa.table({"uid": pa.chunked_array([["a"], ["b", "c"]])})
    assert missing(uncovered(keys, outcomes(("b", None, 1)), "uid")) == {"a": 0, "c": 0}
