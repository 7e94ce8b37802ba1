"""Question-answer, category-statement and paragraph items: text extracted, never rewritten."""

from __future__ import annotations

import random
import re

from mixup.errors import RecordError
from mixup.mixture.facts import facts_of
from mixup.mixture.items import Item
from mixup.mixture.passage import Passage, opening, stands_alone
from mixup.mixture.topics import (
    definition_of,
    mentions,
    named_in_text,
    plural_kind,
    with_article,
)
from mixup.text.stops import SHIELD, shielded, unshielded

_ANSWER_WORDS = (20, 110)
_STATEMENT_WORDS = 70
_PARAGRAPH_WORDS = (45, 180)
_ARTICLE = re.compile(r"(The|An|A) ")
_DATE = (
    r"(?:in (?:early |late |mid-)?(?:the )?\d{4}s?|on (?:\d{1,2} [A-Z]\w+|[A-Z]\w+ \d{1,2},) \d{4})"
)
_MADE = (
    r"founded|built|established|released|published|born|completed|opened|created|introduced|"
    r"discovered|formed|abolished|launched|signed|constructed|invented|elected|appointed|killed|"
    r"destroyed|adopted|designed|developed|incorporated|named|added|awarded|crowned|recorded"
)
# The date must end its phrase: "in 1889 by" is a date of the verb, "in 1889 dollars" is not.
_WHEN = re.compile(
    rf"(?P<subject>[A-Z][^.,;:()]{{2,60}}?) (?P<verb>was|were) (?P<made>{_MADE})\b"
    rf"(?P<rest>[^.;()]{{0,80}}?) {_DATE}(?=[.,;]| (?:by|in|at|as|and|to|with|after|under)\b)"
)
_WHERE = re.compile(
    r"(?P<subject>[A-Z][^.,;:()]{2,60}?),? (?P<verb>is|are|was|were) "
    r"(?:a[n]? [^.,;()]{3,60}? )?(?P<placed>located|situated|born)\b[^.;()]{0,40}?"
    r" (?:in|on|at|near) [A-Z]"
)
_IN_YEAR = re.compile(
    r"\b(?:[Ii]n|[Oo]n [\w ,]{3,16}) ?(?P<year>1[0-9]{3}|20[0-2][0-9])\b(?![–—-]|s\b)"
)
_NAME = re.compile(
    rf"(?<=[a-z,:] )[A-Z][\w'’-]*[a-z]{SHIELD}?"
    rf"(?: (?:of |de |van |von )?(?:[A-Z][\w'’-]*[a-z]{SHIELD}?|[A-Z]{SHIELD})){{0,2}}"
    r" (?:of |de |van |von )?[A-Z][\w'’-]*[a-z](?![\w'’])"
)
_GENERAL = (
    "What are some facts about {topic}?",
    "What is worth knowing about {topic}?",
    "What can be said about {topic}?",
)


def qa_item(passage: Passage, random_: random.Random) -> tuple[str, Item]:
    """A question whose answer is one to some sentences of the passage, and the rule's name.

    The rules, the more definite first: what or who the topic is, when or where something was,
    what happened in a year, how a name is connected with the topic, and facts about the topic.

    Raises:
        RecordError: ``no_answer_sentences`` where none of the passage make up an answer.
    """
    if found := _definition(passage):
        return found
    for run in passage.runs:
        for at, sentence in enumerate(run):
            if not stands_alone(sentence, passage.title):
                continue
            answer = _run_of(run[at:], _ANSWER_WORDS[1])
            if len(answer.split()) < _ANSWER_WORDS[0]:
                continue
            rule, question = _question(passage, sentence, random_)
            return rule, Item("qa", question, answer)
    raise RecordError("no_answer_sentences", "no sentences that name the topic make up an answer")


def cs_item(passage: Passage, random_: random.Random) -> tuple[str, Item]:
    """A category and a statement: the kind of thing and what it is, or the topic and its facts.

    Raises:
        RecordError: ``no_statement`` where no sentence can be read alone.
    """
    del random_  # the richest sentences are taken
    if not passage.alone:
        raise RecordError("no_statement", "no sentence can be read alone")
    first = passage.alone[0]
    defined = definition_of(first, passage.title)
    category = plural_kind(defined) if defined else None
    if category:
        statement = _run_of(passage.alone, _STATEMENT_WORDS) or first
        return "cs.kind", Item("cs", category, statement)
    return "cs.topic", Item("cs", passage.title, _densest(passage.alone))


def para_item(passage: Passage, random_: random.Random) -> tuple[str, Item]:
    """A paragraph of consecutive sentences, titled by the topic.

    Raises:
        RecordError: ``no_paragraph`` where fewer than two sentences or 45 words stand together.
    """
    del random_  # the first paragraph is taken
    least, most = _PARAGRAPH_WORDS
    taken = opening(passage, least=least, most=most)
    if taken is None or len(taken) < 2:
        raise RecordError("no_paragraph", "too few sentences stand together and name the topic")
    return "para.opening", Item("para", passage.title, " ".join(taken))


def _definition(passage: Passage) -> tuple[str, Item] | None:
    defined = passage.definition
    if defined is None:
        return None
    answer = _run_of(passage.runs[0], _ANSWER_WORDS[1])
    if len(answer.split()) < _ANSWER_WORDS[0]:
        return None
    word = "Who" if defined.is_person else "What"
    named = with_article(passage.topic, passage.runs[0][0])
    return "qa.definition", Item("qa", f"{word} {defined.verb} {named}?", answer)


def _question(passage: Passage, sentence: str, random_: random.Random) -> tuple[str, str]:
    shown = shielded(sentence)
    if found := _WHEN.match(shown):
        subject = _subject(unshielded(found["subject"]), passage)
        rest = unshielded(found["rest"])
        if "," in rest or not rest.startswith((" in ", " at ", " as ")):
            rest = ""
        return "qa.when", f"When {found['verb']} {subject} {found['made']}{rest}?"
    if found := _WHERE.match(shown):
        subject = _subject(unshielded(found["subject"]), passage)
        return "qa.where", f"Where {found['verb']} {subject} {found['placed']}?"
    named = with_article(passage.topic, passage.text)
    if found := _IN_YEAR.search(sentence):
        return "qa.year", f"What happened in {found['year']} in connection with {named}?"
    names = [unshielded(name) for name in _NAME.findall(shown)]
    names = [name for name in names if not mentions(name, passage.title)]
    if names:
        name = with_article(names[0], sentence)
        return "qa.connection", f"What is the connection between {named} and {name}?"
    return "qa.about", random_.choice(_GENERAL).format(topic=named)


def _run_of(run: list[str], most: int) -> str:
    """The first sentences of a run, up to some words; the first in any case within the limit."""
    taken: list[str] = []
    words = 0
    for sentence in run:
        words += len(sentence.split())
        if words > most:
            break
        taken.append(sentence)
    return " ".join(taken)


def _densest(alone: list[str]) -> str:
    """The sentence with the most facts, with the sentence after it where both are short."""
    best = max(range(len(alone)), key=lambda at: (len(facts_of(alone[at])), -at))
    return _run_of(alone[best : best + 2], _STATEMENT_WORDS) or alone[best]


def _subject(subject: str, passage: Passage) -> str:
    """A sentence's subject as within a question; the whole topic where it is a part of it."""
    if set(subject.split()) < set(passage.title.split()):
        return passage.title
    subject = named_in_text(subject, passage.text)
    found = _ARTICLE.match(subject)
    return f"{found.group(1).lower()} {subject[found.end() :]}" if found else subject
