"""What an article is about: a name for it from its title, and what kind of thing it is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mixup.mixture.vocabulary import FIELDS, PERSONS
from mixup.text.stops import shielded, unshielded

_FORMERLY = re.compile(r" \([^()]*\)$")
# Some extracts take an article's first words for its title: "Alabama () is a".
_CUT = re.compile(
    r"\s*(?:\(.*|\b(?:is|are|was|were|refers|primarily)\b.*"
    r"|,\s+(?:officially|popularly|abbreviated|also|known|often|sometimes|or|from)\b.*)$"
)
_DANGLING = re.compile(r"(?:[\s,;:]+(?:of|for|the|a|an|in|on|and|or|to|by|with))*[\s,;:]*$")
_LOCATED = re.compile(r"^In [^,]+, (?=\w)")
_NO_TOPIC = re.compile(
    r"^(?:this|that|these|list of|lists of|index of|outline of)\b", re.IGNORECASE
)
_DEFINED = re.compile(
    r"^(?P<subject>[^.;:]{1,90}?),? (?P<verb>is|are|was|were) "
    r"(?P<kind>(?:an?|the|one of the) [^.;]{3,})"
)
_KIND_END = re.compile(
    r",|;|\(| [a-z]+ing (?=(?:in|on|of|at|for|from|to|by|with|as|the|an?|both)\b)"
    r"| (?:that|which|who|whose|where|when|located|situated|based|found|used|made|born|known|"
    r"written|created|directed|produced|published|developed|released|by|in|on|at|for|from|to|with|"
    r"and|within|between|during|near|as|whom|consisting|featuring|set|starring|founded|since|"
    r"established|built|owned|operated|designed|named|native|endemic|composed|comprising)\b"
)
_FIELD = re.compile(rf"(?:{'|'.join(FIELDS)}) (of|in) ")
_AFTER_NAME = (
    r"(?=$|[.,;:)]|['’]s\b| \(| (?:is|are|was|were|has|had|have|can|will|in|of|and|or|to|for|by|"
    r"from|at|on|with|that|which|as|became|consists|refers|began)\b)"
)
_AFTER_KIND = re.compile(
    r" (?:[a-z]+ed|which|that|who|whose|where|and|an?|the|in|on|based|known|born)\b"
)
_ARTICLES = frozenset(("the", "a", "an"))
_LIFE = re.compile(
    r"\([^()]*(?:\bborn\b|\b(?:\d{1,2} [A-Z]\w+|[A-Z]\w+ \d{1,2},) \d{4} ?[–-] ?\w)[^()]*\)"
)
_PERSONS = frozenset(PERSONS)


@dataclass(frozen=True, slots=True)
class Definition:
    """What an article's first sentence says of its topic.

    Attributes:
        verb: is, are, was or were.
        kind: The kind of thing, with its article: "a heritage-listed fire bell".
        is_person: Whether it is a person, by the words of the kind.
    """

    verb: str
    kind: str
    is_person: bool


def topic_of(title: str) -> str | None:
    """A name for what an article is about, from its title; None where the title gives none.

    A disambiguation in parentheses is left out; a title that is the article's first words is cut
    to its subject.
    """
    topic = _FORMERLY.sub("", title.strip())
    topic = _LOCATED.sub("", _DANGLING.sub("", _CUT.sub("", topic)))
    letters = sum(map(str.isalpha, topic))
    if letters < 2 or len(topic) > 80 or "\n" in topic or _NO_TOPIC.match(topic):
        return None
    return topic


def mentions(text: str, topic: str) -> bool:
    """Whether a text names a topic: the last of its longer words, case folded."""
    words = [word for word in re.findall(r"[^\W_]+", topic.casefold()) if len(word) > 2]
    folded = text.casefold()
    return bool(words) and any(word in folded for word in (words[-1], words[0]))


def definition_of(sentence: str, topic: str) -> Definition | None:
    """What a sentence says a topic is, where its subject is the topic; else None."""
    found = _DEFINED.match(shielded(_without_parentheses(sentence)))
    if found is None or not _is_subject(unshielded(found["subject"]), topic):
        return None
    said = unshielded(found["kind"])
    end = _KIND_END.search(said)
    kind = said[: end.start() if end else None].strip()
    if len(kind.split()) < 2 or (
        end and end.group() == "," and not _AFTER_KIND.match(said[end.end() :])
    ):
        return None  # "a small, evergreen tree"
    noun = kind.split(" of ")[0].split()[-1].casefold()  # "the last King of Saxony"
    person = found["verb"] in ("is", "was") and (noun in _PERSONS or _lived(sentence))
    return Definition(found["verb"], kind, person)


def plural_kind(definition: Definition) -> str | None:
    """A category for things of the kind: "Heritage-listed fire bells"; None where none is plain.

    Only an indefinite kind of two to six words names a category, and only its last word is changed.
    """
    article, _, kind = definition.kind.partition(" ")
    words = kind.split()
    if article not in ("a", "an") or not 2 <= len(words) <= 6 or not words[-1].isalpha():
        return None
    if words[-1].endswith(("s", "o", "man", "ese", "ness")) or " of " in kind:
        return None
    last = words[-1]
    if last.endswith("y") and last[-2:-1] not in "aeiou":
        last = f"{last[:-1]}ies"
    elif last.endswith(("x", "ch", "sh")):
        last = f"{last}es"
    else:
        last = f"{last}s"
    category = " ".join([*words[:-1], last])
    return category[0].upper() + category[1:]


def named_in_text(title: str, text: str) -> str:
    """A title as it stands within a sentence of a text: "emperor penguin", "the history of Tibet".

    An article is added by ``with_article``.
    """
    if found := _FIELD.match(title):
        small = title[0].lower() + title[1:]
        return f"the {small}" if found.group(1) == "of" else small
    if title.startswith("The ") and f" the {title[4:]}" in text:
        return f"the {title[4:]}"
    return title[0].lower() + title[1:] if _is_plain(title, text) else title


def with_article(topic: str, text: str) -> str:
    """The topic with the article that the text gives it: "the emperor penguin"."""
    # "the Berlin Wall", "the Berlin air lift" say nothing of Berlin.
    first = re.search(rf"\b(The|the|An|an|A|a) {re.escape(topic)}{_AFTER_NAME}", text)
    return f"{first.group(1).lower()} {topic}" if first else topic


def leans_on_topic(sentence: str, title: str) -> bool:
    """Whether a sentence says "the number" where the topic is the National Insurance number."""
    words = title.split()
    return (
        len(words) > 1
        and title.casefold() not in sentence.casefold()
        and re.match(rf"The {re.escape(words[-1].lower())}\b", sentence) is not None
    )


def _is_plain(topic: str, text: str) -> bool:
    """Whether a text writes the topic with a small first letter, as it does a common noun."""
    first = topic.split()[0]
    if not first[:1].isupper() or first[1:] != first[1:].lower():
        return False
    small = re.escape(topic[0].lower() + topic[1:])
    as_name = rf"(?<=[a-z,] ){re.escape(topic)}\b"
    return bool(re.search(rf"\b{small}", text)) and not re.search(as_name, text)


def _lived(sentence: str) -> bool:
    """Whether dates of birth, or of birth and death, stand in parentheses near the beginning."""
    return _LIFE.search(sentence[:200]) is not None


def _without_parentheses(sentence: str) -> str:
    return re.sub(r" ?\([^()]*\)", "", sentence)


def _is_subject(subject: str, topic: str) -> bool:
    """Whether a subject is the topic: it begins or ends with it, and has most of its words.

    "Robert Leroy Fuller" is Robert Fuller; "the first sound recording device" is not sound
    recording, nor is "Marwa El-Sherbini" the murder of her.
    """
    said, named = (
        [word for word in re.findall(r"[^\W_]+", text.casefold()) if word not in _ARTICLES]
        for text in (subject, topic)
    )
    if not said or not named or said[0] in ("his", "her", "their", "its", "this", "these"):
        return False
    if "of" in named and named[0] not in said:
        return False
    most = sum(word in said for word in named) * 2 > len(named)
    return most and (said[0] == named[0] or said[-1] == named[-1])
