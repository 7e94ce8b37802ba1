"""Words of texts in several scripts."""

import pytest

from mixup.selection.words import normal_words, units_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("What's  the\nWell-Known answer?!", ["what", "s", "the", "well", "known", "answer"]),
        ("ＦＵＬＬ width ﬁne Straße", ["full", "width", "fine", "strasse"]),
        ("so\u00adft hy\u200bphen", ["soft", "hyphen"]),
        ("cafe\u0301 CAFÉ", ["café", "café"]),
        ("১৯৭১ সালে কী হয়েছিল?", ["১৯৭১", "সালে", "কী", "হয়েছিল"]),
        ("తెలుగు భాష", ["తెలుగు", "భాష"]),
        ("박정희는 몇 번째 대통령인가?", ["박정희는", "몇", "번째", "대통령인가"]),
        ("東京タワー 3階?", ["東", "京", "タ", "ワ", "ー", "3", "階"]),
        ("snake_case = 1;", ["snake", "case", "1"]),
        ("  ?! ", []),
    ],
)
def test_words_are_those_of_the_script(text, words):
    import unicodedata

    # ASCII and other texts take different ways to the same words, and NFKC may decompose letters.
    assert normal_words(text) == [unicodedata.normalize("NFKC", word) for word in words]
    assert normal_words(text + " ż")[:-1] == normal_words(text)


def test_a_letter_without_spaces_is_half_a_word():
    assert [units_of(word) for word in normal_words("東京 tower 박정희는")] == [1, 1, 2, 2]
