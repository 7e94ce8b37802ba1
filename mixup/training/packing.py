"""Rows packed into sequences of one window, in the order in which they come."""

from __future__ import annotations

import numpy as np


def best_fit(lengths_N: np.ndarray, order_N: np.ndarray, window: int) -> np.ndarray:
    """The sequence, from 0, that each row goes into, int64.

    A row goes into the fullest sequence that still has room for it, or opens a new one. Rows are
    taken in a given, shuffled order and not by length, so that what shares a sequence is a draw.

    Args:
        lengths_N: The tokens of each row, 1 to ``window``.
        order_N: The order in which the rows are taken.
        window: The tokens that a sequence has room for.
    """
    sequence_N = np.empty(len(lengths_N), dtype=np.int64)
    free: list[list[int]] = [[] for _ in range(window + 1)]  # the sequences by the room they have
    rooms, opened = 0, 0  # bit r of rooms: there is a sequence with room for r more
    lengths = np.asarray(lengths_N)[order_N].tolist()
    for row, length in zip(np.asarray(order_N).tolist(), lengths, strict=True):
        if fitting := rooms >> length:
            room = length + (fitting & -fitting).bit_length() - 1
            sequence = free[room].pop()
            if not free[room]:
                rooms ^= 1 << room
        else:
            room, sequence, opened = window, opened, opened + 1
        sequence_N[row] = sequence
        if left := room - length:
            free[left].append(sequence)
            rooms |= 1 << left
    return sequence_N
