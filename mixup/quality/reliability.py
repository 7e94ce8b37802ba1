"""How far a rater can be relied on, as a regression on the embedding tells it.

If ratings are wrong at random, then no kind of text has the same rating always, however sure its
class is: the surest rows tell how often the rater is right. So each candidate reliability gets a
regression that undoes such errors, and what counts is how well it predicts ratings that it did not
see. Unlike a consensus this does not take neighbors to be of one class. Where the texts do not tell
their classes, all candidates predict about alike, and nothing is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixup.quality.rater_errors import DECAY, RaterErrors
from mixup.quality.regression_solver import (
    HeldOut,
    Problem,
    problem_of,
    standard_errors_below,
)

RELIABILITIES = (0.95, 0.85, 0.75, 0.65, 0.55, 0.45, 0.35, 0.25)
"""Candidates. No rater is taken to be always right: nothing but its ratings could then be heard."""

OTHER_DECAYS = (0.2, 1.0)
"""Candidates beside the usual one: most errors go to the next class, or to any class alike."""

FEWEST_ROWS = 1_000
"""With fewer rated rows no reliability is told."""

_SEARCH_ROWS = 8_000  # that are looked at, at most: minutes of a processor otherwise
_WITHIN = 1.645  # standard errors below the best: an interval of 90 %
_HOPELESS = 2.5  # standard errors below the best: lower candidates are not tried
_BETWEEN = 0.05  # above the highest that will do, half a step: tried last
_WIDEST = 0.31  # interval that still tells something: three steps


@dataclass(frozen=True)
class ToldReliability:
    """What was told of a rater.

    Attributes:
        rater: Its errors; None: not told.
        low: The lowest candidate that predicts about as well as the best; NaN where none was tried.
        high: The highest, which is the reliability: a rater is blamed for no more than is sure.
        strength: The strongest prior precision with which its regression predicts as well as with
            the best, within a standard error; None where nothing is told.
        samples: Rated rows that were looked at.
        detail: Why nothing is told, in words; empty where it is.
    """

    rater: RaterErrors | None
    low: float
    high: float
    strength: float | None
    samples: int
    detail: str


def tell_reliability(
    vectors_LD: np.ndarray,
    ratings_L: np.ndarray,
    folds_L: np.ndarray,
    classes: np.ndarray,
    strengths: Sequence[float],
) -> ToldReliability:
    """The reliability of the rater of some rows, with an interval of about 90 %, and its decay.

    Some 20 regressions by five folds, of 8,000 rows at most.

    Args:
        vectors_LD: Unit vectors. Near-duplicates must have been left out: they would have one
            rating as well.
        ratings_L: Observed ratings 0-5; one that is not among the classes counts as the nearest.
        folds_L: ``folds_of`` the rows.
        classes: The C rating classes, at least two.
        strengths: Candidates for the prior's precision.

    Raises:
        ShapeError: As ``problem_of``.
    """
    if len(ratings_L) < FEWEST_ROWS:
        detail = f"{len(ratings_L)} rated rows; a regression tells it from {FEWEST_ROWS} on"
        return ToldReliability(None, np.nan, np.nan, None, len(ratings_L), detail)
    problem = problem_of(vectors_LD, ratings_L, folds_L, classes, None).thinned(_SEARCH_ROWS)
    search = _Search(problem, np.asarray(classes), sorted(strengths, reverse=True))
    alike = _alike(_candidates(search, len(classes)))
    high, low = alike[0].rater.reliability, alike[-1].rater.reliability
    rows = len(problem.folds)
    if high - low > _WIDEST or low == RELIABILITIES[-1]:
        detail = f"reliabilities from {low:g} to {high:g} predict its ratings alike"
        return ToldReliability(None, low, high, None, rows, detail)
    return ToldReliability(alike[0].rater, low, high, search.strongest(alike[0]), rows, "")


def _candidates(search: _Search, classes: int) -> list[_Tried]:
    """Of the usual decay, or of one that is surely better; of two classes none matters."""
    tried = _staircase(search, DECAY)
    if classes == 2:
        return tried
    best = _best(tried)
    others = [
        search.at(RaterErrors(best.rater.reliability, decay), best.place) for decay in OTHER_DECAYS
    ]
    other = _best(others)
    return _staircase(search, other.rater.decay) if _worse(other, best) > _WITHIN else tried


def _staircase(search: _Search, decay: float) -> list[_Tried]:
    """Candidates from the highest down to one that is surely worse than the best, and one between.

    The last is half a step above the highest that will do, and stands before it.
    """
    tried = [search.at(RaterErrors(RELIABILITIES[0], decay), 0)]
    for reliability in RELIABILITIES[1:]:
        tried.append(search.at(RaterErrors(reliability, decay), tried[-1].place))
        if _worse(_best(tried), tried[-1]) > _HOPELESS:
            break
    highest = tried.index(_alike(tried)[0])
    if highest:
        between = round(tried[highest].rater.reliability + _BETWEEN, 2)
        finer = search.at(RaterErrors(between, decay), tried[highest - 1].place)
        tried.insert(highest, finer)
    return tried


@dataclass(frozen=True, eq=False)
class _Tried:
    """A candidate, the place of the strength with which it predicts best, and what it predicts.

    Attributes:
        rater: The candidate.
        place: Among the strengths.
        log_N: log P(rating) of each row, by the model that did not see its fold.
    """

    rater: RaterErrors
    place: int
    log_N: np.ndarray


class _Search:
    """Candidates, each tried with priors from a given one on that grow weaker.

    The less reliable a rater, the surer are texts of their true class, and the weaker is the prior
    that fits them; so a candidate begins where the next higher one ended.
    """

    def __init__(self, problem: Problem, classes: np.ndarray, strengths: Sequence[float]) -> None:
        self.strengths = strengths
        self._problem, self._classes = problem, classes
        self._held_out = HeldOut(problem)

    def at(self, rater: RaterErrors, place: int) -> _Tried:
        """A candidate with the prior of a place, or the weaker one with which it predicts best."""
        best = self._with(rater, place)
        for weaker in range(place + 1, len(self.strengths)):
            found = self._with(rater, weaker)
            if found.log_N.mean() <= best.log_N.mean():
                break
            best = found
        return best

    def strongest(self, tried: _Tried) -> float:
        """The strongest prior that predicts as well as the one tried, within a standard error."""
        for place, strength in enumerate(self.strengths[: tried.place]):
            if _worse(tried, self._with(tried.rater, place)) <= 1:
                return strength
        return self.strengths[tried.place]

    def _with(self, rater: RaterErrors, place: int) -> _Tried:
        given = self._problem.with_errors(rater.matrix(self._classes))
        log_N = self._held_out.log_likelihoods(given, self.strengths[place])
        return _Tried(rater, place, log_N)


def _best(tried: Sequence[_Tried]) -> _Tried:
    return max(tried, key=lambda one: one.log_N.mean())


def _alike(tried: Sequence[_Tried]) -> list[_Tried]:
    """Those that are not surely worse than the best."""
    best = _best(tried)
    return [one for one in tried if _worse(best, one) <= _WITHIN]


def _worse(best: _Tried, other: _Tried) -> float:
    """How many standard errors lie between the two."""
    return standard_errors_below(best.log_N, other.log_N)
