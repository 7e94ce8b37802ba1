"""An answer that is copied from the library's best is no good answer to another question."""

from __future__ import annotations

import numpy as np
import pytest

from mixup.actors.components import component_scores
from mixup.actors.requests import ScoreRequest, Texts, request_of
from mixup.actors.reward_settings import RewardSettings
from mixup.actors.votes import Votes
from mixup.clusters.linearize import embed_text
from mixup.models.encoder import SentenceEncoder, similarity_of
from mixup.quality.transition import fit_transition
from mixup.records import Turn
from mixup.rewards.coverage import sentences
from mixup.rewards.rubric import COMPONENTS, PAPER_WEIGHTS, combine
from mixup.text.parse import parse_distilled

MODEL = "bundled:minilm"
GOLD = "Q: What makes bread rise?\nA: Yeast eats sugar in the dough and gives off gas."
ITEMS = ("Q: Why does bread rise?\nA: Yeast.", "Q: What does yeast eat?\nA: Sugar in dough.")
TOPICS = ("volcanoes", "violins", "glaciers", "lighthouses", "bees", "canals")


def library() -> tuple[list[str], np.ndarray]:
    """Pairs of some topics, those of volcanoes rated best."""
    texts, ratings = [], []
    for number in range(48):
        topic = TOPICS[number % len(TOPICS)]
        turns = [
            Turn("user", f"Tell me fact {number // 6} about {topic}."),
            Turn("assistant", f"A fact about {topic}: number {number // 6} of them is known well."),
        ]
        texts.append(embed_text(turns))
        ratings.append(5 if topic == "volcanoes" else 1 + number % 3)
    return texts, np.array(ratings)


def written(answer: str) -> str:
    return f"<think>\nBoth say this.\n</think>\n\n<answer>\n{answer}\n</answer>"


def request(answer: str) -> ScoreRequest:
    text = written(answer)
    turns = parse_distilled(text, "qa").turns
    return request_of("ab" * 16, "qa", text, turns, targets=[GOLD], inputs=ITEMS)


@pytest.mark.parametrize("weights", [PAPER_WEIGHTS, {**PAPER_WEIGHTS, "coverage": 0.4}])
def test_it_earns_less_than_an_honest_answer(weights):
    encoder = SentenceEncoder(MODEL, cpus=1)
    texts, ratings_L = library()
    vectors_LD = encoder.encode(texts).vectors_ND
    votes = Votes(vectors_LD, ratings_L, fit_transition(vectors_LD, ratings_L, neighbors=3))
    settings = RewardSettings(
        mode="soft",
        similarity=similarity_of(MODEL, None),
        threshold=4,
        neighbors=6,
        effective_votes=4.0,
        encoder="e",
        library="l",
    )
    copied = (
        "Q: Tell me fact 0 about volcanoes.\n"
        "A: A fact about volcanoes: number 0 of them is known well."
    )
    totals = {}
    for name, answer in {"copied": copied, "honest": GOLD}.items():
        one = request(answer)
        said = [*sentences(one.answer), one.answer, one.pair, *one.targets, *one.inputs]
        said = list(dict.fromkeys(said))
        vectors = Texts(
            {text: row for row, text in enumerate(said)},
            encoder.encode(said).vectors_ND,
            frozenset(),
        )
        scores = {
            name: component_scores(name, [one], vectors, settings, votes)[0].value
            for name in COMPONENTS
        }
        totals[name] = scores, combine(scores, weights).value
    parts, total = totals["copied"]
    assert parts["quality"] > 0.8  # it is among the best of the library
    assert parts["format"] == 1.0
    assert parts["alignment"] < 0.1
    assert parts["coverage"] < 0.2
    assert total <= 0.6 + 1e-6
    assert totals["honest"][0]["alignment"] == 1.0
