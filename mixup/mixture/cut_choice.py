"""True-or-false and multiple-choice items: one sentence, and controlled changes of it."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from mixup.errors import RecordError
from mixup.mixture.alter import (
    alterations_of,
    known_name,
    near_number,
    quantities_of,
    years_of,
)
from mixup.mixture.items import LETTERS, Item
from mixup.mixture.passage import Passage, stands_alone
from mixup.mixture.topics import mentions, with_article
from mixup.mixture.vocabulary import MONTHS

_STATEMENT_WORDS = 45
_OPTION_WORDS = 40
_BLANK = "____"
_CONNECTED = r"(?:of|the|de|van|von|for)"
# A name after a preposition; those after the same one are taken to be of one kind.
_PLACED_NAME = re.compile(
    r"\b(in|by|from|at|with|near) (?:the )?"
    rf"((?:[A-Z][\w'’-]*[a-z])(?: (?:{_CONNECTED} )?[A-Z][\w'’-]*[a-z]){{0,5}})(?![\w'’])"
)
_NAME = re.compile(
    rf"(?<=[a-z,] )[A-Z][\w'’-]*[a-z](?: (?:{_CONNECTED} )?[A-Z][\w'’-]*[a-z]){{1,5}}(?![\w'’])"
)
_CALENDAR = re.compile(rf"(?:{'|'.join(MONTHS)})\b")


def tfq_item(passage: Passage, random_: random.Random) -> tuple[str, Item]:
    """A sentence that can be read alone, as it is (True) or with one place changed (False).

    About half are False, where a sentence offers a place to change.

    Raises:
        RecordError: ``no_statement`` where no sentence of fair length can be read alone.
    """
    statements = _short(passage, _STATEMENT_WORDS)
    if not statements:
        raise RecordError("no_statement", "no sentence of fair length can be read alone")
    random_.shuffle(statements)
    if random_.random() < 0.5:
        for statement in statements:
            if altered := alterations_of(statement, random_, context=passage.text):
                rule = random_.choice(sorted(altered))
                return f"tfq.{rule}", Item("tfq", "", altered[rule].text, mark="False")
    return "tfq.true", Item("tfq", "", statements[0], mark="True")


def mcq_item(passage: Passage, random_: random.Random) -> tuple[str, Item]:
    """A question with four options, by the first rule that applies: a number, a name, a statement.

    Raises:
        RecordError: ``no_distractors`` where no sentence gives a question with three of them.
    """
    sentences = _short(passage, _STATEMENT_WORDS)
    random_.shuffle(sentences)
    for rule in (_number_question, _name_question, _known_name_question):
        for sentence in sentences:
            found = rule(passage, sentence, random_)
            if found:
                return found
    found = _statement_question(passage, random_)
    if found is None:
        raise RecordError("no_distractors", "no sentence gives three wrong options")
    return found


def with_options(head: str, right: str, wrong: list[str], random_: random.Random) -> Item:
    """A multiple-choice item with its options in a drawn order."""
    options = [right, *wrong]
    random_.shuffle(options)
    return Item("mcq", head, "", tuple(options), LETTERS[options.index(right)])


def _short(passage: Passage, most: int) -> list[str]:
    return [sentence for sentence in passage.alone if len(sentence.split()) <= most]


def _number_question(
    passage: Passage, sentence: str, random_: random.Random
) -> tuple[str, Item] | None:
    for kind, numbers_in in (("year", years_of), ("number", quantities_of)):
        numbers = [number for number in numbers_in(sentence) if sentence.count(number) == 1]
        if not numbers:
            continue
        right = random_.choice(numbers)
        wrong = _wrong_numbers(right, set(numbers_in(passage.around)), sentence, random_)
        if len(wrong) == 3:
            head = f"Which {kind} completes the statement? {sentence.replace(right, _BLANK)}"
            return f"mcq.{kind}", with_options(head, right, wrong, random_)
    return None


def _wrong_numbers(
    right: str, same_kind: set[str], sentence: str, random_: random.Random
) -> list[str]:
    """Two numbers of the same kind in the passage at most, then numbers near the right one."""
    of_passage = [number for number in sorted(same_kind) if number not in sentence]
    of_passage = [number for number in of_passage if len(number) == len(right)]
    wrong = random_.sample(of_passage, min(2, len(of_passage)))
    for _ in range(12):
        if len(wrong) == 3:
            break
        other = near_number(right, random_, [right, *wrong])
        if other and other not in sentence:
            wrong.append(other)
    return wrong


def _name_question(
    passage: Passage, sentence: str, random_: random.Random
) -> tuple[str, Item] | None:
    named = [
        (preposition, name)
        for preposition, name in _names(sentence)
        if sentence.count(name) == 1 and not mentions(name, passage.title)
    ]
    random_.shuffle(named)
    for preposition, right in named:
        wrong = _wrong_names(passage, sentence, preposition, right)
        if len(wrong) >= 3:
            head = f"Which name completes the statement? {sentence.replace(right, _BLANK)}"
            return "mcq.name", with_options(head, right, random_.sample(wrong, 3), random_)
    return None


def _wrong_names(passage: Passage, sentence: str, preposition: str, right: str) -> list[str]:
    """Names after the same preposition; else, for a name of several words, any others of some."""
    names = _names(passage.around)
    alike = {name for placed, name in names if placed == preposition}
    if len(alike) <= 3 and " " in right:
        alike |= {name for name in _NAME.findall(passage.around) if " " in name}
    fit = sorted(name for name in alike if not _overlap(name, sentence))
    return [name for name in fit if not mentions(name, passage.title)]


def _known_name_question(
    passage: Passage, sentence: str, random_: random.Random
) -> tuple[str, Item] | None:
    """A nationality, country or month, among others that the passage does not hold."""
    choice = known_name(sentence, random_, context=passage.text)
    if choice is None:
        return None
    (start, end), others = choice
    head = f"Which words complete the statement? {sentence[:start]}{_BLANK}{sentence[end:]}"
    return "mcq.known_name", with_options(head, sentence[start:end], others, random_)


def _statement_question(passage: Passage, random_: random.Random) -> tuple[str, Item] | None:
    sentences = _short(passage, _OPTION_WORDS)
    if not sentences:
        return None
    right = random_.choice(sentences)
    wrong = list(_false_statements(passage, sentences, right, random_))
    if len(wrong) < 3:
        return None
    topic = with_article(passage.topic, passage.text)
    head = f"Which of these statements about {topic} is true?"
    return "mcq.statement", with_options(head, right, wrong[:3], random_)


def _false_statements(
    passage: Passage, sentences: list[str], right: str, random_: random.Random
) -> Iterator[str]:
    """Changed sentences: one of each other sentence, then one of the right, then what is left."""
    others = [sentence for sentence in sentences if sentence != right]
    random_.shuffle(others)
    others += [
        sentence
        for run in passage.runs
        for sentence in run
        if sentence not in sentences
        and stands_alone(sentence, passage.title)
        and len(sentence.split()) <= _OPTION_WORDS
    ]
    left: list[str] = []
    for sentence in [*others, right]:
        changed = alterations_of(sentence, random_, context=passage.text)
        texts = [changed[rule].text for rule in sorted(changed)]
        random_.shuffle(texts)
        yield from texts[:1]
        left.extend(texts[1:])
    yield from left


def _names(text: str) -> list[tuple[str, str]]:
    return [found for found in _PLACED_NAME.findall(text) if not _CALENDAR.match(found[1])]


def _overlap(name: str, sentence: str) -> bool:
    return any(word in sentence for word in re.findall(r"[A-Z]\w+", name))
