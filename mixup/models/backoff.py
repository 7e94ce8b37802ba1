"""When to ask a busy server again: exponential backoff with full jitter, and ``Retry-After``."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def backoff_s(retry: int, *, first_s: float, cap_s: float, draw: float) -> float:
    """The seconds before a retry: a uniform draw from [0, min(cap, first * 2 ** (retry - 1))].

    Full jitter spreads clients that failed at the same moment. Source: M. Brooker, "Exponential
    Backoff And Jitter", AWS Architecture Blog, 2015.

    Args:
        retry: 1 for the first retry.
        first_s: The longest wait before the first retry.
        cap_s: The longest wait at all.
        draw: A number from [0, 1).
    """
    doubled = first_s * 2.0 ** min(retry - 1, 60)  # beyond 60 doublings every cap has been reached
    return draw * min(cap_s, doubled)


def retry_after_s(header: str | None, *, now: datetime) -> float | None:
    """The seconds that a ``Retry-After`` header asks to wait; None where it says nothing readable.

    It holds seconds or an HTTP date; a time that has passed asks for no wait. Source: RFC 9110,
    10.2.3. Decimals, which some servers send, are taken.

    Args:
        header: Its value.
        now: The present, with a time zone.
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        return _until(header, now)
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _until(date: str, now: datetime) -> float | None:
    try:
        then = parsedate_to_datetime(date)
    except ValueError:
        return None
    if then.tzinfo is None:  # "-0000", or no zone at all
        then = then.replace(tzinfo=UTC)
    return max(0.0, (then - now).total_seconds())
