import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup.errors import RecordError
from mixup.mixture.segments import (
    ARTICLE_REASONS,
    SegmentRules,
    article_key,
    blocks_of,
    english_share,
    segment_key,
)
from mixup.records import estimated_tokens

SENTENCE = "The river {n} of the plain is known for its clear water and for the fish in it."
SMALL = SegmentRules(max_tokens=60, min_tokens=5)


def article(count: int, *, a_line: int = 3) -> str:
    lines = [
        " ".join(SENTENCE.format(n=n) for n in range(at, min(at + a_line, count)))
        for at in range(0, count, a_line)
    ]
    return "\n".join(lines)


RULES = SegmentRules()


def refusal(text: str, rules: SegmentRules = RULES) -> str:
    with pytest.raises(RecordError) as raised:
        blocks_of(text, rules)
    assert raised.value.reason in ARTICLE_REASONS
    return raised.value.reason


@given(st.integers(1, 40), st.integers(1, 7))
def test_blocks_hold_every_sentence_once_whole_and_in_order(count, a_line):
    blocks = blocks_of(article(count, a_line=a_line), SMALL)
    assert [block.number for block in blocks] == list(range(len(blocks)))
    assert all(block.tokens == estimated_tokens(block.text) <= 60 for block in blocks)
    whole = " ".join(block.text.replace("\n", " ") for block in blocks)
    assert whole == " ".join(SENTENCE.format(n=n) for n in range(count))


def test_a_block_ends_with_a_paragraph_when_it_is_half_full():
    # 23 tokens a sentence: two fill 46 of 60, and the third paragraph cannot join them.
    first, second = "\n".join(SENTENCE.format(n=n) for n in (0, 1)), SENTENCE.format(n=2)
    blocks = blocks_of(f"{first}\n{second}", SMALL)
    assert [block.text for block in blocks] == [first, second]


def test_what_remains_joins_the_last_block_where_it_fits():
    short = "It is cold in the north."
    blocks = blocks_of(f"{article(2)}\n{short}", SMALL)
    assert [block.text for block in blocks] == [f"{article(2)}\n{short}"]


def test_a_sentence_over_the_budget_is_left_out_and_alone_is_a_reason():
    endless = "It is known of the towns that they are " + "on the coast and " * 30 + "old."
    assert refusal(endless, SMALL) == "long_sentences"
    (block,) = blocks_of(f"{SENTENCE.format(n=1)} {endless}", SMALL)
    assert block.text == SENTENCE.format(n=1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty_article"),
        (" \n\t", "empty_article"),
        ("{| class=wikitable\n| a || 1\n|-\n| b || 2\n|}", "only_markup"),
        ("== Heading ==\n<!-- a comment of the editors -->", "only_markup"),
        ("It is.", "too_short"),
        (
            "Der Fluss fliesst durch die Ebene und ist bekannt für sein klares Wasser, in dem "
            "viele Fische leben, die von den Leuten aus den Dörfern gefangen werden, seit es sie "
            "dort gibt.",
            "other_language",
        ),
        (
            "この川は平野を流れ、その水が澄んでいることで知られている。魚も多い。" * 4,
            "other_language",
        ),
        ("The river \ud800 of the plain is known for its clear water.", "invalid_unicode"),
    ],
)
def test_an_article_without_a_segment_says_why(text, reason):
    assert refusal(text) == reason


def test_control_characters_and_markup_go_and_the_prose_stays():
    text = "\ufeffThe [[river Ayr|Ayr]] is\x00 known\u200b for its '''clear''' water.[3]\r\n" * 2
    (block,) = blocks_of(text, SegmentRules(min_tokens=1))
    assert block.text == "\n".join(["The Ayr is known for its clear water."] * 2)


def test_every_language_passes_without_the_floor():
    text = "この川は平野を流れ、その水が澄んでいることで知られている。" * 2
    assert blocks_of(text, SegmentRules(min_english=0.0, max_tokens=200))


def test_few_words_count_as_english_when_one_is():
    assert english_share(["Ayr of Scotland"]) == 1.0
    assert english_share(["Ayr Scotland"]) == 0.0
    assert english_share([]) == 0.0


def test_keys_tell_text_and_titles_apart():
    assert segment_key("a") == segment_key("a") != segment_key("b")
    assert article_key("The  River\n", "x") == article_key("the river", "y")
    assert article_key("", "x") != article_key("", "y")
    assert article_key("x", "y") != article_key("", "x")
