"""The strict parser: each format once right, and every defect under its own reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup.errors import ConfigError, RecordError
from mixup.text.parse import PARSE_REASONS, extract_answer, parse_distilled
from mixup.text.prompts import INSTRUCTIONS, SYSTEM, build_messages, target_text
from mixup.text.tasks import TASKS, detect_task

MCQ = "Q: What is wet?\nA) Sun\nB) Rain\nC) Sand\nD) Wind\nAnswer: "


def output(answer: str) -> str:
    return target_text("Both speak of water.", answer)


@pytest.mark.parametrize(
    ("task", "answer", "user", "assistant"),
    [
        ("qa", "Q: What is\nwater?\nA: H2O.\n\n- wet", "What is\nwater?", "H2O.\n\n- wet"),
        ("qa", "Q: x < 1?\nA: Yes, FAQ: at DATA: it is.", "x < 1?", "Yes, FAQ: at DATA: it is."),
        ("mcq", MCQ + "B", MCQ[3:-9], "B) Rain"),
        ("mcq", MCQ + "B) rain", MCQ[3:-9], "B) Rain"),
        ("tfq", "Water is wet.\nAnswer: True", "True or false: Water is wet.", "True"),
        ("tfq", "True or false: Ice is hot.\nAnswer: False", "True or false: Ice is hot.", "False"),
        (
            "cs",
            "C: Rivers\nS: The Rhine flows north.",
            "Category: Rivers\nWrite a statement that belongs to this category.",
            "The Rhine flows north.",
        ),
        (
            "para",
            "Title: Bees.\n\nBees make honey.\nThey fly.",
            "Write a paragraph about Bees.",
            "Bees make honey.\nThey fly.",
        ),
    ],
)
def test_formats(task: str, answer: str, user: str, assistant: str) -> None:
    parsed = parse_distilled(output(answer), task)
    assert parsed.thought == "Both speak of water."
    assert parsed.answer == answer
    assert [turn.content for turn in parsed.turns] == [user.strip(), assistant]
    assert detect_task(parsed.turns) == task


QA = "Q: What?\nA: That."


@pytest.mark.parametrize(
    ("task", "text", "reason"),
    [
        ("qa", QA, "no_answer_block"),
        ("qa", "", "no_answer_block"),
        ("qa", f"<think>t</think><ANSWER>{QA}</ANSWER>", "no_answer_block"),
        ("qa", f"<answer>{QA}</answer>", "no_think"),
        ("qa", f"<think>t</think><answer>{QA}", "unclosed_block"),
        ("qa", f"<think>t<answer>{QA}</answer>", "unclosed_block"),
        ("qa", f"<think>t</think>{QA}</answer>", "unclosed_block"),
        ("qa", output(QA) * 2, "several_blocks"),
        (
            "qa",
            f"<think>t</think><answer>{QA}</answer> junk <answer>{QA}</answer>",
            "several_blocks",
        ),
        ("qa", f"<answer>{QA}</answer><think>t</think>", "bad_block_order"),
        ("qa", f"<think><answer>{QA}</answer></think>", "bad_block_order"),
        ("qa", output(QA) + " done", "text_outside"),
        ("qa", "Sure!" + output(QA), "text_outside"),
        ("qa", f"<think>t</think> so <answer>{QA}</answer>", "text_outside"),
        ("qa", f"<think> </think><answer>{QA}</answer>", "empty_think"),
        ("qa", "<think>t</think><answer>\n</answer>", "empty_answer"),
        ("qa", "<think></think><answer>Q:A:</answer>", "empty_think"),
        ("qa", output("Q:A:"), "missing_label"),
        ("qa", output("Q: What?\nA:"), "empty_answer"),
        ("qa", output("Water."), "missing_label"),
        ("qa", output("FAQ: What? DATA: That."), "missing_label"),
        ("qa", output("A: That.\nQ: What?"), "bad_label_order"),
        ("qa", output(QA + "\n\n" + QA), "bad_label_order"),
        ("qa", output("Here it is:\n" + QA), "bad_label_order"),
        ("mcq", output(MCQ + "E"), "bad_option"),
        ("mcq", output(MCQ + "b"), "bad_option"),
        ("mcq", output(MCQ + "B) Sand"), "bad_option"),
        ("mcq", output(MCQ + "B or C"), "bad_option"),
        ("mcq", output(MCQ.replace("D) Wind\n", "") + "B"), "bad_option"),
        ("mcq", output(MCQ.replace("Wind", "rain.") + "B"), "bad_option"),
        ("mcq", output(MCQ.replace("Wind", "Wind\nE) Ice") + "B"), "bad_option"),
        ("mcq", output(MCQ.removesuffix("\nAnswer: ")), "missing_label"),
        ("mcq", output(MCQ + "B\nA) Sun"), "bad_label_order"),
        ("tfq", output("Water is wet."), "missing_label"),
        ("tfq", output("Water is wet.\nAnswer: true"), "bad_truth_value"),
        ("tfq", output("Water is wet.\nAnswer: True\nIt is."), "bad_truth_value"),
        ("tfq", output("Answer: True"), "empty_answer"),
        ("cs", output("S: The Rhine.\nC: Rivers"), "bad_label_order"),
        ("para", output("Bees make honey."), "missing_label"),
        ("para", output("Title: Bees"), "empty_answer"),
        ("para", output("Title:\nBees make honey."), "empty_answer"),
        ("para", output("Well.\nTitle: Bees\nBees fly."), "bad_label_order"),
        ("qa", output("Q: ...\nA: ..."), "placeholder"),
        ("qa", output("Q: What?\nA: …"), "placeholder"),
        ("qa", output("Q: [question]\nA: [answer]"), "placeholder"),
        ("qa", output("Q: What?\nA: The merged answer."), "placeholder"),
        ("qa", f"<think>\n...\n</think>\n<answer>{QA}</answer>", "placeholder"),
        ("qa", output("Q: What?\nA: " + INSTRUCTIONS["qa"][:60]), "placeholder"),
        ("mcq", output(MCQ.replace("Wind", "option d") + "B"), "placeholder"),
        ("qa", output("Q: \ud800?\nA: That."), "invalid_unicode"),
        ("qa", output("Q: \0?\nA: That."), "nul_byte"),
    ],
)
def test_defects(task: str, text: str, reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        parse_distilled(text, task)
    assert caught.value.reason == reason
    assert reason in PARSE_REASONS


@pytest.mark.parametrize("task", TASKS)
def test_the_echoed_prompt_is_refused(task: str) -> None:
    system, user = (turn["content"] for turn in build_messages(["Q: a\nA: b"], task))
    skeleton = SYSTEM[SYSTEM.index("\n<think>\n") :]
    for echo in (system, user, skeleton, system + user, target_text("...", user)):
        with pytest.raises(RecordError):
            parse_distilled(echo, task)


@pytest.mark.parametrize("answer", ["42", "-1.5", "A, B", "x_1", "No.", "Item 7 costs more."])
def test_short_answers_are_no_placeholders(answer: str) -> None:
    assert parse_distilled(output(f"Q: What?\nA: {answer}"), "qa").turns[1].content == answer


def test_unknown_task() -> None:
    with pytest.raises(ConfigError, match="chat"):
        parse_distilled(output(QA), "chat")


def test_extract_answer() -> None:
    assert extract_answer("x <answer>\n a </answer><answer>b</answer>") == "a"
    assert extract_answer("<answer>a") is None
    assert extract_answer("<ANSWER>a</ANSWER>") is None


PIECES = ["<think>", "</think>", "<answer>", "</answer>", "Q:", "A:", "A)", "Answer:", "Title:"]
PIECES += ["C:", "S:", "\n", " ", "True", "B", "word", "...", "\r", "\0", "\ud800"]


@given(st.lists(st.sampled_from(PIECES), max_size=16).map("".join), st.sampled_from(TASKS))
def test_any_text_is_a_pair_or_a_record_error(text: str, task: str) -> None:
    reason = None
    try:
        parsed = parse_distilled(text, task)
    except RecordError as error:
        reason = error.reason
    else:
        assert all(turn.content for turn in parsed.turns)
        assert parse_distilled(target_text(parsed.thought, parsed.answer), task) == parsed
    assert reason in (None, *PARSE_REASONS)
