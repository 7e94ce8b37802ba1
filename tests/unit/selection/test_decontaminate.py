"""Questions found in texts: n-grams, whole questions, and what is no evidence."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup.selection import windows
from mixup.selection.decontaminate import (
    CUT_CHARS,
    EXACT,
    NGRAM,
    OverlapRules,
    Question,
    QuestionIndex,
)

LONG = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in "
    "May. How many clips did Natalia sell altogether?"
)
MIDDLE = "What happens to you if you eat watermelon seeds?"  # 9 words
SHORT = "Where did basketball originate?"  # 4 words
TRIVIAL = "What is this?"
JAPANESE = "東京タワーの高さは何メートルですか?"
KOREAN = "박정희는 몇 번째 대통령인가?"
RULES = OverlapRules()


def index_of(*texts: str, benchmark: str = "bench", rules: OverlapRules = RULES) -> QuestionIndex:
    return QuestionIndex.build(
        [Question(benchmark, f"/{benchmark}:{at}", text) for at, text in enumerate(texts)], rules
    )


INDEX = index_of(LONG, MIDDLE, SHORT, TRIVIAL, JAPANESE, KOREAN)


@pytest.mark.parametrize(
    ("turns", "kind", "place"),
    [
        ([LONG, "72"], EXACT, "/bench:0"),
        ([f"Solve this. {LONG} Think!", "72"], EXACT, "/bench:0"),
        (["Write a task.", f"Here is one: {LONG.upper()}"], EXACT, "/bench:0"),
        # 13 words, over other punctuation; 12 are not enough.
        (
            ["x natalia SOLD clips: to 48 of her friends - in April and then she y", "a"],
            NGRAM,
            "/bench:0",
        ),
        (["x natalia sold clips to 48 of her friends in april and then y", "a"], None, None),
        # Not the words in a row.
        (["natalia sold clips to 48 of her best friends in april and then she", "a"], None, None),
        ([f"Tell me: {MIDDLE}", "Nothing."], EXACT, "/bench:1"),
        (["What happens if you eat watermelon seeds?", "Nothing."], None, None),
        ([SHORT, "In Springfield."], EXACT, "/bench:2"),
        (["WHERE did  basketball originate", "In Springfield."], EXACT, "/bench:2"),
        ([f"Question: {SHORT}\nAnswer:", "In Springfield."], EXACT, "/bench:2"),
        ([f"Tell me: {SHORT}", "In Springfield."], None, None),
        ([TRIVIAL, "A cat."], None, None),
        ([f"まず、{JAPANESE}", "333"], EXACT, "/bench:4"),
        ([KOREAN, "5"], EXACT, "/bench:5"),
        (["", ""], None, None),
        (["…", "?!"], None, None),
    ],
)
def test_what_holds_a_question(turns, kind, place):
    found = INDEX.find(turns)
    assert (found and found.kind, found and found.place) == (kind, place)


def test_a_match_names_question_and_shared_words():
    found = INDEX.find(["Say: he sold clips to 48 of her friends in April, and then she sold all."])
    assert found is not None
    assert (found.benchmark, found.question) == ("bench", LONG)
    assert found.matched == "sold clips to 48 of her friends in april and then she sold"
    long = index_of(
        "one or two of the many words here " * 50 + "end", rules=replace(RULES, min_share=0.0)
    )
    found = long.find(["one or two of the many words here " * 40])
    assert found is not None
    assert max(len(found.question), len(found.matched)) == CUT_CHARS


def test_a_windows_words_may_not_come_from_two_questions():
    index = index_of(
        "aa bb cc dd ee ff gg hh ii jj kk ll mm nn", "oo pp qq rr ss tt uu vv ww xx yy zz ab bc"
    )
    assert index.find(["hh ii jj kk ll mm nn oo pp qq rr ss tt uu"]) is None
    assert index.find(["hh ii jj kk ll mm nn"]) is None


def test_wording_of_more_questions_than_the_limit_is_no_question():
    task = "Which of these sentences is the one that a person would call sarcastic here:"
    rules = replace(RULES, max_questions=3)
    few = index_of(*(f"{task} {n} {n} {n}" for n in range(3)), rules=rules)
    many = index_of(*(f"{task} {n} {n} {n}" for n in range(4)), rules=rules)
    assert few.find([f"{task} none"]) is not None
    assert many.find([f"{task} none"]) is None
    found = many.find([f"Now: {task} 2 2 2"])  # the question itself is found whole
    assert found is not None
    assert (found.kind, found.place) == (EXACT, "/bench:2")


def test_the_limit_counts_different_questions_of_one_file():
    rules = replace(RULES, max_questions=1)
    twice = index_of(LONG, LONG.upper(), rules=rules)
    assert twice.counts() == {"bench": 1}
    assert twice.find([LONG[:90]]) is not None
    elsewhere = QuestionIndex.build(
        [Question("a", "a:0", f"{LONG} One?"), Question("b", "b:0", f"{LONG} Two?")], rules
    )
    found = elsewhere.find([LONG[:90]])
    assert found is not None
    assert found.place == "a:0"


def test_of_a_long_question_more_than_an_ngram_must_be_shared():
    page = " ".join(f"w{n}" for n in range(400))
    index = index_of(page)
    assert index.find([" ".join(f"w{n}" for n in range(100, 119))]) is None
    assert index.find([" ".join(f"w{n}" for n in range(100, 120))]) is not None


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("for i in range 10 : for j in range 20 : if i < j : n += 1 ; return n", False),
        ("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15", False),
        ("buffalo buffalo police police fish fish that that eat eat are are some some", True),
        ("buffalo buffalo police police fish fish buffalo police fish eat eat are are are", False),
    ],
)
def test_less_than_half_different_words_are_no_evidence(text, is_found):
    index = index_of(f"Here it comes at last, well: {text}")
    assert (index.find([f"{text} so"]) is not None) == is_found


def test_a_hash_that_collides_is_no_match(monkeypatch):
    """With a hash that tells nothing but the length apart, only equal words are found."""
    monkeypatch.setattr(windows, "_mixed", lambda ids: np.zeros(len(ids), np.uint64))
    index = index_of(LONG, MIDDLE, SHORT)
    assert index.find([" ".join(["clips", "friends", "natalia", "sold", "in"] * 6)]) is None
    assert index.find(["basketball did originate where"]) is None
    found = index.find([f"x {LONG[:90]}"])
    assert found is not None
    assert found.kind == NGRAM


def test_an_index_is_the_same_from_its_bytes():
    read = QuestionIndex.from_bytes(INDEX.to_bytes())
    for text in (LONG, MIDDLE, SHORT, TRIVIAL, JAPANESE, KOREAN, LONG[:90], "none of them"):
        assert read.find([text]) == INDEX.find([text])
    assert (read.counts(), read.rules) == (INDEX.counts(), INDEX.rules)


def test_an_index_of_nothing_finds_nothing():
    assert index_of().find([LONG]) is None
    assert index_of("?!", "").find(["?!"]) is None


WORDS = st.lists(
    st.sampled_from(["aa", "bb", "cc", "dd", "ee", "ff", "gg"]), min_size=0, max_size=40
)


@given(WORDS, WORDS, st.integers(5, 8))
def test_it_finds_what_comparing_all_windows_finds(question, text, ngram):
    """Against the plain definition, with an alphabet so small that words recur all the time."""
    rules = OverlapRules(ngram=ngram, min_words=ngram, max_questions=100, min_share=0.0)
    windows = {tuple(question[at : at + ngram]) for at in range(len(question) - ngram + 1)}
    telling = {window for window in windows if 2 * len(set(window)) >= ngram}
    shared = any(tuple(text[at : at + ngram]) in telling for at in range(len(text) - ngram + 1))
    whole = {tuple(text[a : a + len(question)]) for a in range(len(text) - len(question) + 1)}
    equal = (
        question == text and len(text) >= 4 or (len(question) >= ngram and tuple(question) in whole)
    )
    found = index_of(" ".join(question), rules=rules).find([" ".join(text)])
    assert (found is not None) == (shared or equal)
