"""Bootstrap weights that belong to a row's id, whatever the cell and the order it is counted in."""

from __future__ import annotations

import math

import numpy as np

from mixup.errors import ShapeError

_LANES = 4  # replicates that share one 64-bit hash, 16 bits each
_LANE_VALUES = 1 << 16


def poisson_weights(ids_N: np.ndarray, replicate: int) -> np.ndarray:
    """How often each row is drawn in a bootstrap replicate: Poisson(1), uint8 of shape (N,).

    The weight is a pure function of the id and the replicate's number. Poisson weights are the
    bootstrap of rows whose total is not known where they are counted.

    Args:
        ids_N: A 64-bit integer a row, distinct and well known to every run (say a record's uid).
        replicate: From 0.

    Raises:
        ShapeError: The ids are not a one-dimensional array of integers.
    """
    lane = np.uint64(replicate % _LANES * 16)
    hashed = hashes(ids_N, replicate // _LANES)
    return _WEIGHT_OF[(hashed >> lane).astype(np.uint16)]


def hashes(ids_N: np.ndarray, stream: int) -> np.ndarray:
    """Independent uint64 hashes of the ids, one family a stream, of shape (N,).

    Raises:
        ShapeError: The ids are not a one-dimensional array of integers.

    Source: splitmix64 (Steele, Lea and Flood 2014), of the id and of the stream's number.
    """
    ids = np.asarray(ids_N)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise ShapeError(f"ids of shape {ids.shape}, {ids.dtype}; expected 64-bit integers")
    salt = _mixed(np.array([stream], dtype=np.uint64))
    return _mixed(_mixed(ids) ^ salt)


def _mixed(values: np.ndarray) -> np.ndarray:
    mixed = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _poisson_table() -> np.ndarray:
    """The weight of each 16-bit uniform: the inverse of the distribution function of Poisson(1)."""
    shares = np.array([math.exp(-1) / math.factorial(weight) for weight in range(12)])
    edges = np.round(np.cumsum(shares) * _LANE_VALUES)
    return np.searchsorted(edges, np.arange(_LANE_VALUES), side="right").astype(np.uint8)


_WEIGHT_OF = _poisson_table()
