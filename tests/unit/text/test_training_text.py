"""What is learned of a conversation, with small templates written out here."""

import re

import pytest

from mixup.errors import ConfigError, RecordError
from mixup.records import Turn
from mixup.text.training_text import Part, chat_parts, control_pattern, laid, plain_parts

CONTROLS = control_pattern(["<|im_start|>", "<|im_end|>", "</s>"])
ASK, SAY = Turn("user", "Who built it?"), Turn("assistant", "Reid built it.")
AGAIN = [Turn("user", "When?"), Turn("assistant", "In 1820.")]


def chatml(messages, opened):
    text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    return text + ("<|im_start|>assistant\n" if opened else "")


def forgets(messages, opened):
    """A template that shows thoughts of the last answer alone."""
    last = len(messages) - 1
    shown = [
        m
        if place == last or m["role"] != "assistant"
        else {**m, "content": re.sub("<think>.*</think>", "", m["content"])}
        for place, m in enumerate(messages)
    ]
    return chatml(shown, opened)


def learned(parts):
    return [part.text for part in parts if part.learned]


def test_a_pair_is_the_prompt_read_and_the_answer_with_its_end_learned():
    assert chat_parts([ASK, SAY], chatml, CONTROLS) == [
        Part("<|im_start|>user\nWho built it?<|im_end|>\n<|im_start|>assistant\n", False),
        Part("Reid built it.<|im_end|>", True),
    ]


def test_every_answer_of_a_chat_is_learned_and_the_whole_is_the_template_s():
    turns = [Turn("system", "Be brief."), ASK, SAY, *AGAIN]
    parts = chat_parts(turns, chatml, CONTROLS)
    assert learned(parts) == ["Reid built it.<|im_end|>", "In 1820.<|im_end|>"]
    whole = chatml([turn._asdict() for turn in turns], False)
    assert "".join(part.text for part in parts) + "\n" == whole


def test_what_is_read_before_an_answer_is_what_is_given_to_be_answered():
    turns = [ASK, SAY, *AGAIN]
    first, answer, second, _ = (part.text for part in chat_parts(turns, chatml, CONTROLS))
    assert first == chatml([ASK._asdict()], True)
    assert first + answer + second == chatml([turn._asdict() for turn in turns[:3]], True)


def test_where_earlier_answers_are_shown_otherwise_the_last_alone_is_learned():
    thought = Turn("assistant", "<think>Reid?</think>Reid built it.")
    parts = chat_parts([ASK, thought, *AGAIN], forgets, CONTROLS)
    assert learned(parts) == ["In 1820.<|im_end|>"]
    assert "<think>" not in parts[0].text
    assert learned(chat_parts([ASK, thought], forgets, CONTROLS)) == [
        "<think>Reid?</think>Reid built it.<|im_end|>"
    ]


def test_what_the_template_puts_before_an_answer_is_learned_too():
    """The model has to write it: the opening that it is given does not have it."""

    def thinks(messages, opened):
        shown = [
            {**m, "content": f"<think>\n</think>\n{m['content']}"}
            if m["role"] == "assistant"
            else m
            for m in messages
        ]
        return chatml(shown, opened)

    assert learned(chat_parts([ASK, SAY], thinks, CONTROLS)) == [
        "<think>\n</think>\nReid built it.<|im_end|>"
    ]


def test_a_template_that_changes_an_answer_leaves_the_row_out():
    with pytest.raises(RecordError) as error:
        chat_parts([ASK, SAY], lambda m, o: chatml(m, o).upper(), CONTROLS)
    assert error.value.reason == "altered_answer"


def test_a_template_that_changes_the_prompt_once_answered_leaves_the_row_out():
    with pytest.raises(RecordError) as error:
        chat_parts([ASK, SAY], lambda m, o: f"{len(m)}{chatml(m, o)}", CONTROLS)
    assert error.value.reason == "altered_answer"


def test_a_template_without_an_end_of_turn_is_refused_with_the_remedy():
    def endless(messages, opened):
        return "".join(f"{m['role']}: {m['content']}\n" for m in messages) + (
            "assistant: " if opened else ""
        )

    with pytest.raises(ConfigError, match="would not learn to stop.*template: plain"):
        chat_parts([ASK, SAY], endless, CONTROLS)


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_text_that_would_be_read_as_a_control_token_leaves_the_row_out(role):
    turns = [
        turn if turn.role != role else Turn(role, f"{turn.content} <|im_end|> more")
        for turn in (ASK, SAY)
    ]
    for lay in (
        lambda: chat_parts(turns, chatml, CONTROLS),
        lambda: plain_parts(turns, opening="", end="</s>", controls=CONTROLS),
    ):
        with pytest.raises(RecordError) as error:
            lay()
        assert error.value.reason == "control_text"


def plain(*turns, opening="<s>"):
    return plain_parts(turns, opening=opening, end="</s>", controls=CONTROLS)


def test_plain_is_prompt_space_completion_end():
    assert plain(ASK, SAY) == [
        Part("<s>Who built it?", False),
        Part(" Reid built it.</s>", True),
    ]
    assert plain(Turn("user", "Who?\n"), SAY)[1] == Part("Reid built it.</s>", True)


def test_plain_heads_the_turns_of_a_chat_by_tags():
    parts = plain(Turn("system", "Be brief."), ASK, SAY, *AGAIN, opening="")
    assert "".join(part.text for part in parts) == (
        "<|system|>\nBe brief.\n<|user|>\nWho built it?\n<|assistant|>\nReid built it.</s>\n"
        "<|user|>\nWhen?\n<|assistant|>\nIn 1820.</s>"
    )
    assert learned(parts) == ["Reid built it.</s>", "In 1820.</s>"]


def test_the_longer_of_two_control_tokens_is_found_whole():
    assert control_pattern(["<a>", "<a>b", ""]).findall("<a>b<a>") == ["<a>b", "<a>"]
    assert control_pattern([]).search("anything") is None


def test_tokens_of_parts_are_laid_one_after_another():
    parts = [Part("a", False), Part("b", True), Part("c", False), Part("d", True)]
    assert laid(parts, [[1, 2], [3], [4], [5, 6]]) == ([1, 2, 3, 4, 5, 6], [2, 3, 4, 6])
