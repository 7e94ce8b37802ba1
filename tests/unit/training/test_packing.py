import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mixup.training.packing import best_fit

WINDOW = 20
LENGTHS = st.lists(st.integers(1, WINDOW), min_size=1, max_size=200)


def naive(lengths, order, window):
    """The definition: the fullest sequence with room, the one opened or used last among equals."""
    room, touched, found = [], [], {}
    for clock, row in enumerate(order):
        fits = [s for s in range(len(room)) if room[s] >= lengths[row]]
        if fits:
            sequence = min(fits, key=lambda s: (room[s], -touched[s]))
        else:
            sequence = len(room)
            room.append(window)
            touched.append(0)
        room[sequence] -= lengths[row]
        touched[sequence] = clock
        found[row] = sequence
    return [found[row] for row in range(len(lengths))]


def test_a_row_goes_into_the_fullest_sequence_with_room():
    # 12 | 15 | 5 fits best beside 15 | 8 beside 12 | 1: both are full
    lengths = np.array([12, 15, 5, 8, 1])
    assert best_fit(lengths, np.arange(5), WINDOW).tolist() == [0, 1, 1, 0, 2]


@given(lengths=LENGTHS, seed=st.integers(0, 9))
def test_it_is_the_definition(lengths, seed):
    order = np.random.default_rng(seed).permutation(len(lengths))
    found = best_fit(np.array(lengths), order, WINDOW)
    assert found.tolist() == naive(lengths, order.tolist(), WINDOW)


@given(lengths=LENGTHS)
def test_no_sequence_is_longer_than_the_window_and_at_most_one_is_half_empty(lengths):
    found = best_fit(np.array(lengths), np.arange(len(lengths)), WINDOW)
    held = np.bincount(found, weights=lengths)
    assert held.max() <= WINDOW
    assert held.min() > 0
    assert (held <= WINDOW / 2).sum() <= 1
