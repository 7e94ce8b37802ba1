"""Bootstrap weights by id."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup.errors import ShapeError
from mixup.quality.resampling import hashes, poisson_weights

IDS = np.random.default_rng(0).integers(-(2**63), 2**63, 100_000)
KNOWN = ([2, 0, 0, 0, 0, 0, 1, 2, 3, 1, 1, 0], [2, 2, 0, 1, 1, 0, 0, 0, 4, 0, 1, 0])


def test_weights_are_poisson():
    for replicate in range(5):
        shares = np.bincount(poisson_weights(IDS, replicate), minlength=4)[:4] / len(IDS)
        np.testing.assert_allclose(shares, [0.3679, 0.3679, 0.1839, 0.0613], atol=0.006)


def test_replicates_and_neighboring_ids_are_independent():
    weights = np.array([poisson_weights(np.arange(100_000), b) for b in range(9)], dtype=float)
    off_diagonal = np.corrcoef(weights) - np.eye(9)
    assert np.abs(off_diagonal).max() < 0.015
    assert abs(np.corrcoef(weights[0, 1:], weights[0, :-1])[0, 1]) < 0.015


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1), st.integers(0, 99))
def test_a_weight_is_its_ids_own(ids, replicate):
    together = poisson_weights(np.array(ids), replicate)
    alone = [poisson_weights(np.array([one]), replicate)[0] for one in ids]
    assert together.tolist() == alone


def test_the_sign_of_an_id_is_its_highest_bit():
    unsigned = np.array([2**64 - 1], dtype=np.uint64)
    assert hashes(unsigned, 3).tolist() == hashes(np.array([-1]), 3).tolist()


def test_known_values_do_not_change():
    # Stored counts of one release are added to those of another.
    assert poisson_weights(np.arange(12), 0).tolist() == KNOWN[0]
    assert poisson_weights(np.arange(12), 7).tolist() == KNOWN[1]


def test_what_is_no_id_is_refused():
    with pytest.raises(ShapeError):
        poisson_weights(np.array([0.5]), 0)
