"""Variants of a target: what is promised of them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from passages import SEGMENTS

from mixup.errors import ConfigError
from mixup.mixture.cut import items_of
from mixup.mixture.degrade import DEGRADATIONS, PLANNED, class_of
from mixup.mixture.degraded import VARIANT_REASONS, Neighbor, VariantSettings
from mixup.mixture.drafts import same_words
from mixup.mixture.facts import facts_of, found_in, numbers_of
from mixup.mixture.items import CONSTRUCTION, Item
from mixup.mixture.variants import variants_of
from mixup.records import Turn, estimated_tokens, uid_of

KEEPING = VariantSettings(lossy_share=0.0, neighbor_share=1.0)
SEEDS = range(20)
CUT = [
    outcome.item
    for segment in SEGMENTS
    for seed in range(2)
    for outcome in items_of(segment, seed=seed)
    if outcome.item
]

names = st.sampled_from(["Kant", "New Ormsay", "NASA", "McRae", "Ångström", "Li"])
numbers = st.sampled_from(["1889", "3.5", "1,204", "seven", "60%", "2", "12:30"])
clauses = st.sampled_from(
    ["did not see", "never left", "was without light at", "built", "cannot be"]
)
sentence = st.builds("{} {} the tower of {} in {}.".format, names, clauses, names, numbers)
bodies = st.lists(sentence, min_size=1, max_size=7).map(" ".join)
heads = st.builds("What did {} do in {}?".format, names, numbers)
written = st.one_of(
    st.builds(lambda h, b: Item("qa", h, b), heads, bodies),
    st.builds(lambda b: Item("cs", "Towers of Ormsay", b), bodies),
    st.builds(lambda b: Item("para", "Towers", b), bodies),
    st.builds(lambda s, m: Item("tfq", "", s, mark=m), bodies, st.sampled_from(["True", "False"])),
    st.builds(
        lambda h, o, m: Item("mcq", h, "", tuple(o), m),
        heads,
        st.lists(sentence, min_size=4, max_size=4, unique_by=same_words),
        st.sampled_from("ABCD"),
    ),
)


def shown_facts(item):
    return facts_of(item.body if item.task == "para" else item.answer)


def check(item, made, limits):
    """All that is promised of a target's variants."""
    if made.reason is not None:
        assert made.reason in VARIANT_REASONS
        assert made.variants == ()
        return
    assert limits.least <= len(made.variants) <= limits.most
    texts = [variant.text for variant in made.variants]
    assert len({same_words(text) for text in [*texts, item.text]}) == len(texts) + 1
    if made.keeps_facts:
        assert shown_facts(item) <= frozenset().union(*map(found_in, texts))
    for variant in made.variants:
        assert variant.uid == uid_of(variant.turns)
        if variant.rating_source == CONSTRUCTION:
            assert set(variant.degradations) <= {*DEGRADATIONS, *PLANNED}
            assert variant.rating == class_of(variant.degradations)
            assert 0 <= variant.rating < 4


@settings(deadline=None)
@given(written, st.integers(0, 1 << 30), st.sampled_from([0.0, 1.0]))
def test_the_promises_hold_for_written_items(item, seed, lossy_share):
    limits = VariantSettings(lossy_share=lossy_share)
    made = variants_of(item, seed=seed, settings=limits)
    assert made.keeps_facts == (lossy_share == 0.0)
    check(item, made, limits)


@pytest.mark.parametrize("item", CUT, ids=lambda item: item.task)
def test_the_promises_hold_for_items_cut_from_text(item):
    plans = set()
    for seed in range(8):
        made = variants_of(item, seed=seed, settings=KEEPING)
        assert made.reason is None
        check(item, made, KEEPING)
        plans.add(made.plan)
    assert plans <= {"split", "redundant"}


def test_split_and_redundant_plans_do_as_their_names_say():
    item = next(item for item in CUT if item.task == "para")
    plans = Counter()
    for seed in SEEDS:
        made = variants_of(item, seed=seed, settings=KEEPING)
        whole = [v for v in made.variants if shown_facts(item) <= found_in(v.text)]
        parts = [v for v in made.variants if "split" in v.degradations]
        plans[made.plan] += 1
        if made.plan == "split":
            assert len(parts) >= 2
            assert not set(parts) & set(whole)
        else:
            assert not parts
            assert len(whole) >= 2
    assert min(plans["split"], plans["redundant"]) > 2


def test_parts_of_a_false_statement_are_not_called_false():
    body = "Kant built the tower in 1889. NASA left Ormsay in 1920."
    for seed in SEEDS:
        made = variants_of(Item("tfq", "", body, mark="False"), seed=seed, settings=KEEPING)
        assert made.plan == "redundant"
        losing = {"split", "truncation", "dropped_facts", "terse", "vagueness", "near_number"}
        assert not any(losing & set(v.degradations) for v in made.variants)


