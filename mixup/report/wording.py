"""How the report writes values: numbers, shares, durations, and text that came with the data."""

from __future__ import annotations

import re
import unicodedata

from mixup.ledger import (
    FATE_DUPLICATE,
    FATE_LEFT_OUT,
    FATE_MERGED,
    FATE_ORIGINAL,
    FATE_QUARANTINED,
)
from mixup.report.digest import Counts

MISSING = "—"
HEAD_CHARS = 480  # characters of a long text shown before it is opened

# In the order they are shown: what is in the release first.
FATES = {
    FATE_ORIGINAL: "Kept as an original",
    FATE_MERGED: "Merged into a distilled row",
    FATE_DUPLICATE: "Duplicate of another row",
    FATE_QUARANTINED: "Quarantined",
    FATE_LEFT_OUT: "Left out",
}


def visible(text: object) -> str:
    """Text whose control, format and surrogate characters are shown as [U+XXXX].

    A right-to-left override or a zero-width character in the data would otherwise make the page
    show something else than what is stored. Joiners inside words and emoji are kept.
    """
    return _UNPLAIN.sub(lambda found: _shown(found[0]), str(text))


_UNPLAIN = re.compile(r"[^\n\t\x20-\x7e]")  # most text is plain, and passes at once


def _shown(char: str) -> str:
    if char in "\n\t\u200c\u200d" or unicodedata.category(char) not in ("Cc", "Cf", "Cs"):
        return char
    return f"[U+{ord(char):04X}]"


def clip(text: object, chars: int = 300) -> str:
    """Visible text of at most ``chars`` characters, with how many are left out."""
    whole = str(text)
    rest = len(whole) - chars
    return visible(whole[:chars]) + (f" … ({rest:,} more characters)" if rest > 0 else "")


def split_text(text: str) -> tuple[str, str]:
    """A text as the head that is shown and the rest that is opened; short texts have no rest."""
    if len(text) <= HEAD_CHARS * 3 // 2:
        return text, ""
    cut = max(text.rfind(mark, HEAD_CHARS // 2, HEAD_CHARS) for mark in ("\n", ". ", " "))
    cut = cut + 1 if cut > 0 else HEAD_CHARS
    return text[:cut].rstrip(), text[cut:].lstrip("\n")


def words(name: str | None) -> str:
    """A name such as ``no_answer`` as words; "not stated" for none."""
    return visible(name).replace("_", " ") if name else "not stated"


def percent(share: float | None) -> str:
    """A share in [0, 1] as a percentage; neither 0 nor 100 % unless it is."""
    if share is None:
        return MISSING
    if 0 < share < 0.001:
        return "< 0.1 %"
    return "> 99.9 %" if 0.999 < share < 1 else f"{100 * share:.1f} %"


def number(value: int | None) -> str:
    """A count with thousands separators."""
    return MISSING if value is None else f"{value:,}"


def score(value: float | None) -> str:
    """A reward or cosine with two decimals."""
    return MISSING if value is None else f"{value:.2f}"


def seconds(value: float | None) -> str:
    """Seconds in the units that people read, down to milliseconds."""
    if value is None or value >= 1 or value == 0:
        return duration(value)
    return f"{1000 * value:.0f} ms"


def rate(count: int | None, seconds: float | None) -> str:
    """Units a second, with as many digits as say something."""
    if count is None or not seconds:
        return MISSING
    value = count / seconds
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def amount(name: str, value: int) -> str:
    """A named count: ``cost_microdollars`` in dollars, anything else as a number."""
    if name.endswith("microdollars"):
        return f"${value / 1e6:,.4f}"
    return number(value)


def amount_label(name: str) -> str:
    """The name of a count without the unit that ``amount`` writes with its value."""
    return words(name.removesuffix("_microdollars"))


def duration(seconds: float | None) -> str:
    """Seconds in the units that people read."""
    if seconds is None:
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def sentence(text: str) -> str:
    """Text with its first letter as a capital."""
    return text[:1].upper() + text[1:]


def fate_label(name: str) -> str:
    """A fate as words: its kind, and the reason after the colon if it has one."""
    kind, _, reason = name.partition(":")
    label = FATES.get(kind, sentence(words(kind)))
    return f"{label}: {words(reason)}" if reason else label


def shortfall(counts: Counts) -> str | None:
    """One plain sentence on how the release missed its size, or None if it did not."""
    wanted = counts.wanted_distilled + counts.wanted_originals
    if counts.distilled >= counts.wanted_distilled and counts.originals >= counts.wanted_originals:
        return None
    return (
        f"{wanted:,} rows were asked for and the release has {counts.rows:,}: "
        f"{counts.distilled:,} of {counts.wanted_distilled:,} distilled and "
        f"{counts.originals:,} of {counts.wanted_originals:,} originals."
    )
