"""Splits by article."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup.errors import ConfigError
from mixup.mixture.splits import SPLITS, SplitShares, assign_splits, split_of

SHARES = SplitShares()
ARTICLES = [f"article {n}" for n in range(4000)]
keys = st.sampled_from("abcdefghij")


def test_the_shares_are_met():
    counts = Counter(split_of(article, seed=0, shares=SHARES) for article in ARTICLES)
    expected = {"test": 0.19, "sft": 0.81 * 0.3, "validation": 0.81 * 0.7 * 0.1}
    for split, share in expected.items():
        assert counts[split] / len(ARTICLES) == pytest.approx(share, abs=0.025)
    assert set(counts) == set(SPLITS)


def test_another_seed_is_another_split():
    moved = sum(
        split_of(a, seed=0, shares=SHARES) != split_of(a, seed=1, shares=SHARES) for a in ARTICLES
    )
    assert moved > len(ARTICLES) / 4


def test_another_share_of_one_part_moves_nothing_else():
    for article in ARTICLES[:500]:
        before = split_of(article, seed=0, shares=SHARES)
        after = split_of(article, seed=0, shares=SplitShares(validation=0.5))
        assert before == after or {before, after} == {"rl", "validation"}


def test_all_of_one_part():
    assert split_of("a", seed=0, shares=SplitShares(test=1.0)) == "test"
    assert split_of("a", seed=0, shares=SplitShares(test=0.0, sft=1.0)) == "sft"


@given(st.lists(keys, min_size=1), st.lists(st.lists(keys, min_size=1, max_size=3)))
def test_linked_articles_are_in_one_split_and_order_does_not_matter(articles, linked):
    splits = assign_splits(articles, linked, seed=0, shares=SHARES)
    assert set(splits) == {*articles, *(key for group in linked for key in group)}
    assert all(len({splits[key] for key in group}) == 1 for group in linked)
    again = assign_splits(
        reversed(articles), [group[::-1] for group in reversed(linked)], seed=0, shares=SHARES
    )
    assert splits == again


@given(st.lists(keys), st.lists(keys))
def test_added_articles_move_no_other(articles, added):
    before = assign_splits(articles, seed=0, shares=SHARES)
    after = assign_splits([*articles, *added], seed=0, shares=SHARES)
    assert all(after[article] == split for article, split in before.items())


def test_known_splits_stay_and_pull_their_links():
    known = {"old": "test"}
    assert assign_splits(["old", "new"], [("old", "new")], seed=0, shares=SHARES, known=known) == {
        "old": "test",
        "new": "test",
    }


def test_a_new_article_between_two_splits_gets_none():
    known = {"a": "test", "b": "rl"}
    splits = assign_splits("abn", [("a", "n"), ("n", "b")], seed=0, shares=SHARES, known=known)
    assert splits == {"a": "test", "b": "rl", "n": None}


def test_shares_are_shares():
    with pytest.raises(ConfigError, match="0 to 1"):
        SplitShares(test=1.2)
