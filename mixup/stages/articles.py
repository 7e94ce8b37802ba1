"""Reading articles of raw text from rows, plain text files and extracts of Wikipedia."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mixup.errors import RecordError
from mixup.mixture_config import TextConfig
from mixup.stages.rows import WHOLE_FILE, read_rows
from mixup.stages.sources import Chunk, open_file
from mixup.stages.streams import BROKEN, RawRow, decompressed, failure
from mixup.text.formats import decode_line

_OPENS = re.compile(rb"<doc\b([^>]*)>\s*$")
_CLOSES = b"</doc>"
_TITLE = re.compile(r'\btitle="([^"]*)"')
_LICENCES = ("licence", "license")
_RAW_KEPT_BYTES = 4096


@dataclass(frozen=True)
class Article:
    """An article as it stands in its file, or why it cannot be read.

    Attributes:
        offset: Its place: the byte at which it starts (the row's index in Parquet and Arrow files).
        title: Its title, or "".
        text: Its text, or "".
        source: The row's ``source``, or "".
        licence: The row's licence, or "".
        reason: Why it cannot be read, or None.
        detail: More on the reason.
        raw: The beginning of its bytes, where it cannot be read.
    """

    offset: int
    title: str = ""
    text: str = ""
    source: str = ""
    licence: str = ""
    reason: str | None = None
    detail: str = ""
    raw: bytes = b""


def read_articles(chunk: Chunk, config: TextConfig) -> Iterator[Article]:
    """The articles of a chunk in file order; never raises for what the file holds."""
    if chunk.file.format == "text":
        yield from _text_file(chunk, config)
        return
    for row in read_rows(chunk, max_row_bytes=config.max_article_bytes):
        try:
            yield _article_of(row, config)
        except RecordError as error:
            raw = row.raw[:_RAW_KEPT_BYTES]
            yield Article(row.offset, reason=error.reason, detail=str(error), raw=raw)


def _article_of(row: RawRow, config: TextConfig) -> Article:
    if row.reason:
        raise RecordError(row.reason, row.detail)
    value = row.value if row.value is not None else decode_line(row.raw)
    if not isinstance(value, dict):
        raise RecordError("not_an_object", "an article is a row with a column of text")
    if config.field not in value:
        raise RecordError("no_text_column", f"it has {', '.join(map(str, list(value)[:12]))}")
    text = value[config.field]
    if not isinstance(text, str | None):
        raise RecordError("wrong_type", f"{config.field} is no text but {type(text).__name__}")
    licence = next((name for name in _LICENCES if isinstance(value.get(name), str)), "")
    return Article(
        offset=row.offset,
        title=_label(value.get(config.title)),
        text=text or "",
        source=_label(value.get("source")),
        licence=_label(value.get(licence)),
    )


def _label(value: object) -> str:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def _text_file(chunk: Chunk, config: TextConfig) -> Iterator[Article]:
    """The one article of a plain text file, or those of an extract."""
    file, place = chunk.file, WHOLE_FILE
    try:
        with open_file(file) as opened:
            stream = decompressed(opened, file.compression)
            head = stream.peek(4096)[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
            if head.startswith(b"<doc "):
                for article in _extracts(stream, config.max_article_bytes):
                    place = article.offset
                    yield article
                return
            if not head.startswith(b"{"):
                yield _whole(stream, file.name, config.max_article_bytes)
                return
    except BROKEN as error:
        detail = f"after offset {place}: {' '.join(str(error).split())[:300]}"
        yield Article(WHOLE_FILE, reason=failure(error), detail=detail)
        return
    yield from read_articles(replace(chunk, file=replace(file, format="jsonl")), config)


def _whole(stream: io.BufferedReader, name: str, limit: int) -> Article:
    data = stream.read(limit + 1)
    if len(data) > limit:
        return Article(0, reason="row_too_long", detail=f"over {limit} bytes", raw=data[:4096])
    return _decoded(0, name.replace("_", " "), data)


def _decoded(offset: int, title: str, data: bytes) -> Article:
    try:
        return Article(offset, title, data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        detail = f"byte {error.start}: {error.reason}"
        return Article(offset, reason="not_utf8", detail=detail, raw=data[:_RAW_KEPT_BYTES])


def _extracts(stream: io.BufferedReader, limit: int) -> Iterator[Article]:
    """The ``<doc ...>`` blocks that WikiExtractor writes; text between them is none of it."""
    start, opened, held, size, place = 0, "", [], 0, 0
    is_open = False
    for line in stream:
        if found := _OPENS.match(line.strip()):
            if is_open:  # the one before was not closed
                yield Article(start, reason="unclosed_article", raw=b"".join(held)[:4096])
            opened = found.group(1).decode("utf-8", "replace")
            start, held, size, is_open = place, [], 0, True
        elif is_open and line.strip() == _CLOSES:
            yield _extract(start, opened, held, size, limit)
            held, is_open = [], False
        elif is_open:
            size += len(line)
            if size <= limit:
                held.append(line)
        place += len(line)
    if is_open:
        yield Article(start, reason="unclosed_article", raw=b"".join(held)[:4096])


def _extract(start: int, opened: str, held: list[bytes], size: int, limit: int) -> Article:
    if size > limit:
        raw = b"".join(held)[:_RAW_KEPT_BYTES]
        return Article(start, reason="row_too_long", detail=f"{size} bytes", raw=raw)
    named = _TITLE.search(opened)
    title = html.unescape(named.group(1)) if named else ""
    lines = [line for line in held if line.strip()]
    if lines and title and html.unescape(lines[0].decode("utf-8", "replace")).strip() == title:
        lines = lines[1:]  # the extractor writes the title above the text
    return _decoded(start, title, b"".join(lines))
