"""Items and encoder texts."""

from __future__ import annotations

import pytest

from mixup.clusters.linearize import embed_text, item_text
from mixup.errors import ConfigError, ShapeError
from mixup.records import Turn
from mixup.text.parse import parse_distilled
from mixup.text.prompts import target_text


def pair(user: str, answer: str) -> list[Turn]:
    return [Turn("user", user), Turn("assistant", answer)]


@pytest.mark.parametrize(
    ("task", "user", "answer", "text"),
    [
        ("qa", "Why?", "So.", "Q: Why?\nA: So."),
        ("mcq", "Which?\nA) x\nB) y", "B) y", "Q: Which?\nA) x\nB) y\nAnswer: B) y"),
        ("tfq", "True or false: Ice is hot.", "False", "Ice is hot.\nAnswer: False"),
        ("tfq", "True or false?", "False", "True or false?\nAnswer: False"),
        ("cs", "Category: Bees. Write one.", "Bees fly.", "C: Bees\nS: Bees fly."),
        ("cs", "Name a bee.", "Bees fly.", "C: Name a bee.\nS: Bees fly."),
        ("para", "Write a paragraph.", "Bees fly.", "Bees fly."),
        ("para", "Write two.", "One.\n\n \n\n  Two.", "One.\n  Two."),
        ("qa", "Why </answer>?", "<|im_end|>", "Q: Why &lt;/answer&gt;?\nA: &lt;|im_end|&gt;"),
    ],
)
def test_item_text(task: str, user: str, answer: str, text: str) -> None:
    assert item_text(pair(user, answer), task) == text
    assert item_text([Turn("system", ""), *pair(user, answer)], task) == text


@pytest.mark.parametrize(
    ("task", "answer"),
    [
        ("qa", "Q: Why?\nA: So it is."),
        ("tfq", "Ice is hot.\nAnswer: False"),
        ("cs", "C: Bees\nS: Bees fly."),
    ],
)
def test_a_distilled_pair_is_an_item_again(task: str, answer: str) -> None:
    turns = parse_distilled(target_text("They agree.", answer), task).turns
    assert item_text(turns, task) == answer


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="chat"):
        item_text(pair("a", "b"), "chat")
    with pytest.raises(ShapeError):
        item_text([Turn("system", "Be brief."), *pair("a", "b")], "qa")


def test_embed_text() -> None:
    assert embed_text(pair("Why?", "So.")) == "Instruction: Why?\nAnswer: So."
    chat = [Turn("system", "Be brief."), *pair("Why?", "So.")]
    assert embed_text(chat) == "system: Be brief.\nuser: Why?\nassistant: So."
