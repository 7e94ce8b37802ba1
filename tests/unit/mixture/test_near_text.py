import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup.errors import ShapeError
from mixup.mixture.near_text import BANDS, HASHES, bands_of, leaders_of, sketch_of

WORDS = [f"word{n}" for n in range(400)]


def text(start: int, count: int = 100) -> str:
    return " ".join(WORDS[start : start + count])


def agreement(first: str, second: str) -> float:
    return float((sketch_of(first) == sketch_of(second)).mean())


def test_equal_words_have_equal_sketches_whatever_case_and_punctuation():
    assert (sketch_of("The river, clear as glass!") == sketch_of("the RIVER clear as glass")).all()
    assert sketch_of("").shape == sketch_of("one two").shape == (HASHES,)
    assert agreement("one", "two") == 0.0


@pytest.mark.parametrize("shift", [0, 5, 12, 30, 60, 200])
def test_sketches_agree_about_as_far_as_the_shingles_do(shift):
    # 96 shingles of 100 words; a shifted text shares 96 - shift of 96 + shift.
    jaccard = max(0, 96 - shift) / (96 + min(shift, 96))
    assert agreement(text(0), text(shift)) == pytest.approx(jaccard, abs=0.2)


def test_near_texts_share_a_band_and_far_ones_do_not():
    near, far = set(bands_of(sketch_of(text(3)))), set(bands_of(sketch_of(text(200))))
    own = set(bands_of(sketch_of(text(0))))
    assert len(own) == BANDS
    assert own & near
    assert not own & far


def test_a_sketch_is_the_same_on_every_machine():
    assert sketch_of("a stable text of these few words")[:3].tolist() == STABLE


STABLE = [470092977, 2628271879, 794591430]


def test_the_first_of_near_texts_leads_and_chains_are_not_glued():
    sketches = np.stack([sketch_of(text(at)) for at in (0, 2, 60, 4, 61)])
    assert leaders_of(sketches, 0.7).tolist() == [0, 0, 2, 0, 2]
    chain = np.arange(HASHES, dtype=np.uint32)[None].repeat(3, axis=0)
    chain[1, :20] += 1000  # 0.69 like the first
    chain[2, :40] += 1000  # 0.69 like the second, 0.38 like the first
    assert leaders_of(chain, 0.65).tolist() == [0, 0, 2]


@given(st.permutations(range(6)))
def test_a_text_that_comes_later_changes_no_earlier_one(order):
    sketches = np.stack([sketch_of(text(at * 3)) for at in order])
    whole = leaders_of(sketches, 0.7)
    assert leaders_of(sketches[:4], 0.7).tolist() == whole[:4].tolist()
    assert (whole[whole] == whole).all()


def test_sketches_of_another_width_are_refused():
    with pytest.raises(ShapeError, match="expected"):
        leaders_of(np.zeros((2, 3), np.uint32), 0.8)
