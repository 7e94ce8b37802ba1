"""Questions on their way to engines, and what their answers are read as."""

import pyarrow as pa
import pytest

from mixup.actors.deaths import CRASHED
from mixup.mixture.items import Segment
from mixup.mixture_config import EngineTeacher
from mixup.models.chat import PROMPT_TOO_LONG
from mixup.rater_config import EngineJudge
from mixup.stages.candidates import Wanted
from mixup.stages.engine_answers import Question, batches, silence, tokens_used
from mixup.stages.judge_engine import _outcome
from mixup.stages.teach_engine import _ABOUT, _question, _wanted

ABOUT = pa.schema([("truncated", pa.bool_())])
JUDGE = EngineJudge(model="bundled:smollm2", max_tokens=8, context_tokens=108, batch_rows=2)


def asked(*prompts: str) -> list[Question]:
    return [Question(f"{n:032x}", n, text, {"truncated": False}) for n, text in enumerate(prompts)]


@pytest.mark.parametrize(("count", "blocks"), [(0, [0]), (1, [1]), (2, [2, 0]), (5, [2, 2, 1])])
def test_questions_come_in_blocks_and_none_is_left_out(count, blocks):
    found = list(batches(asked(*["short"] * count), JUDGE, ABOUT))
    assert [block.num_rows for block in found] == blocks
    rows = pa.concat_tables(found).to_pylist()
    assert [(row["key"], row["attempts"]) for row in rows] == [
        (f"{n:032x}", n) for n in range(count)
    ]
    assert all(row["prompt_ids"] and row["truncated"] is False for row in rows)


def test_a_prompt_that_leaves_no_room_for_an_answer_is_not_asked():
    (block, _) = batches(asked("short", "word " * 100), JUDGE, ABOUT)
    short, long = block["prompt_ids"].to_pylist()
    assert 0 < len(short) <= 100
    assert long == []
    exact = JUDGE.model_copy(update={"context_tokens": len(short) + JUDGE.max_tokens})
    assert next(batches(asked("short"), exact, ABOUT))["prompt_ids"].to_pylist() == [short]
    less = JUDGE.model_copy(update={"context_tokens": len(short) + JUDGE.max_tokens - 1})
    assert next(batches(asked("short"), less, ABOUT))["prompt_ids"].to_pylist() == [[]]


def test_what_a_teacher_is_asked_comes_back_with_the_answer():
    segment = Segment("s", "a", "Harbour", "The harbour was built by Thomas Reid.", "More text.")
    wanted = Wanted(f"{7:032x}", segment, "qa", 2)
    teacher = EngineTeacher(model="bundled:smollm2")
    (block,) = batches([_question(wanted)], teacher, _ABOUT)
    (row,) = block.to_pylist()
    found = _wanted(row)
    assert (found.candidate, found.task, found.attempts) == (wanted.candidate, "qa", 2)
    assert found.segment == Segment("s", "a", "Harbour", segment.text)  # the context is not read


def answer(**changed):
    row = {"key": "k", "attempts": 1, "truncated": True, "text": None, "crashed": None}
    return {**row, "input_tokens": None, "output_tokens": None, **changed}


def test_a_row_without_a_text_says_why():
    assert silence(answer()) == PROMPT_TOO_LONG
    assert silence(answer(crashed=True)) == CRASHED
    assert silence(answer(text="")) is None
    assert tokens_used([answer(), answer(text="x", input_tokens=5, output_tokens=2)]) == {
        "input_tokens": 5,
        "output_tokens": 2,
    }


def test_an_answer_of_a_judge_is_a_rating_or_a_reason():
    text = '{"Rarity": 3, "Complexity": 4, "Informativeness": 5, "Overall rating": 6}'
    good, crashed, prose = (
        _outcome(answer(**changed))
        for changed in ({"text": text}, {"crashed": True}, {"text": "It is good."})
    )
    assert good.judgment is not None
    assert good.judgment.overall == 6
    assert (good.uid, good.attempts, good.truncated, good.reason) == ("k", 2, True, None)
    assert (crashed.judgment, crashed.reason) == (None, CRASHED)
    assert (prose.judgment, prose.reason) == (None, "prose")
