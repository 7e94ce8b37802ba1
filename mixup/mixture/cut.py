"""Items cut from a segment by rule, without a model: at most one for each task type."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from mixup.errors import RecordError
from mixup.mixture.cut_choice import mcq_item, tfq_item
from mixup.mixture.cut_text import cs_item, para_item, qa_item
from mixup.mixture.items import Item, ItemOutcome, Segment, checked, generator_of
from mixup.mixture.passage import Passage, passage_of
from mixup.text.tasks import TASKS

CUT_REASONS = (
    "no_prose",  # nothing is left of the segment without its markup
    "not_english",  # the rules read English
    "no_topic",  # the title names no subject
    "no_sound_sentence",  # no whole sentence is left
    "no_answer_sentences",  # qa: no sentences make up an answer
    "no_statement",  # tfq, cs: no sentence can be read alone
    "no_distractors",  # mcq: no three wrong options
    "no_paragraph",  # para: too little stands together
    "not_expressible",  # cs: the title is no category that a group can show ("Panic! At the Disco")
)
"""Why no item is cut; besides them, ``parse.PARSE_REASONS`` of texts that look like labels."""

_RULES: Mapping[str, Callable[[Passage, random.Random], tuple[str, Item]]] = {
    "qa": qa_item,
    "mcq": mcq_item,
    "tfq": tfq_item,
    "cs": cs_item,
    "para": para_item,
}


def items_of(segment: Segment, *, seed: int, tasks: Sequence[str] = TASKS) -> list[ItemOutcome]:
    """One outcome for each task type: an item cut from the segment, or the reason for none.

    A function of (segment key, seed, title, text). Items are class 5 by construction.
    """
    try:
        passage = passage_of(segment)
    except RecordError as error:
        return [ItemOutcome(task, None, reason=error.reason) for task in tasks]
    return [_outcome(passage, task, seed) for task in tasks]


def _outcome(passage: Passage, task: str, seed: int) -> ItemOutcome:
    random_ = generator_of("cut", task, passage.segment.key, seed)
    try:
        rule, item = _RULES[task](passage, random_)
        return ItemOutcome(task, checked(item), rule)
    except RecordError as error:
        return ItemOutcome(task, None, reason=error.reason)
