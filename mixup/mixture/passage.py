"""A segment read for items: its topic, and the sentences that can be shown without the rest."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mixup.errors import RecordError
from mixup.mixture.items import Segment
from mixup.mixture.prose import is_english, plain_text, sound_runs
from mixup.mixture.topics import (
    Definition,
    definition_of,
    leans_on_topic,
    mentions,
    named_in_text,
    topic_of,
)

# What points to a sentence before, or to a place on the page.
_LEANS = re.compile(
    r"[\"“(]?(?:He|She|It|They|This|These|Those|That|Such|His|Her|Its|Their|Here|There(?:fore|by)?|"
    r"Then|Thus|Hence|However|But|And|Or|So|Also|Additionally|Moreover|Furthermore|Nevertheless|"
    r"Nonetheless|Instead|Otherwise|Meanwhile|While|Similarly|Likewise|Conversely|Consequently|Afterwards|"
    r"Subsequently|Finally|Eventually|Later|Soon|Both|Another|Other|Others|Neither|Either|Some|"
    r"Only|We|I|You|Our|My|Your|Each|One|Two|Three|All|Most|Many|Several|Yet|Because|"
    r"(?:The|A|An) (?:latter|former|following|other|same|first|second|third|two|three|four|next|"
    r"last|rest|result|series|film|show|book|novel|game|song|album|episode|event|battle|war|"
    r"company|team|city|town|area|region|term|name|word|building|site|group|family|story|plot)|"
    r"(?:In|At|For|By|After|During|Since|Under|On|From|With|Among|Of|As|To|Despite|Before|Until) "
    r"(?:this|these|that|those|such|addition|contrast|turn|fact|particular|general|other|both|it|"
    r"him|them|her|his|their|its|the (?:same|latter|former|following|process|end|meantime)|"
    r"response|return|doing|a result|well|example|instance|a (?:similar|later))\b"
    r"|For example|For instance|As a result|On the other|\w+ (?:years?|months?|days?|weeks?) "
    r"(?:later|after|before|earlier))\b"
)
_POINTS = re.compile(
    r"\b(?:see (?:also|below|above)|as (?:noted|mentioned|described|shown) (?:above|below)|"
    r"aforementioned|this article|(?:listed|described|given|shown) below|"
    r"following (?:list|table|section))\b",
    re.IGNORECASE,
)
_PRONOUN = re.compile(r"\b(?:he|she|his|her|him|himself|herself)\b|^[^,]*, (?:it|they)\b")
_LEADING_PRONOUN = re.compile(
    r"(He|She|It) (?=(?:is|was|has|had|became|won|served|studied|began)\b)"
)
_IT_IS_THAT = re.compile(
    r"It (?:is|was|has|had) (?!(?:an?|the|also|located|situated|built|founded|named|designed|"
    r"released|published|written|directed|produced|established|based|part|used|one|known|"
    r"composed|developed|created|bordered|home|native)\b)"
)
_SHORTEST_WORDS = 12
_CONTEXT_CHARS = 4000


@dataclass(frozen=True, slots=True)
class Passage:
    """A segment's prose.

    Attributes:
        segment: The segment.
        topic: What it is about, as within a sentence ("emperor penguin", "Immanuel Kant").
        title: The topic as a title.
        definition: What its first sound sentence says the topic is, or None.
        runs: Sound sentences in the order of the text, in runs without gaps.
        alone: The sentences that can be read alone: they name their subject.
    """

    segment: Segment
    topic: str
    title: str
    definition: Definition | None
    runs: list[list[str]]
    alone: list[str]

    @property
    def text(self) -> str:
        """All sound sentences."""
        return " ".join(sentence for run in self.runs for sentence in run)

    @property
    def around(self) -> str:
        """All sound sentences, and some of the article's other text."""
        context = self.segment.context[:_CONTEXT_CHARS]
        return f"{self.text}\n{plain_text(context)}" if context else self.text


def passage_of(segment: Segment) -> Passage:
    """A segment's prose, read for items.

    Raises:
        RecordError: ``no_prose`` (nothing is left without its markup), ``not_english``,
            ``no_topic`` (the title names none), ``no_sound_sentence``.
    """
    text = plain_text(segment.text)
    if not any(map(str.isalpha, text)):
        raise RecordError("no_prose", "nothing but markup, or nothing at all")
    if not is_english(text):
        raise RecordError("not_english", text[:60])
    title = topic_of(segment.title)
    if title is None:
        raise RecordError("no_topic", f"the title {segment.title[:60]!r} names no subject")
    runs = _runs_of(text)
    if not runs:
        raise RecordError("no_sound_sentence", text[:60])
    definition = definition_of(runs[0][0], title)
    topic = named_in_text(title, " ".join(sentence for run in runs for sentence in run))
    alone = [sentence for run in runs for sentence in _named(run, title, definition)]
    return Passage(segment, topic, title, definition, runs, alone)


def stands_alone(sentence: str, title: str) -> bool:
    """Whether a sentence names the topic, and leans on no sentence before it.

    It leans on one where it opens with a word that points back, or has a personal pronoun before
    the topic is named.
    """
    if _LEANS.match(sentence) or not mentions(sentence, title):
        return False
    pronoun = _PRONOUN.search(sentence)
    return pronoun is None or mentions(sentence[: pronoun.start()], title)


def _runs_of(text: str) -> list[list[str]]:
    """Runs of sound sentences, none of which points to a place on the page."""
    runs = []
    for run in sound_runs(text):
        runs.append([])
        for sentence in run:
            if _POINTS.search(sentence):
                runs.append([])
            else:
                runs[-1].append(sentence)
    return [run for run in runs if run]


def opening(passage: Passage, *, least: int, most: int) -> list[str] | None:
    """The first sentences that make a text: they begin alone and name the topic.

    Args:
        passage: The passage.
        least: The fewest words.
        most: The most words.
    """
    for run in passage.runs:
        for at, first in enumerate(run):
            if not stands_alone(first, passage.title):
                continue
            taken = _upto(run[at:], most)
            if sum(len(sentence.split()) for sentence in taken) >= least:
                return taken
    return None


def _upto(run: list[str], most: int) -> list[str]:
    words = 0
    for at, sentence in enumerate(run):
        words += len(sentence.split())
        if words > most:
            return run[:at]
    return run


def _named(run: list[str], title: str, definition: Definition | None) -> list[str]:
    """The sentences of a run that name their subject, a leading pronoun replaced by the topic.

    A pronoun is replaced only where the sentence before it begins with the topic, so that it can
    mean nothing else: "He" of a person, "It" of a thing.
    """
    found = []
    follows_topic = False
    for sentence in run:
        shown = sentence
        if follows_topic and definition is not None:
            shown = _with_subject(sentence, title, definition)
        is_short = len(shown.split()) < _SHORTEST_WORDS
        follows_topic = shown.startswith(title)
        if not is_short and stands_alone(shown, title) and not leans_on_topic(shown, title):
            found.append(shown)
    return found


def _with_subject(sentence: str, title: str, definition: Definition) -> str:
    found = _LEADING_PRONOUN.match(sentence)
    if found is None or definition.verb in ("are", "were"):
        return sentence
    if (found.group(1) == "It") == definition.is_person or _IT_IS_THAT.match(sentence):
        return sentence
    return f"{title}{sentence[len(found.group(1)) :]}"
