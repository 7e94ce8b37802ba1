"""Prose in raw text: markup taken off, and the sentences that can be shown to a reader."""

from __future__ import annotations

import html
import re

from mixup.mixture.vocabulary import ENGLISH
from mixup.text.stops import shielded

HOLE = "\u2026"
"""Stands where extraction lost something ("at least  of highways"): no such sentence is sound."""

# The bounds keep a text of openings that are never closed linear.
_COMMENT = re.compile(
    r"<!--.{0,1000}?-->|<ref\b[^<>]{0,400}/>|<ref\b.{0,1000}?</ref>", re.DOTALL | re.IGNORECASE
)
_TEMPLATE = re.compile(r"\{\{[^{}]*\}\}")
_LINK = re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]")
_TAG = re.compile(r"<[^<>\n]{1,400}>")
# [1], [12], [a], [note 3], [NB 1], [citation needed], [ 4 ]
_CITATION = re.compile(
    r"\[\s?(?:\d{1,3}|[a-z]{1,2}|(?:note|nb|n|lower-alpha|fn|ref)\s?\d*|[a-z]+ needed|[a-z]+\?)"
    r"\s?\]",
    re.IGNORECASE,
)
_NOT_PROSE = re.compile(r"\s*(?:\{\||\|[}\-+|]?|!|={2,}.*={2,}\s*$|https?://\S+\s*$)")
_QUOTE_MARKS = re.compile(r"'{2,5}")
_PARENTHESES = re.compile(r" ?\(([^()]*)\)")
_LANGUAGE_NOTE = re.compile(
    r"[/ˈˌːɪəɛɔʊæɑŋʃθðʒɹ\[\]]|pronounc|pronunciation|listen|romani[sz]ed|\blit\.|\btr\.|\bIPA\b"
    r"|\b(?:Greek|German|French|Latin|Arabic|Russian|Chinese|Japanese|Hebrew|Spanish|Italian|Dutch"
    r"|Portuguese|Polish|Turkish|Persian|Sanskrit|Hindi|Korean|Ukrainian|Welsh|Irish|Catalan"
    r"|Swedish|Danish|Norwegian|Hungarian|Czech|Vietnamese|Thai|Tamil|Bengali|Old English)\b[^,;]*:"
)
_LOST_START = re.compile(r"(?<=[.!?)]) +, (?=[a-z])")  # "The land is flat. , the towns are small."
# What a lost template leaves behind: nothing between a word that asks for more and what follows.
_LOST = re.compile(
    r"(?<=[^\W\d_]) +, (?=[a-z])"
    r"|\b(of|at|least|about|than|is|a|an|approximately|around|to|by|from|some|in|over|the) {2,}"
    r"(?=[a-z,.;])"
)
# "a mountain range.TransportThe Algerian road network": a heading stood between the two.
_GLUED = re.compile(r"((?<=[a-z\d\])\"”])[.!?]|[.!?][\"”])(?=[A-Z][a-z])")
_GLUED_HEADING = re.compile(
    rf"(?m)^(?:{HOLE} )?[A-Z][\w' -]{{1,60}}?[a-z]"
    r"(?=(?:The|In|A|An|It|This|These|As|At|By|For|During|After|Although|While|Since|Some|Many|Most"
    r"|There|His|Her|He|She|They|When|On|From|One|According|Each|All|Both|Its|Their|Another|Several"
    r"|If|With|Like|Other|Under|Until|Unlike|However|To)\b[ ,])"
)
# A comma that closed a note taken off: "Naval Station Norfolk (...), is a base".
_LONE_COMMA = re.compile(r"(?m)^([A-Z][^.,;:()]{1,60}), (?=(?:is|are|was|were) )")
_SPACES = re.compile(r"[ \t\u00a0\u2000-\u200b\u202f\u3000]+")
_MARKER = re.compile(r"\s*\(?\d{1,3}[.)]")  # "1. Sift the flour."
_BREAK = re.compile(r"(?<=[.!?])[\"”’')\]]{0,2} +(?=[\"“‘'(\[]?[A-Z\d])")
_CLOSED = re.compile(r"[.!?][\"”’')]{0,2}$")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_INNER_CAPITAL = re.compile(
    r"(?<![^\W_])(?!Mc|Mac|De|Le|La|Di|Du|Van|Fitz|O)[A-Z][a-z]{3,}[A-Z][a-z]{2,}"
)
_OPENS = re.compile(r"[\"“‘'(]?[A-Z\d]")
_RAW = re.compile(r"https?:|[$£€][ )]|www\.|[{}|<>=\\_#@]|ISBN|OCLC|\bpp?\. ?\d|&[a-z]+;|[\[\]]")
_ENGLISH = frozenset(ENGLISH)
_SHORTEST, _LONGEST = 5, 60
_LEAST_ENGLISH = 0.15


