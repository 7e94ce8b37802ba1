"""The transition by consensus: exact shares, planted errors, bootstrap, and when it is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted_ratings import PRIOR, copied, triples, true_matrix

from mixup.errors import ConfigError, ShapeError
from mixup.quality.consensus import (
    ConsensusSettings,
    consensus_counts,
    counted_classes,
    estimate_consensus,
)
from mixup.quality.consensus_solver import expected_shares, solve_consensus

TRUE = true_matrix()


def counts_of(found, *, replicates=0, ids=None, classes=None):
    ids = np.arange(len(found)) if ids is None else ids
    return consensus_counts(
        found[:, 0], found[:, 1], found[:, 2], ids, replicates=replicates, classes=classes
    )


def largest_error(found, true=TRUE):
    """Of T, the median over the tables."""
    tables = np.concatenate([counts_of(each) for each in found])
    errors = np.abs(solve_consensus(tables).matrix_BCC - true).max(axis=(1, 2))
    return float(np.median(errors))


def test_counts_by_hand():
    own, first, second = np.array([0, 2, 2, -1]), np.array([2, 2, 2, 0]), np.array([0, 0, 0, 0])
    counts = consensus_counts(
        own, first, second, np.arange(4), classes=np.array([0, 2]), replicates=0
    )
    assert counts.shape == (1, 2, 2, 2)
    assert counts[0, 0, 1, 0] == 1
    assert counts[0, 1, 1, 0] == 2
    assert counts.sum() == 3


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_counts_of_cells_add_up_in_any_order(seed, rows):
    random = np.random.default_rng(seed)
    found = random.integers(-1, 6, (rows, 3))
    ids, cell_of = random.integers(-(2**63), 2**63, rows), random.integers(0, 4, rows)
    shuffled = random.permutation(rows)
    cells = [shuffled[cell_of[shuffled] == cell] for cell in range(4)]
    parts = [counts_of(found[cell], replicates=6, ids=ids[cell]) for cell in cells]
    np.testing.assert_array_equal(sum(parts), counts_of(found, replicates=6, ids=ids))


def test_replicates_differ_and_have_about_as_many_rows():
    counts = counts_of(triples(20_000), replicates=8).sum(axis=(1, 2, 3))
    assert len(set(counts.tolist())) == 9
    assert np.abs(counts - 20_000).max() < 600


@pytest.mark.parametrize("loss", ["norms", "likelihood"])
@pytest.mark.parametrize("decay", [0.5, 1.0])
def test_exact_consensus_is_recovered(loss, decay):
    true = true_matrix(decay)
    found = solve_consensus(expected_shares(true, PRIOR)[None], loss=loss)
    np.testing.assert_allclose(found.matrix_BCC[0], true, atol=1e-4)
    np.testing.assert_allclose(found.prior_BC[0], PRIOR, atol=1e-4)
    assert found.residual_B[0] < 1e-6


@pytest.mark.parametrize("classes", [2, 3, 4, 5])
def test_fewer_classes(classes):
    true = 0.7 * np.eye(classes) + 0.3 / classes
    prior = np.arange(1, classes + 1) / np.arange(1, classes + 1).sum()
    found = solve_consensus(expected_shares(true, prior)[None])
    np.testing.assert_allclose(found.matrix_BCC[0], true, atol=1e-4)


def test_tables_are_solved_as_if_alone():
    counts = np.concatenate([counts_of(triples(3_000, seed=seed)) for seed in range(3)])
    together = solve_consensus(counts).matrix_BCC
    alone = [solve_consensus(counts[[table]]).matrix_BCC[0] for table in range(3)]
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_planted_errors_are_recovered():
    pools = [triples(50_000, seed=seed) for seed in range(10)]
    assert largest_error(pools) <= 0.06


def test_planted_errors_among_imperfect_neighbors_are_recovered():
    pools = [triples(50_000, clusterability=0.9, seed=seed) for seed in range(10)]
    assert largest_error(pools) <= 0.07


@pytest.mark.slow
def test_the_norms_of_the_reference_are_as_good():
    counts = np.concatenate([counts_of(triples(50_000, seed=seed)) for seed in range(10)])
    found = solve_consensus(counts, loss="norms").matrix_BCC
    assert np.median(np.abs(found - TRUE).max(axis=(1, 2))) <= 0.06


def test_duplicates_must_be_left_out():
    pool, duplicate = copied(triples(200_000, seed=3), 0.9)
    unique = largest_error([pool[~duplicate]])
    assert unique <= 0.12  # 20,000 rows
    assert unique == largest_error([triples(200_000, seed=3)[~duplicate]])
    counted = counts_of(pool)
    matrix = solve_consensus(counted).matrix_BCC[0]
    assert (np.diag(matrix) > 0.85).all()  # the fault: a pull to the identity
    assert np.abs(matrix - TRUE).max() > 0.25


def test_an_estimate_has_intervals_and_is_trusted():
    found = estimate_consensus(counts_of(triples(50_000), replicates=30))
    assert found is not None
    assert (found.trusted, found.reason, found.detail) == (True, None, "")
    assert found.samples == 50_000
    inside = (found.low_CC <= TRUE) & (found.high_CC >= TRUE)
    assert inside.mean() > 0.7
    assert ((found.low_C <= found.transition.prior_C) & (found.high_C > found.low_C)).all()
    np.testing.assert_allclose(found.transition.matrix_CC.sum(axis=1), 1)


def far(rows, *, replicates=10, **options):
    return counts_of(triples(rows, **options), replicates=replicates)


def exactly(matrix):
    shares = expected_shares(matrix, np.full(len(matrix), 1 / len(matrix)))
    counts = np.zeros((2, 6, 6, 6))
    counts[:, : len(matrix), : len(matrix), : len(matrix)] = 1e5 * shares
    return counts


BLIND = np.full((6, 6), 1 / 6) + 0.02 * (6 * np.eye(6) - 1)
RARE = np.array([0.2, 0.2, 0.2, 0.2, 0.195, 0.005])
ALIKE = np.array([[0.5, 0.45, 0.05], [0.45, 0.5, 0.05], [0.05, 0.05, 0.9]])


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        (far(4_000), "too_few_samples"),
        (far(6_000, prior=RARE), "wide_intervals"),
        (counts_of(triples(50_000)), "no_intervals"),
        (far(50_000, clusterability=0.6), "poor_fit"),
        (exactly(ALIKE), "classes_not_told_apart"),
        (far(20_000, prior=np.array([0, 0, 1.0, 0, 0, 0]), matrix=np.eye(6)), "one_rating_class"),
    ],
)
def test_what_is_not_trusted(counts, reason):
    found = estimate_consensus(counts)
    assert found is not None
    assert found.reason == reason
    assert not found.trusted
    assert found.detail


def test_a_rater_that_sees_nothing_is_not_trusted():
    found = estimate_consensus(far(50_000, matrix=BLIND))
    assert found is not None
    assert not found.trusted


def test_a_rater_that_swaps_two_classes_is_not_trusted():
    swapped = TRUE[[0, 1, 2, 3, 4, 4]]
    found = estimate_consensus(far(50_000, matrix=swapped))
    assert found is not None
    assert not found.trusted


def test_absent_classes_are_left_out():
    prior = np.array([0, 0.3, 0, 0.4, 0.3, 0])
    matrix = np.where((prior > 0)[None, :], TRUE, 0)
    matrix /= matrix.sum(axis=1, keepdims=True)
    found = estimate_consensus(far(20_000, prior=prior, matrix=matrix))
    assert found is not None
    assert found.transition.classes.tolist() == [1, 3, 4]
    kept = matrix[np.ix_([1, 3, 4], [1, 3, 4])]
    np.testing.assert_allclose(found.transition.matrix_CC, kept, atol=0.06)


def test_nothing_counted():
    assert estimate_consensus(np.zeros((3, 6, 6, 6), dtype=int)) is None


def test_what_does_not_fit_is_refused():
    one = np.array([0])
    with pytest.raises(ShapeError):
        consensus_counts(one, one, np.array([0, 1]), one)
    with pytest.raises(ShapeError):
        consensus_counts(np.array([3]), one, one, one, classes=np.array([0, 1]))
    with pytest.raises(ShapeError):
        counted_classes(np.ones((6, 6, 6)))
    with pytest.raises(ShapeError):
        solve_consensus(np.zeros((1, 2, 2, 2)))
    with pytest.raises(ConfigError):
        ConsensusSettings(confidence=1.0)
