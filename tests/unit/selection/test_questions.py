"""Which columns of an evaluation row hold the question, and which part of them."""

import pytest

from mixup.selection.questions import question_columns, question_of


@pytest.mark.parametrize(
    ("row", "question"),
    [
        ({"subject": "x", "question": "Why?", "A": "a"}, "Why?"),
        ({"Type": "x", "Question": "Why?", "Best Answer": "a"}, "Why?"),
        ({"context": "A long passage.", "question": "Why?"}, "Why?"),
        ({"context": "He left the", "continuation": "house"}, "He left the"),
        ({"task": "t", "input": "Sort: b a", "target": "a b"}, "Sort: b a"),
        ({"instruction": "Sum up.", "input": "A text.", "output": "o"}, "Sum up.\nA text."),
        ({"instruction": "Sum up.", "input": "", "output": "o"}, "Sum up."),
        ({"turns": ["One?", "Two?"]}, "One?\nTwo?"),
        (
            {
                "messages": [
                    {"role": "user", "content": "A?"},
                    {"role": "assistant", "content": "b"},
                ]
            },
            "A?",
        ),
        ({"query": "Question: Where?\nChoices:\nA. here"}, " Where?\n"),
        ({"query": "Passage: Long.\nQuestion: Is it?\nAnswer:"}, " Is it?\n"),
        ({"question": None}, ""),
        ({"question": 3}, ""),
        ({"answer": "b"}, ""),
    ],
)
def test_the_question_is_found_by_the_columns_that_are_there(row, question):
    assert question_of(row, None) == question


def test_examples_before_a_question_leave_the_text_whole():
    text = "Q: One?\nA: 1\nQ: Two?\nA: 2"
    assert question_of({"prompt": text}, None) == text


def test_named_columns_are_taken_as_far_as_they_are_there():
    row = {"question": "Why?", "stem": "Which?", "A": "this"}
    assert question_columns(list(row), ["stem", "A", "B"]) == ["stem", "A"]
    assert question_of(row, ["stem", "A"]) == "Which?\nthis"
    assert question_columns(list(row), ["other"]) == []