def plain_text(text: str) -> str:
    """The prose of a text, a paragraph a line.

    Wiki and HTML markup, citation marks, table rows, headings, bare addresses and notes on
    pronunciation are taken off. ``HOLE`` stands where extraction lost a template, and before a
    sentence that may have a heading glued to it.
    """
    text = html.unescape(text.replace("\r\n", "\n").replace("\r", "\n"))
    text = _QUOTE_MARKS.sub("", _TAG.sub("", _COMMENT.sub("", text)))
    for _ in range(3):  # templates and links nest
        text = _LINK.sub(r"\1", _TEMPLATE.sub("", text))
    text = _CITATION.sub("", text)
    lines = (line for line in text.split("\n") if not _NOT_PROSE.match(line))
    text = _GLUED.sub(rf"\1\n{HOLE} ", "\n".join(lines))
    text = _GLUED_HEADING.sub("", text)
    text = _LOST_START.sub(f"\n{HOLE} ", text)
    text = _LOST.sub(lambda found: f"{found.group(1) or ''} {HOLE} ", text)
    for _ in range(2):  # "(/tɛˈræn/ (listen); Persian: ...)"
        text = _PARENTHESES.sub(_without_language_notes, text)
    text = _LONE_COMMA.sub(r"\1 ", text)
    return "\n".join(filter(None, (_SPACES.sub(" ", line).strip() for line in text.split("\n"))))


def sentences(text: str) -> list[str]:
    """The sentences of plain text in order, headings and fragments included."""
    found: list[str] = []
    for line in text.split("\n"):
        found.extend(_sentences_of_line(line))
    return found


def sound_runs(text: str) -> list[list[str]]:
    """The sound sentences of plain text, in runs that nothing unsound interrupts.

    Sound means: one whole sentence of 5 to 60 words without leftovers of extraction.
    """
    runs: list[list[str]] = [[]]
    for sentence in sentences(text):
        if is_sound(sentence):
            runs[-1].append(sentence)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def is_sound(sentence: str) -> bool:
    """Whether a sentence is whole: opened, closed, balanced, of fair length, without leftovers."""
    words = _WORD.findall(sentence)
    return (
        len(words) >= _SHORTEST
        and len(sentence.split()) <= _LONGEST
        and _OPENS.match(sentence) is not None
        and _CLOSED.search(sentence) is not None
        and HOLE not in sentence
        and _is_balanced(sentence)
        and not _RAW.search(sentence)
        and not _INNER_CAPITAL.search(sentence)
        and any(word.casefold() in _ENGLISH for word in words)
    )


def is_english(text: str) -> bool:
    """Whether common English words make up enough of a text; short texts are given the benefit."""
    words = [word.casefold() for word in _WORD.findall(text[:4000])]
    if len(words) < 8:
        return text.isascii()
    return sum(word in _ENGLISH for word in words) / len(words) >= _LEAST_ENGLISH


def words_of(text: str) -> list[str]:
    """The words, without numbers and punctuation, as they are written."""
    return _WORD.findall(text)


def _sentences_of_line(line: str) -> list[str]:
    pieces: list[str] = []
    start = 0
    for found in _BREAK.finditer(shielded(line)):
        # Closing quotes belong to the sentence before, so the cut is at the blank.
        end = found.end() - (len(found.group()) - len(found.group().rstrip(" ")))
        if _MARKER.fullmatch(line, start, end):
            continue
        pieces.append(line[start:end].strip())
        start = found.end()
    pieces.append(line[start:].strip())
    return [piece for piece in pieces if piece]


def _without_language_notes(found: re.Match[str]) -> str:
    parts = found.group(1).split(";")
    kept = [part.strip(" ,:") for part in parts if part.strip() and not _LANGUAGE_NOTE.search(part)]
    if len(kept) == len(parts):
        return found.group()
    return f" ({'; '.join(kept)})" if any(any(map(str.isalnum, part)) for part in kept) else ""


def _is_balanced(sentence: str) -> bool:
    return (
        sentence.count("(") == sentence.count(")")
        and sentence.count("“") == sentence.count("”")
        and sentence.count('"') % 2 == 0
    )
