"""What the answers of a distiller to held-out pairs are worth, by the project's own measures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from figures import bootstrap

from mixup.actors.components import component_scores
from mixup.actors.requests import Texts, texts_of
from mixup.actors.reward_settings import RewardSettings
from mixup.models.encoder import SentenceEncoder, similarity_of
from mixup.rewards.alignment import cosines
from mixup.rewards.defects import copied_input, lost_content
from mixup.rewards.format import format_score
from mixup.training.grpo.prompts import PromptRow
from mixup.training.grpo.scoring import _request

ENCODER = "bundled:minilm"
NEAR = similarity_of(ENCODER, None)
_NAME_CHARS = 36
SETTINGS = RewardSettings("soft", NEAR, 4, 16, 4.0, ENCODER, None)


@dataclass(frozen=True)
class Measure:
    """A measure of answers.

    Attributes:
        name: What it says.
        statistic: Of a column of values.
        form: How a number is printed.
    """

    name: str
    statistic: Callable[[np.ndarray], float] = np.mean
    form: str = ".3f"


MEASURES = {
    "format": Measure("format compliance, share"),
    "alignment": Measure("alignment with the target, reward"),
    "usable_alignment": Measure("the same, 0 where malformed"),
    "cosine": Measure("cosine to the target"),
    "coverage": Measure("coverage of the inputs, reward"),
    "usable_coverage": Measure("the same, 0 where malformed"),
    "lost": Measure("content words of the inputs lost, share"),
    "copied": Measure("5-word runs from one single input, share"),
    "ended": Measure("ended by end-of-turn, share"),
    "tokens": Measure("tokens, median", np.median, ".0f"),
}


@dataclass(frozen=True)
class Answers:
    """The answers of one distiller, in the order of the pairs.

    Attributes:
        name: The distiller, and how it drew them.
        texts: The whole outputs.
        finishes: ``stop``, or ``length`` where one was cut off.
        tokens: How many were generated.
    """

    name: str
    texts: list[str]
    finishes: list[str]
    tokens: list[int]


def measured(
    pairs: Sequence[PromptRow], answers: Answers, encoder: SentenceEncoder
) -> dict[str, np.ndarray]:
    """Each measure of each answer; NaN where it cannot be computed.

    As in GRPO an answer without any text is worth 0.
    """
    requests = [_request(pair, text) for pair, text in zip(pairs, answers.texts, strict=True)]
    texts = list(dict.fromkeys(text for request in requests for text in texts_of(request)))
    vectors = Texts(
        {text: row for row, text in enumerate(texts)}, encoder.encode(texts).vectors_ND, frozenset()
    )
    format_N = np.array(
        [format_score(one.text, one.task, mode="strict") for one in requests], dtype=float
    )
    rewards = {
        name: np.array(
            [
                0.0 if score.reason == "empty_answer" else score.value
                for score in component_scores(name, requests, vectors, SETTINGS, None)
            ],
            dtype=float,
        )
        for name in ("alignment", "coverage")
    }
    cosines_N = [
        cosines(vectors.vectors([one.answer]), vectors.vectors(one.targets))[0, 0]
        if one.answer.strip() and vectors.missing([one.answer, *one.targets]) is None
        else np.nan
        for one in requests
    ]
    return {
        "format": format_N,
        **rewards,
        **{f"usable_{name}": values_N * format_N for name, values_N in rewards.items()},
        "cosine": np.array(cosines_N),
        "lost": np.array([lost_content(one.answer, one.inputs) for one in requests]),
        "copied": np.array([copied_input(one.answer, one.inputs) for one in requests]),
        "ended": np.array([float(finish == "stop") for finish in answers.finishes]),
        "tokens": np.array(answers.tokens, dtype=float),
    }


def print_measures(found: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Each distiller's measures, and what later ones have over the first, with intervals."""
    for key, measure in MEASURES.items():
        print(f"  {measure.name}")
        base_N: np.ndarray | None = None
        for name, values in found.items():
            values_N = values[key]
            shown = _shown(measure, bootstrap(measure.statistic, values_N))
            if base_N is not None:
                gap = bootstrap(_gap(measure.statistic), base_N, values_N)
                shown = f"{shown:28} {_shown(measure, gap, sign='+')}"
            base_N = values_N if base_N is None else base_N
            missing = int(np.isnan(values_N).sum())
            told = f"  ({missing} without a value)" if missing else ""
            print(f"    {name[-_NAME_CHARS:]:{_NAME_CHARS}} {shown}{told}")


def _gap(statistic: Callable[[np.ndarray], float]) -> Callable[..., float]:
    return lambda a_N, b_N: float(statistic(b_N) - statistic(a_N))


def _shown(measure: Measure, found: tuple[float, float, float], sign: str = "") -> str:
    value, low, high = (format(number, f"{sign}{measure.form}") for number in found)
    return f"{value:>8} [{low}, {high}]"


def write_answers(
    path: Path,
    pairs: Sequence[PromptRow],
    answers: Answers,
    values: Mapping[str, np.ndarray],
) -> None:
    """Append each answer with its pair and measures, one JSON object a line."""
    with path.open("a", encoding="utf-8") as file:
        for place, pair in enumerate(pairs):
            row: dict[str, Any] = {
                "distiller": answers.name,
                "pair": pair.pair,
                "task": pair.task,
                "items": pair.items,
                "target": pair.target,
                "output": answers.texts[place],
                "finish": answers.finishes[place],
                **{key: _number(values_N[place]) for key, values_N in values.items()},
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def print_examples(
    pairs: Sequence[PromptRow], answers: Answers, values: Mapping[str, np.ndarray], count: int
) -> None:
    """The first answers beside their items and targets, to be read."""
    for place, pair in enumerate(pairs[:count]):
        shown = ", ".join(
            f"{key} {values[key][place]:.2f}" for key in ("format", "alignment", "coverage", "lost")
        )
        print(f"\n--- {place + 1}. {pair.task} {pair.pair[:6]}: {shown}")
        for item in pair.items:
            print(f"  item    {_line(item)}")
        print(f"  target  {_line(pair.target)}")
        print(f"  output  {_line(answers.texts[place])} ({answers.finishes[place]})")


def _line(text: str) -> str:
    return text.replace("\n", " ⏎ ")
