"""MIXTURE records in the paper's two schemas and as chat messages, written and read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mixup.errors import RecordError
from mixup.mixture.pairs import Pair
from mixup.records import content_key
from mixup.text.messages import text_of, type_name
from mixup.text.prompts import INSTRUCTIONS, SYSTEM, neutralize_tags, target_text
from mixup.text.tasks import TASKS

RECORD_REASONS = (
    "not_an_object",  # the row is no object
    "unknown_schema",  # neither schema has the row's fields
    "wrong_type",  # a field of the schema is not text
    "unknown_task",  # neither the row, nor the file's name, nor the output's labels say the task
    "empty_input",  # there is nothing to distill
    "empty_output",  # there is no target
    "invalid_unicode",  # lone surrogates
    "nul_byte",  # a NUL character
)

_RL_SUFFIX = "_mixup"
_TASK_LABELS = (
    ("mcq", {"Q:", "A)", "B)", "Answer:"}),
    ("qa", {"Q:", "A:"}),
    ("cs", {"C:", "S:"}),
    ("tfq", {"Answer:"}),
)
_ITEM_LABEL = re.compile(r"^[ \t]?(Q:|A:|C:|S:|Answer:|[A-D]\))", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class MixtureRecord:
    """A training record, whichever schema it was read from.

    Attributes:
        id: The record's id as text, or a content key of the record where it has none.
        task: One of ``TASKS``.
        instruction: The task's instruction; "" where the row has none.
        input: The linearized cluster.
        output: The target's answer text.
        cot: The chain of thought, or "".
    """

    id: str
    task: str
    instruction: str
    input: str
    output: str
    cot: str


def record_of(pair: Pair) -> MixtureRecord:
    """A pair as a record: the task's instruction, the variants' texts, the target's answer."""
    items = "\n\n".join(neutralize_tags(variant.text) for variant in pair.variants)
    item = pair.target.item
    return MixtureRecord(
        pair.key, item.task, INSTRUCTIONS[item.task], items, item.answer, pair.thought
    )


def stored_record(row: Mapping[str, Any]) -> MixtureRecord:
    """A row of the table ``mixture`` as a record."""
    return MixtureRecord(
        id=row["pair"],
        task=row["task"],
        instruction=row["instruction"],
        input=row["input"],
        output=row["output"],
        cot=row["cot"],
    )


def sft_row(record: MixtureRecord) -> dict[str, str]:
    """The SFT schema: id, instruction, input, output, cot, source. Source: spec 2.3."""
    return {
        "id": record.id,
        "instruction": record.instruction,
        "input": record.input,
        "output": record.output,
        "cot": record.cot,
        "source": record.task,
    }


def rl_row(record: MixtureRecord) -> dict[str, str]:
    """The RL schema: input, which opens with the instruction, output, task_type; and the id.

    Source: spec 2.3.
    """
    return {
        "id": record.id,
        "input": _user_text(record),
        "output": record.output,
        "task_type": f"{record.task}{_RL_SUFFIX}",
    }


def messages_of(record: MixtureRecord) -> list[dict[str, str]]:
    """System, user and assistant message, as ``prompts.build_messages`` and ``target_text`` are.

    A record of the paper keeps its own instruction; the system message is ours for all, since the
    distiller is asked by it alone.
    """
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": neutralize_tags(_user_text(record))},
        {"role": "assistant", "content": target_text(record.cot, record.output)},
    ]


def is_record(row: object) -> bool:
    """Whether a row is a MIXTURE record and no other pair with an instruction, input and output.

    The SFT schema has a chain of thought, which may be empty; the RL schema names a task type.
    """
    if not isinstance(row, Mapping) or not {"input", "output"} <= row.keys():
        return False
    kind = row.get("task_type")
    return "cot" in row or (isinstance(kind, str) and kind.endswith(_RL_SUFFIX))


def task_in_name(name: str) -> str | None:
    """The task that a file's name says, such as ``merged_train_qa_noisy``; None if not just one."""
    found = set(TASKS) & set(re.split(r"[^a-z]+", name.lower()))
    return found.pop() if len(found) == 1 else None


def read_record(row: object, *, task: str | None = None) -> MixtureRecord:
    """A row of either schema.

    In the RL schema the instruction stands before the first blank line of the input; it is told
    from an item by having no item's label.

    Args:
        row: The row, whatever it is.
        task: The task that the file's name says, for rows that do not say one.

    Raises:
        RecordError: With one of ``RECORD_REASONS``.
    """
    if not isinstance(row, Mapping):
        raise RecordError("not_an_object", f"a row must be an object, not {type_name(row)}")
    if "output" not in row or "input" not in row:
        raise RecordError("unknown_schema", f"{ascii(sorted(map(str, row))[:12])[:200]}")
    given, output = text_of(row["input"], "input"), text_of(row["output"], "output")
    instruction = text_of(row.get("instruction"), "instruction")
    if not instruction:
        instruction, given = _parted(given)
    if not given.strip():
        raise RecordError("empty_input")
    if not output.strip():
        raise RecordError("empty_output")
    found = _task_of(row, task, output)
    cot = text_of(row.get("cot"), "cot").strip()
    fields = (found, instruction.strip(), given.strip(), output.strip(), cot)
    return MixtureRecord(_id_of(row) or content_key("mixture record", *fields), *fields)


def provenance_of(pair: Pair) -> dict[str, Any]:
    """The columns beside a record: where the target and each variant come from."""
    target = pair.target
    return {
        "rule": target.rule,
        "target": target.item.uid,
        "target_rating": target.rating,
        "target_rating_source": target.rating_source,
        "origins": list(target.origins),
        "articles": list(target.articles),
        "licence": target.licence,
        "plan": pair.plan,
        "keeps_facts": pair.keeps_facts,
        "variants": [
            {
                "uid": variant.uid,
                "degradations": list(variant.degradations),
                "rating": variant.rating,
                "rating_source": variant.rating_source,
            }
            for variant in pair.variants
        ],
    }


def _user_text(record: MixtureRecord) -> str:
    parts = [part for part in (record.instruction, record.input) if part]
    return "\n\n".join(parts)


def _parted(text: str) -> tuple[str, str]:
    first, blank, rest = text.strip().partition("\n\n")
    if blank and not _ITEM_LABEL.search(first):
        return first, rest
    return "", text


def _task_of(row: Mapping[Any, Any], task: str | None, output: str) -> str:
    for named in (row.get("task_type"), row.get("source"), task):
        name = named.removesuffix(_RL_SUFFIX) if isinstance(named, str) else None
        if name in TASKS:
            return name
    found = set(_ITEM_LABEL.findall(output))
    for labeled, labels in _TASK_LABELS:
        if labels <= found:
            return labeled
    raise RecordError("unknown_task", f"{output[:60]!r}")


def _id_of(row: Mapping[Any, Any]) -> str | None:
    given = row.get("id")
    if isinstance(given, bool) or not isinstance(given, str | int):
        return None
    return text_of(str(given), "id") or None
