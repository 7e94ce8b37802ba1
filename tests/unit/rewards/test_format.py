"""The format reward, on well-formed samples and on the ways to cheat it."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup.errors import ConfigError
from mixup.rewards.format import format_score
from mixup.text.tasks import TASKS

MODES = ("soft", "strict", "paper", "released_code")

ANSWERS = {
    "qa": "Q: Which gas do plants take in?\nA: Plants take in carbon dioxide from the air.",
    "mcq": "Q: Which planet is largest?\nA) Mars\nB) Jupiter\nC) Venus\nD) Earth\nAnswer: B",
    "tfq": "The moon orbits the earth.\nAnswer: True",
    "cs": "C: Astronomy\nS: Jupiter is the largest planet of the solar system.",
    "para": "Title: Jupiter\nJupiter is the largest planet. It has many moons.",
}


def sample(answer: str, thought: str = "I merge what the inputs share.") -> str:
    return f"<think>\n{thought}\n</think>\n\n<answer>\n{answer}\n</answer>"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("mode", MODES)
def test_well_formed_samples_earn_one(task, mode):
    assert format_score(sample(ANSWERS[task]), task, mode=mode) == 1.0


@pytest.mark.parametrize(
    ("text", "task", "soft", "paper", "released"),
    [
        (f"<answer>\n{ANSWERS['qa']}\n</answer>", "qa", 0.5, 0.5, 0.5),
        (sample(ANSWERS["qa"]) + " more", "qa", 0.5, 0.5, 0.5),
        ("plain garbage", "para", 0.0, 0.0, 0.5),
        ("plain garbage", "qa", 0.0, 0.0, 0.0),
        ("", "para", 0.0, 0.0, 0.5),
        ("<think></think><answer>Q:A:</answer>", "qa", 0.0, 0.0, 1.0),
        (sample("FAQ: of sorts DATA: of sorts"), "qa", 0.5, 0.5, 1.0),
        (sample("no labels at all"), "qa", 0.5, 0.5, 0.5),
        (sample(ANSWERS["qa"]) + "junk <answer>again</answer>", "qa", 0.5, 0.5, 1.0),
        (sample(ANSWERS["para"], thought=""), "para", 0.5, 0.0, 1.0),
        (sample(ANSWERS["qa"]).replace("answer>", "ANSWER>"), "qa", 0.0, 0.0, 1.0),
        (sample(ANSWERS["mcq"].replace("Answer: B", "Answer: E")), "mcq", 0.5, 1.0, 1.0),
    ],
)
def test_defects(text, task, soft, paper, released):
    assert format_score(text, task) == soft
    assert format_score(text, task, mode="strict") == 0.0
    assert format_score(text, task, mode="paper") == paper
    assert format_score(text, task, mode="released_code") == released


PIECES = st.sampled_from(
    ["<think>", "</think>", "<answer>", "</answer>", "<THINK>", "Q:", "A:", "A)", "B)", "C)", "D)"]
    + ["Answer:", "S:", "C:", " ", "\n", "x", "\u017f"]
)
TEXTS = st.lists(PIECES, max_size=14).map("".join)

OUTER = re.compile(r"^\s*<think>.*?</think>\s*<answer>.*?</answer>\s*$", re.S | re.I)
INNER = {
    "qa": r"<answer>.*?Q:.*?A:.*?</answer>",
    "mcq": r"<answer>.*?Q:.*?A\).*?B\).*?C\).*?D\).*?Answer:.*?</answer>",
    "cs": r"<answer>.*?C:.*?S:.*?</answer>",
    "tfq": r"<answer>.*?Answer:.*?</answer>",
    "para": "",
}


@given(TEXTS.map(lambda text: f"<think>{text}</answer>") | TEXTS, st.sampled_from(TASKS))
def test_released_code_equals_the_published_expressions(text, task):
    text = text.replace("\u017f", "s")
    expected = 0.5 * bool(OUTER.search(text)) + 0.5 * bool(
        re.search(INNER[task], text, re.S | re.I)
    )
    assert format_score(text, task, mode="released_code") == expected


@given(TEXTS, st.sampled_from(TASKS), st.sampled_from(MODES))
def test_any_text_scores_zero_half_or_one(text, task, mode):
    assert format_score(text, task, mode=mode) in (0.0, 0.5, 1.0)


@given(TEXTS, st.sampled_from(TASKS))
def test_soft_is_one_exactly_where_strict_is(text, task):
    assert (format_score(text, task) == 1.0) == (format_score(text, task, mode="strict") == 1.0)


@pytest.mark.parametrize("mode", MODES)
def test_a_looping_sample_is_scored_quickly(mode):
    loop = "<think>" + "<answer>\nQ: A) B) C) D) Answer:\n" * 400
    started = time.perf_counter()
    assert format_score(loop, "mcq", mode=mode) <= 0.5
    assert time.perf_counter() - started < 2


def test_unknown_task_and_mode_are_refused():
    with pytest.raises(ConfigError, match="chat"):
        format_score("x", "chat")
    with pytest.raises(ConfigError, match="lenient"):
        format_score("x", "qa", mode="lenient")  # pyright: ignore[reportArgumentType]
