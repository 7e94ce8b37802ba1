"""The elements of JSON arrays in a stream, each with its place, in memory of about one element.

An element that is no JSON, or is nested too deeply for the decoder, ends where its brackets and
quotes say so: it costs itself. Where they do not say so, what follows cannot be told apart, and
costs the rest of the file, as one row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator

from mixup.stages.streams import RawRow, Salvage

_READ_BYTES = 4_000_000
_HEAD_BYTES = 4096
# Before an array there may be a byte order mark.
_START = re.compile(r"[^ \t\r\n\xef\xbb\xbf]")
_BETWEEN = re.compile(r"[^ \t\r\n,]")
_QUOTED = re.compile(r'["\\]')
_INSIDE = re.compile(r'["\[\]{}]')
_OUTSIDE = re.compile(r'["\[{\],]')
# Numbers stay text: only the end of an element is looked for, and one of 5,000 digits has one.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)


class _Window:
    """The part of the text that is held: as Latin-1, where a character is a byte.

    The structure of JSON is ASCII, so nothing is lost by it.
    """

    def __init__(self, stream: Salvage) -> None:
        self._stream = stream
        self._base = 0
        self.text, self.at = "", 0

    @property
    def place(self) -> int:
        """The byte offset of where the window stands."""
        return self._base + self.at

    @property
    def held(self) -> int:
        """Bytes from there on."""
        return len(self.text) - self.at

    def grow(self) -> bool:
        """Read at least as much again; whether there was anything."""
        more = self._stream.read(max(_READ_BYTES, self.held))
        if not more:
            return False
        self._base += self.at
        self.text, self.at = self.text[self.at :] + more.decode("latin-1"), 0
        return True

    def skip_to(self, wanted: re.Pattern[str]) -> bool:
        """Go to the next character of some; whether there is one."""
        while (found := wanted.search(self.text, self.at)) is None:
            self.at = len(self.text)
            if not self.grow():
                return False
        self.at = found.start()
        return True


class _Brackets:
    """Where a value ends, by its brackets and quotes alone, over any number of parts."""

    def __init__(self) -> None:
        self._depth, self._is_quoted, self._is_escaped = 0, False, False

    def end(self, text: str, at: int) -> int | None:
        """The end of the value in this part, or None if it goes on."""
        if self._is_escaped and at < len(text):
            self._is_escaped, at = False, at + 1
        while found := self._pattern().search(text, at):
            sign, at = found.group(), found.end()
            if self._is_quoted:
                if sign == '"':
                    self._is_quoted = False
                elif at == len(text):
                    self._is_escaped = True
                else:
                    at += 1
            elif sign == '"':
                self._is_quoted = True
            elif sign in "[{":
                self._depth += 1
            elif self._depth == 0:
                return found.start()
            else:
                self._depth -= 1
                if self._depth == 0:
                    return at
        return None

    def _pattern(self) -> re.Pattern[str]:
        if self._is_quoted:
            return _QUOTED
        return _INSIDE if self._depth else _OUTSIDE


def array_elements(stream: Salvage, max_row_bytes: int) -> Iterator[RawRow]:
    """The elements of one JSON array, or of several that follow one another."""
    window = _Window(stream)
    while window.skip_to(_START):
        if window.text[window.at] != "[":
            yield _broken(window, "there is text after the array")
            return
        window.at += 1
        if not (yield from _elements(window, max_row_bytes)):
            return


def _elements(window: _Window, max_row_bytes: int) -> Generator[RawRow, None, bool]:
    """The elements up to the array's end; returns whether it was reached."""
    while window.skip_to(_BETWEEN):
        if window.text[window.at] == "]":
            window.at += 1
            return True
        row = _element(window, max_row_bytes)
        yield row
        if row.reason == "broken_array":
            return False
    yield _broken(window, "the array has no end")
    return False


def _element(window: _Window, max_row_bytes: int) -> RawRow:
    while True:
        end, problem = _end_of(window)
        # A number may go on in the next part, and so may its exponent.
        is_sure = end is not None and end + 2 < len(window.text)
        if is_sure or window.held > max_row_bytes or not window.grow():
            break
    if end is None:
        is_long = window.held > max_row_bytes
        return _skip_long(window) if is_long else _broken(window, problem)
    place, raw = window.place, window.text[window.at : end].rstrip().encode("latin-1")
    window.at = end
    if len(raw) <= max_row_bytes:
        return RawRow(place, raw)
    return RawRow(place, raw[:_HEAD_BYTES], reason="row_too_long", detail=f"{len(raw)} bytes")


def _end_of(window: _Window) -> tuple[int | None, str]:
    """Where the element ends, None if not in what is held, and what the decoder says of it."""
    try:
        _, end = _DECODER.raw_decode(window.text, window.at)
    except (ValueError, RecursionError) as error:
        return _Brackets().end(window.text, window.at), str(error)[:200]
    return end, ""


def _skip_long(window: _Window) -> RawRow:
    """Go over an element that is longer than a row may be, without holding it."""
    place, head = window.place, window.text[window.at : window.at + _HEAD_BYTES]
    brackets = _Brackets()
    while (end := brackets.end(window.text, window.at)) is None:
        window.at = len(window.text)
        if not window.grow():
            detail = f"the array ends within an element of {window.place - place} bytes"
            return RawRow(place, head.encode("latin-1"), reason="broken_array", detail=detail)
    window.at = end
    detail = f"{window.place - place} bytes"
    return RawRow(place, head.encode("latin-1"), reason="row_too_long", detail=detail)


def _broken(window: _Window, problem: str) -> RawRow:
    raw = window.text[window.at : window.at + _HEAD_BYTES].encode("latin-1")
    return RawRow(window.place, raw, reason="broken_array", detail=problem)
