from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup.models.backoff import backoff_s, retry_after_s

NOW = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("retry", "draw", "seconds"),
    [(1, 0.5, 0.5), (2, 0.5, 1.0), (3, 0.25, 1.0), (5, 0.5, 5.0), (9, 0.999, 9.99), (4, 0.0, 0.0)],
)
def test_the_wait_doubles_up_to_the_cap(retry, draw, seconds):
    assert backoff_s(retry, first_s=1.0, cap_s=10.0, draw=draw) == pytest.approx(seconds)


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_the_wait_stays_within_the_cap(retry, draw):
    assert 0 <= backoff_s(retry, first_s=0.5, cap_s=30.0, draw=draw) <= 30.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("", None),
        ("Tue, 03 Feb 2026 04:05:36 GMT", 30.0),
        ("Tue, 03 Feb 2026 04:05:36 -0000", 30.0),
        ("Tue, 03 Feb 2026 06:05:36 +0200", 30.0),
        ("Tue, 03 Feb 2026 04:00:00 GMT", 0.0),
    ],
)
def test_retry_after_in_seconds_or_as_a_date(header, seconds):
    assert retry_after_s(header, now=NOW) == seconds
