"""The rater's errors, from how often an example's rating agrees with those of its neighbors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixup.errors import ConfigError, ShapeError
from mixup.quality.consensus_solver import Loss, expected_shares, solve_consensus
from mixup.quality.resampling import poisson_weights
from mixup.quality.transition import RATING_CLASSES, UNRATED, Transition, check_ratings

REASONS = (
    "no_samples",
    "one_rating_class",
    "too_few_samples",
    "no_intervals",
    "not_diagonally_dominant",
    "classes_not_told_apart",
    "poor_fit",
    "wide_intervals",
)


@dataclass(frozen=True)
class ConsensusSettings:
    """When a transition by consensus is trusted.

    Attributes:
        loss: What the solver minimizes.
        confidence: Share of the bootstrap between the interval's ends.
        min_samples: Rows counted; with fewer, errors of 0.1 and more are the rule.
        max_width: Widest interval of an entry of T.
        max_misfit: Highest norm of c3 - c3^ beyond what sampling explains.
        min_apart: Lowest total variation distance of two rows of T.
    """

    loss: Loss = "likelihood"
    confidence: float = 0.9
    min_samples: int = 5_000
    max_width: float = 0.25
    max_misfit: float = 0.008
    min_apart: float = 0.15

    def __post_init__(self) -> None:
        """Raises ConfigError where the confidence is no share."""
        if not 0 < self.confidence < 1:
            raise ConfigError(f"confidence is {self.confidence}; expected above 0 and below 1")


@dataclass(frozen=True)
class Consensus:
    """T and p by consensus, with percentile intervals of the bootstrap.

    Unlike ``cooccurrence``, T is here P(rating | true class) and p the share of true classes.
    The bootstrap draws rows as if their neighbors were their own; rows share neighbors, so the
    intervals are, if anything, too narrow.

    Attributes:
        transition: Over the classes that were counted.
        low_CC: Lower ends of T; NaN without replicates, as the four next.
        high_CC: Upper ends of T.
        low_C: Lower ends of p.
        high_C: Upper ends of p.
        variance_CC: Of T over the replicates.
        samples: Rows counted.
        residual: ||c1 - c1^|| + ||c2 - c2^|| + ||c3 - c3^||.
        misfit: ||c3 - c3^|| beyond what sampling explains: neighbors of another true class.
        reason: The first of ``REASONS`` that holds; None: trusted.
        detail: The reason in words, with the number and what was expected.
    """

    transition: Transition
    low_CC: np.ndarray
    high_CC: np.ndarray
    low_C: np.ndarray
    high_C: np.ndarray
    variance_CC: np.ndarray
    samples: int
    residual: float
    misfit: float
    reason: str | None
    detail: str = ""

    @property
    def trusted(self) -> bool:
        """Whether no reason speaks against T."""
        return self.reason is None


def consensus_counts(
    ratings_N: np.ndarray,
    first_N: np.ndarray,
    second_N: np.ndarray,
    ids_N: np.ndarray,
    *,
    classes: np.ndarray | None = None,
    replicates: int = 100,
) -> np.ndarray:
    """How often (own, first neighbor's, second neighbor's) ratings are (j, l, s).

    Counts of cells are added up: a row's bootstrap weight is a function of its id alone. The
    first and second order consensus are margins of these. Near-duplicates must have been left
    out, as rows and as neighbors: they would push T towards the identity.

    Args:
        ratings_N: Observed ratings 0-5, -1 for unrated.
        first_N: The rating of each row's nearest other row, -1 where unrated or none.
        second_N: That of the second nearest. A triple with a -1 is not counted.
        ids_N: A distinct 64-bit integer a row.
        classes: The C classes of the axes; None: all six.
        replicates: B, Poisson bootstrap replicates.

    Returns:
        int64 of shape (1 + B, C, C, C): all rows, then the replicates.

    Raises:
        ShapeError: Arrays of different length, or a counted rating that is not in classes.
    """
    classes = np.arange(RATING_CLASSES) if classes is None else np.asarray(classes)
    triples = [check_ratings(part) for part in (ratings_N, first_N, second_N)]
    if any(len(part) != len(ids_N) for part in triples):
        raise ShapeError(f"ratings of {[len(part) for part in triples]} rows, {len(ids_N)} ids")
    counted = np.all([part != UNRATED for part in triples], axis=0)
    column_of = np.full(RATING_CLASSES, -1)
    column_of[classes] = np.arange(len(classes))
    columns = column_of[np.array(triples)[:, counted]]
    if (columns < 0).any():
        raise ShapeError(f"a rating is not among the classes {classes.tolist()}")
    shape = (len(classes),) * 3
    triple = np.ravel_multi_index(tuple(columns), shape)
    ids, size = np.asarray(ids_N)[counted], len(classes) ** 3
    counts = np.empty((1 + replicates, size), dtype=np.int64)
    counts[0] = np.bincount(triple, minlength=size)
    for replicate in range(replicates):
        weights = poisson_weights(ids, replicate)
        counts[1 + replicate] = np.bincount(triple, weights=weights, minlength=size)
    return counts.reshape(1 + replicates, *shape)


def counted_classes(
    counts_BCCC: np.ndarray, classes: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The counts without classes that never occur, and the classes that are left.

    Raises:
        ShapeError: Not cubes of counts, or not of as many classes.
    """
    counts = np.asarray(counts_BCCC)
    classes = np.arange(RATING_CLASSES) if classes is None else np.asarray(classes)
    if counts.ndim != 4 or not len(counts) or counts.shape[1:] != (len(classes),) * 3:
        raise ShapeError(f"counts of shape {counts.shape} for {len(classes)} classes")
    whole = counts[0]
    of_class = whole.sum((1, 2)) + whole.sum((0, 2)) + whole.sum((0, 1))
    present = np.flatnonzero(of_class)
    return counts[np.ix_(np.arange(len(counts)), present, present, present)], classes[present]


