"""Which transition a pool gets, and how far small pools are drawn to a simple one."""

import numpy as np
import pytest
from planted_ratings import PRIOR, triples, true_matrix

from mixup.quality.consensus import ConsensusSettings, consensus_counts, estimate_consensus
from mixup.quality.consensus_solver import expected_shares
from mixup.quality.shrinkage import structured_transition, transition_of

TRUE = true_matrix()


def counts_of(rows, *, replicates=20, **options):
    found = triples(rows, **options)
    return consensus_counts(
        found[:, 0], found[:, 1], found[:, 2], np.arange(rows), replicates=replicates
    )


def test_a_large_pool_gets_its_consensus():
    counts = counts_of(50_000)
    chosen = transition_of(counts)
    assert (chosen.source, chosen.detail) == ("consensus", "")
    assert chosen.transition is not None
    consensus = estimate_consensus(counts)
    assert consensus is not None
    np.testing.assert_array_equal(chosen.transition.matrix_CC, consensus.transition.matrix_CC)


@pytest.mark.parametrize("rows", [1_000, 4_000])
@pytest.mark.parametrize("decay", [0.5, 1.0])
def test_a_small_pool_is_shrunk_and_nearer_the_truth(rows, decay):
    true, errors = true_matrix(decay), []
    for seed in range(5):
        chosen = transition_of(counts_of(rows, seed=seed, matrix=true))
        assert chosen.source == "shrunk"
        assert chosen.detail
        assert chosen.transition is not None
        assert chosen.consensus is not None
        if len(chosen.transition.classes) == 6:
            pair = (chosen.consensus.transition, chosen.transition)
            errors.append([np.abs(found.matrix_CC - true).mean() for found in pair])
    raw, shrunk = np.median(errors, axis=0)
    assert shrunk < 0.75 * raw


def test_a_shrunk_row_lies_between_the_two_by_its_share():
    counts = counts_of(5_000)
    chosen = transition_of(counts)
    assert chosen.transition is not None
    assert chosen.consensus is not None
    own = chosen.consensus.transition.matrix_CC
    simple = structured_transition(counts[0], np.arange(6)).matrix_CC
    noise = chosen.consensus.variance_CC.sum(axis=1)
    share = np.clip(1 - noise / ((own - simple) ** 2).sum(axis=1), 0, 1)
    np.testing.assert_allclose(chosen.own_share_C, share)
    mixed = share[:, None] * own + (1 - share)[:, None] * simple
    np.testing.assert_allclose(chosen.transition.matrix_CC, mixed)
    assert chosen.transition.prior_C.sum() == pytest.approx(1)


def test_without_replicates_the_simple_one_is_taken():
    counts = counts_of(5_000, replicates=0)
    chosen = transition_of(counts)
    assert chosen.source == "shrunk"
    assert chosen.own_share_C.tolist() == [0] * 6
    assert chosen.transition is not None
    simple = structured_transition(counts[0], np.arange(6))
    np.testing.assert_allclose(chosen.transition.matrix_CC, simple.matrix_CC)


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_the_two_numbers_are_found(decay):
    classes, steps = 4, np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
    spread = decay ** np.maximum(steps - 1, 0) * (steps > 0)
    true = 0.7 * np.eye(classes) + 0.3 * spread / spread.sum(axis=1, keepdims=True)
    prior = np.array([0.1, 0.4, 0.3, 0.2])
    found = structured_transition(expected_shares(true, prior), np.arange(4))
    np.testing.assert_allclose(found.matrix_CC, true, atol=1e-9)
    np.testing.assert_allclose(found.prior_C, prior, atol=1e-3)


def test_pools_without_a_transition():
    empty = transition_of(np.zeros((3, 6, 6, 6), dtype=int))
    assert (empty.source, empty.transition, empty.consensus) == ("none", None, None)
    few = transition_of(counts_of(80))
    assert (few.source, few.transition) == ("none", None)
    assert few.detail == "80 samples; at least 100 are needed"


def test_one_class():
    counts = np.zeros((3, 6, 6, 6), dtype=int)
    counts[:, 4, 4, 4] = 9_000
    chosen = transition_of(counts)
    assert chosen.source == "one_class"
    assert chosen.transition is not None
    assert chosen.transition.classes.tolist() == [4]
    assert chosen.transition.matrix_CC.tolist() == [[1.0]]


def test_settings_decide():
    counts = counts_of(50_000)
    strict = transition_of(counts, settings=ConsensusSettings(max_width=0.01))
    assert strict.source == "shrunk"
    assert PRIOR.shape == strict.own_share_C.shape
