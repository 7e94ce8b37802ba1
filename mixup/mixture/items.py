"""An item of one of the five task types, by its parts, and the forms in which it is written."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from mixup.clusters.linearize import item_text
from mixup.errors import RecordError
from mixup.records import Turn, canonical_turns, content_key, uid_of
from mixup.text.parse import parse_distilled
from mixup.text.prompts import target_text
from mixup.text.tasks import category_of

CONSTRUCTION = "construction"
"""The source of a rating that follows from how an item was made; never mixed with judged ones."""

LETTERS = "ABCD"


@dataclass(frozen=True, slots=True)
class Segment:
    """A block of raw text, and where it comes from.

    Attributes:
        key: The segment's content key.
        article: The article's key; splits go by it.
        title: The article's title as its source has it, or "".
        text: The block, as plain or as marked up as its source.
        context: More text of the article, from which wrong options may be drawn, or "".
    """

    key: str
    article: str
    title: str
    text: str
    context: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """One item by its parts, which degradations work on.

    Attributes:
        task: One of ``TASKS``.
        head: The question (qa, mcq), the category (cs) or the title (para); "" for tfq.
        body: The answer (qa), the statement (tfq, cs) or the paragraph (para); "" for mcq.
        options: The options' texts (mcq), without letters.
        mark: ``True`` or ``False`` (tfq), or the right option's letter (mcq).
    """

    task: str
    head: str
    body: str
    options: tuple[str, ...] = ()
    mark: str = ""

    @property
    def right(self) -> str:
        """The text of the right option (mcq)."""
        return self.options[LETTERS.index(self.mark)]

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The canonical user and assistant turn, as ``parse_distilled`` makes them of an answer."""
        return canonical_turns(
            [Turn("user", _user_text(self)), Turn("assistant", _assistant_text(self))]
        )

    @property
    def text(self) -> str:
        """The item as the distiller reads it in a group (``linearize.item_text``)."""
        return item_text(self.turns, self.task)

    @property
    def answer(self) -> str:
        """The item as the distiller writes it in its answer block."""
        return _answer_text(self)

    @property
    def uid(self) -> str:
        """The content key of its turns."""
        return uid_of(self.turns)


@dataclass(frozen=True, slots=True)
class ItemOutcome:
    """What became of one task type for one segment: an item and the rule that made it, or why not.

    Attributes:
        task: One of ``TASKS``.
        item: The item, or None.
        rule: The name of the rule, such as ``tfq.number``; "" without an item.
        reason: Why there is no item, or None.
    """

    task: str
    item: Item | None
    rule: str = ""
    reason: str | None = None


def checked(item: Item) -> Item:
    """The item, if the distiller's strict format can express it.

    Raises:
        RecordError: With a reason of ``parse.PARSE_REASONS``, or ``not_expressible`` where the
            parsed pair differs from the item's, or a group would show another category ("U.S").
    """
    parsed = parse_distilled(target_text("Merged.", item.answer), item.task)
    shown = category_of(item.turns[0].content) if item.task == "cs" else item.head
    if parsed.turns != item.turns or shown != item.head:
        raise RecordError("not_expressible", f"{item.task}: {item.answer[:80]!r}")
    return item


def generator_of(*parts: object) -> random.Random:
    """A generator that depends on the parts alone, so that no order of work changes a draw."""
    return random.Random(int(content_key("mixture", *parts), 16))


def with_body(item: Item, body: str) -> Item:
    """The item with another body."""
    return replace(item, body=body)


def _user_text(item: Item) -> str:
    if item.task == "mcq":
        lines = (f"{LETTERS[at]}) {text}" for at, text in enumerate(item.options))
        return "\n".join([item.head, *lines])
    if item.task == "tfq":
        return f"True or false: {item.body}"
    if item.task == "cs":
        return f"Category: {item.head}\nWrite a statement that belongs to this category."
    return f"Write a paragraph about {item.head.rstrip('.')}." if item.task == "para" else item.head


def _assistant_text(item: Item) -> str:
    if item.task == "mcq":
        return f"{item.mark}) {item.right}"
    return item.mark if item.task == "tfq" else item.body


def _answer_text(item: Item) -> str:
    if item.task == "mcq":
        lines = (f"{LETTERS[at]}) {text}" for at, text in enumerate(item.options))
        return "\n".join([f"Q: {item.head}", *lines, f"Answer: {item.mark}"])
    if item.task == "tfq":
        return f"{item.body}\nAnswer: {item.mark}"
    if item.task == "cs":
        return f"C: {item.head}\nS: {item.body}"
    if item.task == "para":
        return f"Title: {item.head}\n{item.body}"
    return f"Q: {item.head}\nA: {item.body}"
