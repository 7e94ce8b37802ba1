"""Which targets are fused, and what becomes of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from passages import SEGMENTS

from mixup.errors import ConfigError, RecordError, ShapeError
from mixup.mixture.cut import items_of
from mixup.mixture.degraded import VariantSettings
from mixup.mixture.drafts import same_words
from mixup.mixture.facts import facts_of, found_in
from mixup.mixture.fuse import fused, joined_variants
from mixup.mixture.fusion_groups import FusionSettings, fusion_groups
from mixup.mixture.items import Item
from mixup.mixture.variants import variants_of
from mixup.text.parse import parse_distilled
from mixup.text.prompts import target_text
from mixup.text.tasks import TASKS

ALL = FusionSettings(share=1.0, floor=0.5, ceiling=0.99, most=3)
KEEPING = VariantSettings(lossy_share=0.0)
CUT = [
    {outcome.task: outcome.item for outcome in items_of(segment, seed=0) if outcome.item}
    for segment in SEGMENTS
]


def unit(rows):
    vectors = np.asarray(rows, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def groups(vectors, tasks=None, splits=None, keys=None, settings=ALL, seed=0):
    n = len(vectors)
    return fusion_groups(
        unit(vectors),
        tasks or ["qa"] * n,
        splits or ["rl"] * n,
        keys or [f"{row:04}" for row in range(n)],
        seed=seed,
        settings=settings,
    )


def cloud(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 6)) + 0.8


def test_groups_are_disjoint_similar_apart_and_of_one_task_and_split():
    vectors = unit(cloud(300))
    tasks = [TASKS[row % 5] for row in range(300)]
    splits = [("rl", "sft")[row // 150] for row in range(300)]
    found = groups(vectors, tasks, splits)
    rows = [row for group in found for row in group]
    assert len(rows) == len(set(rows))
    assert len(found) > 20
    for group in found:
        assert len({(tasks[row], splits[row]) for row in group}) == 1
        assert 2 <= len(group) <= (2 if tasks[group[0]] in ("mcq", "tfq") else 3)
        assert (vectors[group] @ vectors[group[0]])[1:].min() >= 0.5 - 1e-5
        cosines = vectors[group] @ vectors[group].T
        assert cosines[~np.eye(len(group), dtype=bool)].max() < 0.99 + 1e-5


def test_the_same_is_not_fused_with_the_same():
    assert groups([[1, 0], [1, 0.001], [1, 0.002]]) == []
    assert groups([[1, 0], [0, 1], [-1, 0]]) == []


@given(st.permutations(range(12)), st.integers(0, 5))
def test_the_order_of_the_rows_does_not_matter(order, seed):
    vectors, keys = cloud(12), [f"key {row}" for row in range(12)]
    first = groups(vectors, keys=keys, seed=seed)
    other = groups(vectors[list(order)], keys=[keys[row] for row in order], seed=seed)
    named = {frozenset(keys[row] for row in group) for group in first}
    assert named == {frozenset(keys[order[row]] for row in group) for group in other}


def test_the_share_is_about_met():
    near = cloud(3000) * 0.1 + 1
    settings = FusionSettings(share=0.2, floor=0.0, ceiling=1.1)
    taken = sum(map(len, groups(near, settings=settings)))
    assert taken / 3000 == pytest.approx(0.2, abs=0.04)
    assert groups(near, settings=FusionSettings(share=0.0)) == []


def test_vectors_and_names_must_fit():
    with pytest.raises(ShapeError):
        groups([[1, 0], [0, 1]], tasks=["qa"])
    with pytest.raises(ConfigError):
        FusionSettings(floor=0.9, ceiling=0.5)


@pytest.mark.parametrize("task", TASKS)
def test_a_fused_target_holds_all_that_its_parts_hold(task):
    parts = [found[task] for found in CUT]
    item = fused(parts)
    assert parse_distilled(target_text("x y", item.answer), task).turns == item.turns
    held = found_in(item.answer)
    for part in parts:
        right = part.right if task == "mcq" else part.body
        assert facts_of(f"{part.head}\n{right}") <= held


def test_how_each_task_is_joined():
    qa = fused([Item("qa", "What is A?", "A is a."), Item("qa", "Who is B?", "B is b.")])
    assert (qa.head, qa.body) == ("What is A, and who is B?", "A is a. B is b.")
    told = fused([Item("qa", "Describe A.", "A is a."), Item("qa", "Who is B?", "B is\nb.")])
    assert (told.head, told.body) == ("Describe A.\nWho is B?", "A is a.\n\nB is\nb.")
    cs = fused([Item("cs", name, f"{name} is old.") for name in ("Ants", "Bees", "Cats")])
    assert cs.head == "Ants, Bees and Cats"
    same = fused([Item("para", "Ants", "Ants dig."), Item("para", "Ants", "Ants march.")])
    assert same.head == "Ants"


@pytest.mark.parametrize(
    ("marks", "mark"), [("True True", "True"), ("True False", "False"), ("False False", "False")]
)
def test_a_joined_statement_is_true_if_both_are(marks, mark):
    first, second = marks.split()
    item = fused(
        [Item("tfq", "", "Ants dig.", mark=first), Item("tfq", "", "The bees hum.", mark=second)]
    )
    assert (item.body, item.mark) == ("Ants dig, and the bees hum.", mark)


def test_a_joined_choice_pairs_the_answers():
    item = fused(
        [
            Item("mcq", "Which digs?", "", ("ant", "bee", "cat", "dog"), "A"),
            Item("mcq", "Which hums?", "", ("elk", "fox", "gnat", "hen"), "C"),
        ]
    )
    assert item.right == "ant; gnat"
    assert set(item.options) == {"ant; gnat", "ant; elk", "bee; gnat", "bee; elk"}


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([Item("qa", "Who?", "Ants dig."), Item("qa", "What?", "ants DIG")], "same"),
        ([Item("para", "A", "Ants dig."), Item("para", "B", "All ants dig. Bees hum.")], "same"),
        ([Item("cs", "A", "ant " * 900), Item("cs", "B", "bee " * 900)], "too_long_together"),
        (
            [
                Item("mcq", "Which\none?", "", ("a", "b", "c", "d"), "A"),
                Item("mcq", "Who?", "", ("e", "f", "g", "h"), "A"),
            ],
            "not_one_line",
        ),
    ],
)
def test_what_cannot_be_joined_says_why(items, reason):
    with pytest.raises(RecordError) as caught:
        fused(items)
    assert caught.value.reason == reason


def test_only_items_of_one_task_are_joined():
    with pytest.raises(ConfigError):
        fused([Item("qa", "Who?", "Ants."), Item("cs", "Ants", "Ants dig.")])
    with pytest.raises(ConfigError):
        fused([Item("qa", "Who?", "Ants.")])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("most", [20, 4])
def test_the_variants_of_a_fused_target_hold_its_facts(task, most):
    parts = [found[task] for found in CUT]
    item = fused(parts)
    limits = VariantSettings(most=most, mean=2.0)
    made = [variants_of(part, seed=1, settings=KEEPING) for part in parts]
    joined = joined_variants(item, made, seed=0, settings=limits)
    assert joined == joined_variants(item, made, seed=0, settings=limits)
    if joined.reason:
        assert (joined.reason, joined.variants) == ("too_long", ())
        return
    assert joined.keeps_facts
    assert len(joined.variants) <= most
    wanted = facts_of(item.body if task == "para" else item.text)
    assert wanted <= frozenset().union(*(found_in(one.text) for one in joined.variants))
    assert same_words(item.text) not in {same_words(one.text) for one in joined.variants}


def test_too_many_variants_that_all_matter_are_a_reason():
    parts = [found["para"] for found in CUT]
    made = [variants_of(part, seed=1, settings=KEEPING) for part in parts]
    tight = VariantSettings(max_tokens=20)
    assert joined_variants(fused(parts), made, seed=0, settings=tight).reason == "too_long"