def estimate_consensus(
    counts_BCCC: np.ndarray,
    classes: np.ndarray | None = None,
    settings: ConsensusSettings | None = None,
) -> Consensus | None:
    """T and p of the counts in all, their intervals, and whether they can be trusted.

    Args:
        counts_BCCC: From ``consensus_counts``, added up over cells.
        classes: The classes of the axes; None: all six. Those that never occur are left out.
        settings: None: the defaults.

    Returns:
        None where nothing was counted (the reason ``no_samples``).

    Raises:
        ShapeError: The counts do not fit the classes.

    Source: spec/lm-mixup.md, section 8.3. Intervals and the refusal are ours (8.3, conclusion i).
    """
    settings = settings or ConsensusSettings()
    counts, present = counted_classes(counts_BCCC, classes)
    if not len(present):
        return None
    found = solve_consensus(counts[:1], loss=settings.loss)
    matrix, prior = found.matrix_BCC[0], found.prior_BC[0]
    # A replicate of a handful of rows may have drawn none of them.
    drawn = counts[1:][counts[1:].sum(axis=(1, 2, 3)) > 0]
    ends = np.full((3, len(present) + 1, len(present)), np.nan)
    if len(drawn):
        again = solve_consensus(drawn, start=(matrix, prior), loss=settings.loss)
        both = np.concatenate([again.matrix_BCC, again.prior_BC[:, None]], axis=1)
        tail = (1 - settings.confidence) / 2
        ends[:2], ends[2] = np.quantile(both, [tail, 1 - tail], axis=0), both.var(axis=0)
    misfit = _misfit(counts[0], matrix, prior)
    samples = int(counts[0].sum())
    reason, detail = _distrust(matrix, present, ends[:2, :-1], samples, misfit, settings)
    return Consensus(
        transition=Transition(present, matrix, prior),
        low_CC=ends[0, :-1],
        high_CC=ends[1, :-1],
        low_C=ends[0, -1],
        high_C=ends[1, -1],
        variance_CC=ends[2, :-1],
        samples=samples,
        residual=float(found.residual_B[0]),
        misfit=misfit,
        reason=reason,
        detail=detail,
    )


def _misfit(counts: np.ndarray, matrix: np.ndarray, prior: np.ndarray) -> float:
    samples = counts.sum()
    expected = expected_shares(matrix, prior)
    sampling = (1 - np.square(expected).sum()) / samples
    return float(np.sqrt(max(0.0, np.square(counts / samples - expected).sum() - sampling)))


def _distrust(
    matrix: np.ndarray,
    classes: np.ndarray,
    ends: np.ndarray,
    samples: int,
    misfit: float,
    settings: ConsensusSettings,
) -> tuple[str | None, str]:
    """The first reason against T, in words too."""
    count = len(classes)
    if count == 1:
        return "one_rating_class", f"every rating is {classes[0]}; the rater tells nothing apart"
    if samples < settings.min_samples:
        return "too_few_samples", f"{samples} samples; at least {settings.min_samples} are needed"
    if np.isnan(ends).any():
        return "no_intervals", "no bootstrap replicate was counted"
    diagonal, others = np.diag(matrix), matrix - 2 * np.eye(count)
    lead = diagonal - np.maximum(others.max(axis=0), others.max(axis=1))
    if lead.min() <= 0:
        weak = classes[lead.argmin()]
        return "not_diagonally_dominant", f"rating {weak} is not the surest sign of class {weak}"
    apart = np.abs(matrix[:, None] - matrix[None]).sum(axis=2) / 2 + np.eye(count)
    if apart.min() < settings.min_apart:
        a, b = classes[list(np.unravel_index(apart.argmin(), apart.shape))]
        return (
            "classes_not_told_apart",
            f"rows {a} and {b} are {apart.min():.2f} apart; expected {settings.min_apart}",
        )
    if misfit > settings.max_misfit:
        return "poor_fit", f"c3 is {misfit:.4f} off; at most {settings.max_misfit} is accepted"
    width = ends[1] - ends[0]
    if width.max() > settings.max_width:
        row = classes[np.unravel_index(width.argmax(), width.shape)[0]]
        return (
            "wide_intervals",
            f"class {row}: an interval of {width.max():.2f}; at most {settings.max_width}",
        )
    return None, ""
