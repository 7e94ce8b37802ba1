"""Cross-topic fusion: several targets of one task become one, by rule.

Source: spec 2.2, step 6.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product

from mixup.errors import ConfigError, RecordError
from mixup.mixture.degraded import Variant, Variants, VariantSettings
from mixup.mixture.drafts import same_words
from mixup.mixture.facts import facts_of, found_in
from mixup.mixture.items import LETTERS, Item, checked, generator_of
from mixup.mixture.vocabulary import STARTERS
from mixup.records import estimated_tokens

FUSION_REASONS = (
    "same",  # two of the targets say the same, or one is a part of the other
    "too_long_together",  # the joined target has more tokens than a target may
    "options",  # mcq: the pairs of answers are not four different options
    "not_one_line",  # mcq: a question or an option has several lines
)
"""Why targets are not fused; besides them, ``parse.PARSE_REASONS`` of the joined text."""

_MOST_TOKENS = 700
_LONGEST_ASKED = 25


def fused(items: Sequence[Item]) -> Item:
    """One target that holds what several of one task hold, joined by rule.

    * qa: the questions joined by "and", the answers one after the other.
    * cs, para: the categories or titles joined by "and", the texts one after the other.
    * tfq: both statements in one, which is true if both are.
    * mcq: the pairs of answers to both questions as options: both right, or one or both wrong.

    Raises:
        ConfigError: Fewer than two items, or of several tasks.
        RecordError: With one of ``FUSION_REASONS`` or ``parse.PARSE_REASONS``.
    """
    if len(items) < 2 or len({item.task for item in items}) != 1:
        raise ConfigError(f"{len(items)} items of {sorted({item.task for item in items})}")
    said = [same_words(f"{item.head}\n{item.body}") for item in items]
    bodies = [same_words(item.body) or words for item, words in zip(items, said, strict=True)]
    if any(a in b for at, a in enumerate(bodies) for b in (*bodies[:at], *bodies[at + 1 :])):
        raise RecordError("same", f"{items[0].text[:60]!r}")
    item = checked(_JOINERS[items[0].task](items))
    if (tokens := estimated_tokens(item.answer)) > _MOST_TOKENS:
        raise RecordError("too_long_together", f"{tokens} tokens")
    return item


def joined_variants(
    target: Item, parts: Sequence[Variants], *, seed: int, settings: VariantSettings
) -> Variants:
    """The variants of a fused target: those of its parts, in a mixed order.

    Where they are too many or too long together, the lowest-rated are left out, as long as none of
    the target's facts is lost with them.

    Args:
        target: The fused target.
        parts: The parts' variants, none with a reason.
        seed: The seed of the order.
        settings: The most variants, and what they may take together.
    """
    found = {same_words(variant.text): variant for part in parts for variant in part.variants}
    found.pop(same_words(target.text), None)
    variants = _without_spare(target, list(found.values()), settings)
    keeps_facts = all(part.keeps_facts for part in parts)
    if variants is None:
        return Variants("fused", keeps_facts, (), "too_long")
    random_ = generator_of("fused", target.uid, seed)
    return Variants("fused", keeps_facts, tuple(random_.sample(variants, len(variants))))


def _without_spare(
    target: Item, variants: list[Variant], settings: VariantSettings
) -> list[Variant] | None:
    wanted = facts_of(target.text)
    given = {variant.uid: wanted & found_in(variant.text) for variant in variants}
    for variant in sorted(variants, key=lambda one: (one.rating, one.uid)):
        if _fits(variants, settings):
            break
        rest = [one for one in variants if one is not variant]
        if given[variant.uid] <= frozenset().union(*(given[one.uid] for one in rest)):
            variants = rest
    return variants if _fits(variants, settings) and len(variants) >= settings.least else None


def _fits(variants: Sequence[Variant], settings: VariantSettings) -> bool:
    tokens = sum(estimated_tokens(variant.text) for variant in variants)
    return len(variants) <= settings.most and tokens <= settings.max_tokens


def _join_texts(items: Sequence[Item]) -> Item:
    gap = "\n\n" if any("\n" in item.body for item in items) else " "
    return replace(items[0], head=_listed(items), body=gap.join(item.body for item in items))


def _join_questions(items: Sequence[Item]) -> Item:
    item = _join_texts(items)
    heads = [one.head for one in items]
    if all(head.endswith("?") and len(head.split()) <= _LONGEST_ASKED for head in heads):
        asked = [heads[0], *map(_small_start, heads[1:])]
        return replace(item, head=", and ".join(head.rstrip("?") for head in asked) + "?")
    return replace(item, head="\n".join(heads), body="\n\n".join(one.body for one in items))


def _join_statements(items: Sequence[Item]) -> Item:
    first, *others = (item.body.rstrip(".") for item in items)
    body = ", and ".join([first, *map(_small_start, others)]) + "."
    is_true = all(item.mark == "True" for item in items)
    return Item("tfq", "", body, mark=str(is_true))


def _join_choices(items: Sequence[Item]) -> Item:
    first, second = items[:2]
    texts = [first.head, second.head, *first.options, *second.options]
    if any("\n" in text for text in texts):
        raise RecordError("not_one_line", first.head[:60])
    wrong = [next((o for o in item.options if o != item.right), "") for item in (first, second)]
    pairs = list(product((first.right, wrong[0]), (second.right, wrong[1])))
    options = [f"{a}; {b}" for a, b in pairs]
    if not all(wrong) or len(set(map(same_words, options))) < len(options):
        raise RecordError("options", f"{options!r:.80}")
    right = options[0]
    generator_of("options", first.uid, second.uid).shuffle(options)
    head = f"Which option answers both of these questions? {first.head} / {second.head}"
    return Item("mcq", head, "", tuple(options), LETTERS[options.index(right)])


def _listed(items: Sequence[Item]) -> str:
    names = list(dict.fromkeys(item.head.rstrip(".") for item in items))
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _small_start(text: str) -> str:
    first = re.match(r"[^\W\d_]+", text)
    is_common = first is not None and first.group().lower() in STARTERS and first.group() != "I"
    return text[0].lower() + text[1:] if is_common else text


_JOINERS: Mapping[str, Callable[[Sequence[Item]], Item]] = {
    "qa": _join_questions,
    "cs": _join_texts,
    "para": _join_texts,
    "tfq": _join_statements,
    "mcq": _join_choices,
}
