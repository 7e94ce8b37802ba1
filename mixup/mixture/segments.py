"""Articles of raw text cut into segments: blocks of whole sentences under a token budget."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from mixup.errors import RecordError
from mixup.mixture.prose import plain_text, sentences
from mixup.mixture.vocabulary import ENGLISH
from mixup.records import content_key, estimated_tokens
from mixup.text.messages import check_text

ARTICLE_REASONS = (
    "empty_article",  # there is no text
    "only_markup",  # tables, headings and markup, and no prose
    "other_language",  # too few of its words are English
    "too_short",  # too little prose for an item
    "long_sentences",  # every sentence is longer than a segment may be
    "invalid_unicode",  # lone surrogates
)
"""Why an article gives no segment."""

_CONTROL = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060\ufeff]"
)
_BREAKS = re.compile(r"\r\n?|\u2028|\u2029")
_WORD = re.compile(r"[^\W\d_]+")
_ENGLISH = frozenset(ENGLISH)
_JUDGED_CHARS = 20_000
_FEW_WORDS = 20
_BLOCK_CHARS = 200_000
"""Prose is taken from so much of a long article at a time, cut between lines."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block of an article's prose.

    Attributes:
        number: Its place among the article's blocks, from 0.
        text: Whole sentences; paragraphs are parted by a line end.
        tokens: Estimated tokens.
    """

    number: int
    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class SegmentRules:
    """How articles are cut.

    Attributes:
        max_tokens: Most estimated tokens of a block.
        min_tokens: Fewest of an article.
        min_english: Least share of English function words among an article's words.
    """

    max_tokens: int = 256
    min_tokens: int = 20
    min_english: float = 0.12


def segment_key(text: str) -> str:
    """The content key of a block: equal for equal text, whatever article it is from."""
    return content_key("segment-v1", text)


def article_key(title: str, text: str) -> str:
    """The key by which splits keep together what belongs together.

    Rows of one title are one article: corpora of passages have a row for each passage. Without a
    title it is the text's.
    """
    folded = " ".join(title.split()).casefold()
    return content_key("article-title", folded) if folded else content_key("article-text", text)


def blocks_of(text: str, rules: SegmentRules) -> list[Block]:
    """The blocks of an article, in order; a sentence is never divided.

    Sentences are packed up to the budget; a block ends early where a paragraph does and it is half
    full. What remains at the end joins the last block where it fits. A sentence that is longer than
    the budget is left out.

    Args:
        text: The article, plain or with markup.
        rules: The budget and what else an article must have.

    Raises:
        RecordError: With one of ``ARTICLE_REASONS``.
    """
    check = _BREAKS.sub("\n", text)
    if not check.strip():
        raise RecordError("empty_article")
    check_text(check.replace("\x00", ""))
    paragraphs = [found for part in _parts(_CONTROL.sub("", check)) for found in _prose(part)]
    if not paragraphs:
        raise RecordError("only_markup")
    if (share := english_share(paragraphs)) < rules.min_english:
        raise RecordError("other_language", f"{share:.2f} of its words are English function words")
    total = sum(estimated_tokens(paragraph) for paragraph in paragraphs)
    if total < rules.min_tokens:
        raise RecordError("too_short", f"{total} tokens, at least {rules.min_tokens}")
    texts = list(_packed(paragraphs, rules.max_tokens))
    if not texts:
        raise RecordError("long_sentences", f"none has at most {rules.max_tokens} tokens")
    return [Block(at, found, estimated_tokens(found)) for at, found in enumerate(texts)]


def english_share(paragraphs: list[str]) -> float:
    """The share of English function words among the words of some text's beginning.

    Text in another script has words, and none of them is English. A text of few words counts as
    English when any of them is one.
    """
    words: list[str] = []
    held = 0
    for paragraph in paragraphs:
        words += _WORD.findall(paragraph[: _JUDGED_CHARS - held].casefold())
        held += len(paragraph)
        if held >= _JUDGED_CHARS:
            break
    found = sum(word in _ENGLISH for word in words)
    if len(words) < _FEW_WORDS:
        return float(found > 0)
    return found / len(words)


def _parts(text: str) -> Iterator[str]:
    """A long text in parts, cut between lines: markup is looked for within a part."""
    start = 0
    while len(text) - start > _BLOCK_CHARS:
        end = text.rfind("\n", start, start + _BLOCK_CHARS)
        end = start + _BLOCK_CHARS if end <= start else end + 1
        yield text[start:end]
        start = end
    yield text[start:]


def _prose(text: str) -> list[str]:
    plain = unicodedata.normalize("NFC", plain_text(text))
    return [line for line in (" ".join(row.split()) for row in plain.split("\n")) if line]


def _packed(paragraphs: list[str], budget: int) -> Iterator[str]:
    """Blocks of whole sentences; the last one takes the rest where it fits."""
    block = _Block(budget)
    before: str | None = None
    for paragraph in paragraphs:
        for sentence in sentences(paragraph):
            if estimated_tokens(sentence) > budget:
                continue
            if not block.takes(sentence):
                if before is not None:
                    yield before
                before = block.end()
                block.takes(sentence)
        if block.is_half_full:
            if before is not None:
                yield before
            before = block.end()
        else:
            block.end_paragraph()
    rest = block.end()
    whole = f"{before}\n{rest}" if before and rest else before or rest
    if before and rest and estimated_tokens(whole) > budget:
        yield before
        whole = rest
    if whole:
        yield whole


class _Block:
    """Sentences on their way into a block."""

    def __init__(self, budget: int) -> None:
        self._budget, self._tokens = budget, 0
        self._lines: list[list[str]] = [[]]

    @property
    def is_half_full(self) -> bool:
        return self._tokens * 2 >= self._budget

    def takes(self, sentence: str) -> bool:
        """Take a sentence, if there is room."""
        # One more for what parts it from the last: bytes are rounded up to tokens.
        tokens = estimated_tokens(sentence) + (1 if self._tokens else 0)
        if self._tokens + tokens > self._budget:
            return False
        self._tokens += tokens
        self._lines[-1].append(sentence)
        return True

    def end_paragraph(self) -> None:
        if self._lines[-1]:
            self._lines.append([])

    def end(self) -> str:
        """The block's text; what comes next is another block."""
        text = "\n".join(" ".join(line) for line in self._lines if line)
        self._lines, self._tokens = [[]], 0
        return text