def test_code_is_cut_and_repeated_but_not_worded_anew():
    code = "def area(side):\n    return side ** 2\n\nfor side in (3, 4):\n    print(area(side))"
    item = Item("qa", "Print the area of two squares, please.", code)
    lines = set(code.split("\n"))
    for seed in SEEDS:
        made = variants_of(item, seed=seed, settings=replace(KEEPING, mean=6.0, noise_share=1.0))
        check(item, made, KEEPING)
        for variant in made.variants:
            if "truncation" not in variant.degradations:
                assert {line for line in variant.turns[1].content.split("\n") if line} <= lines


def test_a_wrong_number_is_right_in_two_other_variants():
    item = Item("qa", "When was it?", "It opened in 1889. It has 142 steps. Kant saw 3.5 of them.")
    right, seen = set(numbers_of(item.text)), 0
    for seed in range(60):
        made = variants_of(item, seed=seed, settings=replace(KEEPING, mean=6.0))
        given_by = Counter(n for v in made.variants for n in set(numbers_of(v.text)))
        for variant in made.variants:
            if "near_number" in variant.degradations:
                seen += 1
                assert variant.rating == 0
                wrong = set(numbers_of(variant.text)) - right
                lost = right - set(numbers_of(variant.text))
                assert len(wrong) == len(lost) == 1
                assert all(given_by[number] >= 2 for number in lost)
    assert seen > 2


def test_degradations_are_those_of_the_task():
    made = Counter()
    for item in CUT:
        for seed in range(3):
            for variant in variants_of(item, seed=seed, settings=VariantSettings()).variants:
                made.update((item.task, name) for name in variant.degradations)
    for name, degradation in DEGRADATIONS.items():
        tasks = {task for task, done in made if done == name}
        assert tasks, name
        assert tasks <= set(degradation.tasks), name


def test_variants_depend_on_item_seed_and_settings_alone():
    item = CUT[0]
    first = [variants_of(item, seed=seed, settings=KEEPING) for seed in SEEDS]
    again = [variants_of(item, seed=seed, settings=KEEPING) for seed in reversed(SEEDS)]
    assert first == again[::-1]
    assert len({made.variants for made in first}) > 15


def test_counts_follow_their_bounds():
    item = next(item for item in CUT if item.task == "para")
    many = VariantSettings(least=5, most=7, mean=6.0, max_tokens=9000, lossy_share=0.0)
    counts = Counter(len(variants_of(item, seed=s, settings=many).variants) for s in range(30))
    assert set(counts) <= {0, 5, 6, 7}
    assert counts[5] + counts[6] + counts[7] > 25


def test_the_token_limit_is_kept_or_given_as_the_reason():
    item = next(item for item in CUT if item.task == "para")
    tight = VariantSettings(max_tokens=200, mean=10.0)
    outcomes = [variants_of(item, seed=seed, settings=tight) for seed in SEEDS]
    for made in outcomes:
        assert sum(estimated_tokens(v.text) for v in made.variants) <= 200
    assert {made.reason for made in outcomes} & {"too_long", "too_few_variants"}


def test_a_text_that_offers_nothing_gets_no_variants():
    made = variants_of(Item("mcq", "1?", "", ("2", "3", "4", "5"), "A"), seed=0, settings=KEEPING)
    assert (made.variants, made.reason) != ((), None)
    check(Item("mcq", "1?", "", ("2", "3", "4", "5"), "A"), made, KEEPING)


def neighbor(answer, rating=1):
    turns = (Turn("user", "What about it?"), Turn("assistant", answer))
    return Neighbor(uid_of(turns), turns, rating, "column")


def test_low_rated_neighbors_serve_as_variants():
    item = next(item for item in CUT if item.task == "qa")
    near = [neighbor("It is a tower."), neighbor("Dunno, sorry."), neighbor("No idea.")]
    for seed in SEEDS:
        made = variants_of(item, seed=seed, settings=KEEPING, neighbors=near)
        check(item, made, KEEPING)
        taken = [v for v in made.variants if v.rating_source == "column"]
        assert 1 <= len(taken) <= max(1, len(made.variants) // 2)
        assert {v.uid for v in taken} <= {n.uid for n in near}
        assert all((v.degradations, v.rating) == ((), 1) for v in taken)


def test_a_neighbor_that_is_the_target_is_no_variant():
    item = next(item for item in CUT if item.task == "qa")
    same = Neighbor(item.uid, item.turns, 1, "column")
    for seed in SEEDS:
        made = variants_of(item, seed=seed, settings=KEEPING, neighbors=[same])
        assert all(v.rating_source == CONSTRUCTION for v in made.variants)


def test_classes():
    assert class_of(["filler"]) == 3
    assert class_of(["split", "typos"]) == 2
    assert class_of(["filler", "casing", "order"]) == 2
    assert class_of(["near_number", "casing", "order"]) == 0
    assert all(re.fullmatch("[a-z_]+", name) for name in DEGRADATIONS)


@pytest.mark.parametrize(
    "wrong", [{"least": 1}, {"most": 21}, {"mean": 1.0}, {"lossy_share": 1.5}, {"max_tokens": 0}]
)
def test_settings_that_cannot_be_met_are_refused(wrong):
    with pytest.raises(ConfigError):
        VariantSettings(**wrong)
