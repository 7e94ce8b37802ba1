"""Ranking and mixing, by hand and by invariants."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup.errors import ConfigError, ShapeError
from mixup.selection.mixing import MixSizes, TopRanked, mix, rank, seeded_order


def test_quality_then_long_tail_then_key():
    order = rank(
        np.array([0.90, 0.903, 0.80, 0.90, 0.90]),
        np.array([0.1, 0.3, 0.9, 0.3, np.nan]),
        ["e", "b", "a", "a", "c"],
    )
    assert order.tolist() == [3, 1, 0, 4, 2]


def test_unknown_quality_is_not_ranked():
    with pytest.raises(ShapeError):
        rank(np.array([0.5, np.nan]), np.zeros(2), ["a", "b"])
    with pytest.raises(ShapeError):
        rank(np.zeros(2), np.zeros(3), ["a", "b"])
    assert rank(np.empty(0), np.empty(0), []).tolist() == []


def sizes(n_distilled, n_originals, policy, size=10, share=0.5):
    return mix(n_distilled, n_originals, size=size, distilled_share=share, policy=policy)


def test_mix_by_hand():
    assert sizes(9, 9, "shrink") == MixSizes(5, 5, 5, 5, 0)
    assert sizes(3, 9, "shrink") == MixSizes(3, 5, 5, 5, 2)
    assert sizes(3, 9, "fail") == MixSizes(3, 5, 5, 5, 2)
    assert sizes(3, 9, "fill") == MixSizes(3, 7, 5, 5, 0)
    assert sizes(9, 3, "fill") == MixSizes(7, 3, 5, 5, 0)
    assert sizes(9, 0, "fill") == MixSizes(9, 0, 5, 5, 1)
    assert sizes(9, 9, "shrink", size=5) == MixSizes(3, 2, 3, 2, 0)
    assert sizes(9, 9, "shrink", share=0.0) == MixSizes(0, 9, 0, 10, 1)


@given(
    st.integers(0, 50),
    st.integers(0, 50),
    st.integers(0, 60),
    st.floats(0, 1),
    st.sampled_from(["shrink", "fill", "fail"]),
)
def test_mix_invariants(n_distilled, n_originals, size, share, policy):
    found = sizes(n_distilled, n_originals, policy, size, share)
    assert found.wanted_distilled + found.wanted_originals == size
    assert 0 <= found.distilled <= n_distilled
    assert 0 <= found.originals <= n_originals
    assert found.distilled + found.originals + found.short == size
    if policy == "fill":
        assert found.short == max(0, size - n_distilled - n_originals)
    else:
        assert found.distilled <= found.wanted_distilled
        assert found.originals <= found.wanted_originals


def test_mix_refuses_nonsense():
    with pytest.raises(ConfigError):
        sizes(-1, 0, "fill")
    with pytest.raises(ConfigError):
        sizes(0, 0, "fil")
    with pytest.raises(ConfigError):
        sizes(0, 0, "fill", share=1.5)
    with pytest.raises(ConfigError):
        sizes(0, 0, "fill", size=-1)


def test_seeded_order_is_stable_when_rows_are_added():
    keys = [f"k{number}" for number in range(50)]
    order = [keys[row] for row in seeded_order(keys, 7)]
    assert sorted(order) == sorted(keys)
    assert order != keys
    more = ["new", *reversed(keys)]
    assert [key for row in seeded_order(more, 7) if (key := more[row]) != "new"] == order
    assert [keys[row] for row in seeded_order(keys, 8)] != order


@given(st.integers(0, 12), st.integers(0, 60), st.integers(0, 999), st.integers(1, 9))
def test_top_ranked_is_the_head_of_the_whole_ranking(limit, rows, seed, batch):
    rng = np.random.default_rng(seed)
    keys = [f"k{number}" for number in rng.permutation(rows)]
    quality, long_tail = rng.random(rows).round(1), rng.random(rows).round(1)
    top = TopRanked(limit)
    for start in range(0, rows, batch):
        part = slice(start, start + batch)
        top.add(keys[part], quality[part], long_tail[part])
    expected = rank(quality, long_tail, keys)[:limit]
    found = top.result()
    assert found.keys == [keys[row] for row in expected]
    assert found.quality_N.tolist() == quality[expected].tolist()
    assert found.long_tail_N.tolist() == long_tail[expected].tolist()


def test_top_ranked_refuses_a_negative_limit():
    with pytest.raises(ConfigError):
        TopRanked(-1)
