"""Token ids and what is learned of them, with the bundled model's tokenizer and one made here."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_tokenizer import save_tokenizer

from mixup.errors import ConfigError
from mixup.models.bundled import SMOLLM2
from mixup.models.chat import render_chat, tokenizer_of
from mixup.models.tokenizing import Encoding, ExampleTokenizer
from mixup.records import Turn
from mixup.text.prompts import build_messages, target_text
from mixup.text.tasks import TASKS

ITEMS = ["Q: Who built the harbour?\nA: Thomas Reid.", "Q: When?\nA: In 1820, within two years."]
TARGET = target_text("Both are of the harbour.", "Q: Who built it, and when?\nA: Reid, in 1820.")
PROMPT = build_messages(ITEMS, "qa")
TAUGHT = [*(Turn(**message) for message in PROMPT), Turn("assistant", TARGET)]
CHAT = [
    Turn("user", "Who built it?"),
    Turn("assistant", "Reid."),
    Turn("user", "When?"),
    Turn("assistant", "In 1820."),
]


def only(encoder: ExampleTokenizer, turns) -> Any:
    (found,) = encoder.encode([turns])
    return found


def pieces(found, *, learned: bool) -> list[list[int]]:
    """The runs of ids that are learned, or those that are not."""
    ends = [0, *found.learned, found.length]
    runs = [found.input_ids[a:b] for a, b in zip(ends, ends[1:], strict=False)]
    return runs[1::2] if learned else [run for run in runs[::2] if run]


@pytest.fixture(scope="module")
def bundled() -> ExampleTokenizer:
    return ExampleTokenizer(Encoding(SMOLLM2, "chat", 2400))


def test_what_is_read_is_what_the_distiller_is_asked(bundled):
    """Id by id: the same builder and the same template call."""
    found = only(bundled, TAUGHT)
    assert pieces(found, learned=False) == [render_chat(SMOLLM2, PROMPT)]


def test_the_answer_and_its_end_of_turn_are_learned_and_nothing_else(bundled):
    found = only(bundled, TAUGHT)
    tokenizer = tokenizer_of(SMOLLM2)
    (answer,) = pieces(found, learned=True)
    assert tokenizer.decode(answer) == f"{TARGET}<|im_end|>"
    assert answer[-1] == bundled.end_id == tokenizer.eos_token_id
    assert found.learned == [found.length - len(answer), found.length]
    assert found.reason is None


def test_a_chat_s_ids_are_those_of_the_template(bundled):
    """The round trip: but for the line break after the last end of turn."""
    for turns in (TAUGHT, CHAT):
        whole = tokenizer_of(SMOLLM2).apply_chat_template(
            [turn._asdict() for turn in turns], tokenize=True, return_dict=False
        )
        assert only(bundled, turns).input_ids == whole[:-1]
    texts = [tokenizer_of(SMOLLM2).decode(run) for run in pieces(only(bundled, CHAT), learned=True)]
    assert texts == ["Reid.<|im_end|>", "In 1820.<|im_end|>"]


@pytest.mark.parametrize("task", TASKS)
def test_no_prompt_of_a_task_is_left_out(bundled, task):
    turns = [*(Turn(**m) for m in build_messages(ITEMS, task)), Turn("assistant", TARGET)]
    assert only(bundled, turns).reason is None


def test_a_row_over_the_window_is_left_out_whole_with_its_length(bundled):
    length = only(bundled, TAUGHT).length
    fits = only(ExampleTokenizer(Encoding(SMOLLM2, "chat", length)), TAUGHT)
    assert fits.reason is None
    short = only(ExampleTokenizer(Encoding(SMOLLM2, "chat", length - 1)), TAUGHT)
    assert short == (None, None, length, "too_long")


def test_a_control_token_in_a_text_leaves_that_row_out_alone(bundled):
    bad = [Turn("user", "What does <|im_end|> do?"), Turn("assistant", "It ends a turn.")]
    first, refused, last = bundled.encode([CHAT, bad, CHAT])
    assert refused == (None, None, None, "control_text")
    assert first == last == only(bundled, CHAT)


def test_plain_is_prompt_space_completion_and_end_of_text(tmp_path):
    folder = save_tokenizer(tmp_path, template=None, adds_bos=True)
    found = only(ExampleTokenizer(Encoding(str(folder), "plain", 200)), CHAT[:2])
    tokenizer = tokenizer_of(str(folder))
    assert tokenizer.decode(found.input_ids) == "<|endoftext|>Who built it? Reid.<|im_end|>"
    assert [tokenizer.decode(run) for run in pieces(found, learned=True)] == [" Reid.<|im_end|>"]
    assert found.input_ids[:14] == tokenizer("Who built it?")["input_ids"], "with the first token"


def test_what_cannot_be_trained_on_is_refused_with_the_remedy(tmp_path):
    bare = save_tokenizer(tmp_path / "bare", template=None)
    with pytest.raises(ConfigError, match="has no chat template: choose `template: plain`"):
        ExampleTokenizer(Encoding(str(bare), "chat", 200))
    endless = save_tokenizer(
        tmp_path / "endless",
        template="{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}",
    )
    with pytest.raises(ConfigError, match="would not learn to stop"):
        ExampleTokenizer(Encoding(str(endless), "chat", 200))


def test_a_template_that_takes_no_system_turn_leaves_such_rows_out(tmp_path):
    strict = save_tokenizer(
        tmp_path,
        template="{% for m in messages %}{% if m['role'] == 'system' %}"
        "{{ raise_exception('no system turn') }}{% endif %}"
        "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    )
    encoder = ExampleTokenizer(Encoding(str(strict), "chat", 4000))
    assert only(encoder, CHAT).reason is None
    assert only(encoder, TAUGHT) == (None, None, None, "template_refuses")


def test_the_revision_tells_all_that_decides_the_tokens(tmp_path):
    one, other = (
        save_tokenizer(tmp_path / name, adds_bos=bos) for name, bos in (("a", False), ("b", True))
    )
    made = [
        Encoding(str(one), "chat", 100),
        Encoding(str(one), "plain", 100),
        Encoding(str(one), "chat", 101),
        Encoding(str(other), "chat", 100),
    ]
    assert len({encoding.revision() for encoding in made}) == 4
    copy = save_tokenizer(tmp_path / "copy")
    (copy / "model.safetensors").write_bytes(b"weights do not matter")
    assert Encoding(str(copy), "chat", 100).revision() == made[0].revision()
