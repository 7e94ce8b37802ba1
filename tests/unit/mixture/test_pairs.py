"""Pairs: keys, and thoughts by rule."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from passages import LIGHTHOUSE, SEGMENTS

from mixup.errors import ConfigError
from mixup.mixture.cut import items_of
from mixup.mixture.degraded import Variant, Variants, VariantSettings
from mixup.mixture.facts import facts_of, found_in
from mixup.mixture.items import CONSTRUCTION, Item
from mixup.mixture.pairs import Target, pair_key, pair_of, rules_revision
from mixup.mixture.thought import thought_of
from mixup.mixture.variants import variants_of
from mixup.records import content_key

KEEPING = VariantSettings(lossy_share=0.0)
LOSSY = VariantSettings(lossy_share=1.0)
REVISION = "d3c8cca13279380e271436232cdef5f3"
GIVEN = "493f354879cb9a917582ef06fcbbadf9"
ITEM = Item("qa", "When was it?", "Kant saw it in 1889. The tower of Ormsay has 142 steps.")


def target(item=ITEM):
    return Target(item, ("segment-1",), ("article-1",), "qa.when")


def variant(body):
    item = Item("qa", "When was it?", body)
    return Variant(item.turns, item.text, ("split",), 3, CONSTRUCTION, item.uid)


def made(*bodies, keeps_facts=True):
    return Variants("split", keeps_facts, tuple(map(variant, bodies)))


def test_the_key_is_of_target_variants_in_order_and_revisions():
    first, second = variant("Kant saw it."), variant("In 1889.")
    keys = {
        pair_key(ITEM, [first, second], ["r"]),
        pair_key(ITEM, [second, first], ["r"]),
        pair_key(ITEM, [first], ["r"]),
        pair_key(ITEM, [first, second], ["s"]),
        pair_key(Item("qa", "When?", ITEM.body), [first, second], ["r"]),
    }
    assert len(keys) == 5
    variants = made("Kant saw it.", "In 1889.")
    assert pair_of(target(), variants, seed=0).key == pair_key(
        ITEM, variants.variants, [rules_revision()]
    )
    assert (
        pair_of(target(), variants, seed=0).key
        != pair_of(target(), variants, seed=0, revisions=["teacher"]).key
    )


def test_a_pair_needs_variants():
    with pytest.raises(ConfigError, match="too_long"):
        pair_of(target(), Variants("split", True, (), "too_long"), seed=0)


def test_a_thought_says_what_each_item_adds_and_which_add_nothing():
    variants = made("Kant saw it.", "In 1889 Kant saw it.", "kant!", "Ormsay has 142 steps.")
    assert thought_of(ITEM, variants) == (
        "There are 4 items to merge. Items 1, 2 and 4 give what has to be kept. Item 3 has nothing "
        "new that has to be kept. I write one question and one answer that hold this, in full "
        "sentences."
    )


def test_a_thought_of_a_target_without_facts_says_that_no_item_adds_any():
    plain = Item("tfq", "", "It is quiet there.")
    assert thought_of(plain, made("it is quiet", "quiet there")) == (
        "There are 2 items to merge. Items 1 and 2 have nothing new that has to be kept. I write "
        "one plain statement and its truth value."
    )


def test_a_thought_names_a_number_that_one_item_alone_gives():
    variants = made("In 1889 Kant saw Ormsay.", "In 1889, 142 steps.", "Kant saw it in 1887.")
    thought = thought_of(ITEM, variants)
    assert "Item 3 gives 1887, which no other item supports, so it is left out." in thought
    assert "1889" not in thought  # the target keeps it
    twice = made("In 1889 Kant saw Ormsay.", "142 steps, in 1887.", "Kant saw it in 1887.")
    assert "left out" not in thought_of(ITEM, twice)
    many = made("In 1889 Kant saw Ormsay.", "142 steps: 143, 144, 145.")
    assert re.findall(r"Item 2 gives (\d+), which", thought_of(ITEM, many)) == ["143", "144"]


def test_no_thought_is_given_where_the_items_do_not_say_it_all():
    assert thought_of(ITEM, made("Kant saw it.", keeps_facts=False)) == ""
    pair = pair_of(target(), made("Kant.", keeps_facts=False), seed=0, thought_share=1.0)
    assert pair.thought == ""


def test_thoughts_are_true_of_their_items():
    for segment in SEGMENTS:
        for outcome in items_of(segment, seed=0):
            assert outcome.item
            for seed in range(5):
                variants = variants_of(outcome.item, seed=seed, settings=KEEPING)
                texts = [one.text for one in variants.variants]
                thought = thought_of(outcome.item, variants)
                assert thought.startswith(f"There are {len(texts)} items to merge. ")
                giving, silent = places(r"give", thought), places(r"ha(?:s|ve)", thought)
                assert sorted(giving + silent) == list(range(1, len(texts) + 1))
                item = outcome.item
                facts = facts_of("\n".join([item.head, item.body, *item.options]))
                seen = frozenset()
                for place, text in enumerate(texts, start=1):
                    found = found_in(text) & facts
                    assert (place in giving) == bool(found - seen), (place, thought)
                    seen |= found


def places(verb, thought):
    """The items, by place, that are said to give something, or to have nothing."""
    found = re.search(rf"Items? ([\d, and]+) {verb}s? (?:what|nothing)", thought)
    return [int(place) for place in re.findall(r"\d+", found[1])] if found else []


def test_thoughts_have_their_share_and_a_teachers_is_taken():
    variants = [variants_of(ITEM, seed=seed, settings=KEEPING) for seed in range(60)]
    pairs = [pair_of(target(), one, seed=0, thought_share=0.3) for one in variants]
    assert 8 < sum(bool(pair.thought) for pair in pairs) < 30
    taught = pair_of(target(), variants[0], seed=0, thought_share=0.0, thought="They agree.")
    assert taught.thought == "They agree."


def test_the_rules_give_what_they_gave():
    """If this fails on purpose, the same text has new pairs: count ``pairs.RULES`` up."""
    settings = VariantSettings()
    given = [
        [outcome.rule, variant.text, variant.degradations]
        for segment in SEGMENTS
        for outcome in items_of(segment, seed=7)
        if outcome.item
        for variant in variants_of(outcome.item, seed=7, settings=settings).variants
    ]
    assert len(given) > 20
    assert (rules_revision(), content_key(given)) == (REVISION, GIVEN)


def test_facts_of_a_lossy_plan_may_be_lost():
    item = next(one.item for one in items_of(LIGHTHOUSE, seed=0) if one.task == "para")
    assert item
    lost = Counter()
    for seed in range(20):
        variants = variants_of(item, seed=seed, settings=LOSSY)
        assert not variants.keeps_facts
        union = frozenset().union(*(found_in(one.text) for one in variants.variants))
        lost["1953"] += "#1953" not in union
    assert lost["1953"] >= 1
