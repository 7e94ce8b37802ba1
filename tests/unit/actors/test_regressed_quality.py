"""Quality of answers by a regression: values by hand, what has no vector, and its revision."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mixup.actors.components import component_scores
from mixup.actors.deaths import CRASHED
from mixup.actors.requests import Score, ScoreRequest, Texts
from mixup.actors.reward_settings import RewardSettings
from mixup.config import Similarity
from mixup.quality.regression import FOLDS, Regression
from mixup.refresh_config import RefreshConfig

SIMILARITY = Similarity(
    near_duplicate=0.95, cluster_floor=0.5, alignment_low=0.3, alignment_high=0.8
)
SETTINGS = RewardSettings("soft", SIMILARITY, 4, 16, 1.0, "e", "l", "regression")


def regression() -> Regression:
    """Classes 1, 3 and 5, told by the first number; the models of folds tell the contrary."""
    weights = np.zeros((1 + FOLDS, 3, 2), np.float32)
    weights[0, :, 0] = np.log([1, 2, 6])
    weights[1:, :, 0] = np.log([6, 2, 1])
    return Regression(np.array([1, 3, 5]), weights, np.zeros((1 + FOLDS, 3), np.float32), 1.0)


def request(text: str, answer: str = "answer") -> ScoreRequest:
    return ScoreRequest(f"{text} {answer}", "qa", "", answer, text, (), ())


def scores(texts: Texts, *asked: ScoreRequest) -> list[Score]:
    return component_scores("quality", asked, texts, SETTINGS, regression())


@pytest.mark.parametrize(
    ("mode", "along", "across"),
    [
        ("soft", 6 / 9 + 0.3 * 2 / 9, 1 / 3 + 0.3 / 3),
        ("paper", 1.0, 0.0),  # the most probable class; of three alike the lowest
    ],
)
def test_values_by_hand(mode, along, across):
    texts = Texts({"good": 0, "flat": 1}, np.eye(2, dtype=np.float32), frozenset())
    asked = [request("flat"), request("good")]
    settings = replace(SETTINGS, mode=mode)
    found = component_scores("quality", asked, texts, settings, regression())
    assert [score.reason for score in found] == [None, None]
    assert [score.value for score in found] == pytest.approx([across, along])


def test_what_has_no_vector_has_its_reason_and_costs_no_other():
    vectors = np.array([[1, 0], [np.nan, np.nan]], np.float32)
    texts = Texts({"good": 0, "dead": 1}, vectors, frozenset({"dead"}))
    found = scores(texts, request("dead"), request("good"), request("good", answer=" "))
    assert found[0] == Score(None, CRASHED)
    assert found[1].value == pytest.approx(6 / 9 + 0.3 * 2 / 9)
    assert found[2] == Score(None, "empty_answer")
    assert scores(texts, request("dead")) == [Score(None, CRASHED)]


def test_its_revision_is_of_what_it_reads_only():
    own = SETTINGS.revision("quality")
    assert replace(SETTINGS, neighbors=8, effective_votes=3.0).revision("quality") == own
    for other in ({"threshold": 3}, {"library": "m"}, {"mode": "paper"}):
        assert replace(SETTINGS, **other).revision("quality") != own
    votes = replace(SETTINGS, predictor="neighbors")
    assert votes.revision("quality") != own
    assert votes.revision("quality") != replace(votes, neighbors=8).revision("quality")
    assert votes.revision("alignment") == SETTINGS.revision("alignment")


def test_a_regression_that_nothing_fits_is_refused():
    document = {
        "workspace": "w",
        "ingest": {"paths": ["p"]},
        "curate": {"predictor": "neighbors"},
        "reward": {"predictor": "regression"},
    }
    with pytest.raises(ValueError, match="needs curate.predictor=regression"):
        RefreshConfig.model_validate(document)
