"""Which task a conversation is: the forms of real pools, and what only looks like them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup.records import ROLES, Turn
from mixup.text.tasks import CHAT, TASKS, category_of, detect_task, single_turn, statement_of


def pair(user: str, answer: str) -> list[Turn]:
    return [Turn("user", user), Turn("assistant", answer)]


@pytest.mark.parametrize(
    ("user", "answer", "task"),
    [
        ("What is water?", "A liquid.", "qa"),
        ("Pick one.\nA) red\nB) blue\nC) green\nD) gray", "the blue one", "mcq"),
        ("Pick one.\n(A) red\n(B) blue\n(C) green", "no idea", "mcq"),
        ("Pick one.\nOptions:\n- (A) red\n- (B) blue\n- (C) tea", "So the answer is (C).", "mcq"),
        ("Odd one out. A) Apple B) Orange C) Carrot", "C) Carrot", "mcq"),
        ("Choose:\nA. Joyful\nB. Thankful\nC. Unhappy", "Unhappy", "mcq"),
        ("Choose:\n\n- A: go to church\n\n- B: watch\n\n- C: pay", "A", "mcq"),
        ("Choose the sentence:\nA) He was\nB) He were", "A) He was", "mcq"),
        ("Sentence A: he ate. Sentence B: he ate a car. Which is odd?", "B", "qa"),
        ("Person A: Hi!\nPerson B: Hello", "Person A", "qa"),
        ("Jar A. Jar B. Jar C. holds how much?", "12 marbles", "qa"),
        ("He met J. A. Cuddon and B. Smith. Who is he?", "An actor", "qa"),
        ("Pick one.\nOptions:\n- yes\n- no", "yes", "qa"),
        ("True or false: the sky is green.", "kind of", "tfq"),
        ("Is this statement true or false? Water is wet.", "True. It is.", "tfq"),
        ("Answer with true or false: is it cold?\n\nFormat: true/false", "the answer is no", "qa"),
        ("Answer with true/false: is it cold?", "the correct answer is true", "tfq"),
        ("Verify if the claim is true or false.\n\nX.", "This claim is false, as Y.", "tfq"),
        ("X is so. True, False, or Neither?", "True", "qa"),
        ("True or false or neither? X is so.", "Neither", "qa"),
        ("Write a function returning true or false", "bool f() {}", "qa"),
        ("Category: insects. Write a statement that belongs to it.", "Bees fly.", "cs"),
        ("Write a statement. Category: insects", "Bees fly.", "cs"),
        ("See Category:Storm owners. Who owns it?", "Ann", "qa"),
        ("Classify this mail.\nCategory:", "spam", "qa"),
        ("Write a short paragraph about bees.", "Bees are ...", "para"),
        ("Please write a 100-word, coherent paragraph on tea", "Tea is ...", "para"),
        ("Write a one-paragraph review of Emma.", "Emma is ...", "para"),
        ("Write a paragraf about bees", "Bes are ...", "para"),
        ("Write a title for the following paragraph: X", "X!", "qa"),
        ("Create a question based on this passage.", "Why?", "qa"),
        ("Rewrite the paragraph below.", "Bees ...", "qa"),
        ("Where would you write a passage?", "In a diary.", "qa"),
    ],
)
def test_detect_task(user: str, answer: str, task: str) -> None:
    assert detect_task(pair(user, answer)) == task


def test_chat_is_anything_but_one_pair() -> None:
    question = pair("What is water?", "A liquid.")
    assert detect_task([Turn("system", " "), *question]) == "qa"
    assert detect_task([Turn("system", "Be brief."), *question]) == CHAT
    assert detect_task([*question, *question]) == CHAT
    assert detect_task(question[:1]) == CHAT
    assert detect_task([]) == CHAT


def test_single_turn() -> None:
    assert single_turn(pair("a", "b")) == ("a", "b")
    assert single_turn([Turn("system", ""), *pair("a", "b")]) == ("a", "b")
    assert single_turn(pair("a", "b")[::-1]) is None


def test_category_of() -> None:
    assert category_of('Category: "Deep sea animals". Write a statement.') == "Deep sea animals"
    assert category_of("Category: Dr. No films\nGive one.") == "Dr. No films"
    assert category_of("Category: U.S. Highways. Write a statement.") == "U.S. Highways"
    assert category_of("Category: insects. Write a statement.") == "insects"
    assert category_of("**Category:** insects") == "insects"
    assert category_of("category of what?") is None
    assert category_of("Category: ...") is None


def test_statement_of() -> None:
    assert statement_of("True or false: Water is wet.") == "Water is wet."
    assert statement_of("True or False? Water is wet.") == "Water is wet."
    assert statement_of("Is it true or false?") == "Is it true or false?"


@given(st.lists(st.builds(Turn, st.sampled_from(ROLES), st.text(max_size=60)), max_size=4))
def test_every_conversation_has_a_task(turns: list[Turn]) -> None:
    assert detect_task(turns) in (*TASKS, CHAT)
