"""Rows of tokens → the tensors of one forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mixup.training.tokens import TokenRow

UNLEARNED = -100
"""The label of a token that the loss leaves out."""


def collate(
    sequences: Sequence[Sequence[TokenRow]], pad_id: int, *, flat: bool = False
) -> dict[str, torch.Tensor]:
    """The tensors of a micro-batch: B sequences of T tokens, padded at the right.

    Positions restart at each row. Where a sequence has one row, ``attention_mask`` says what is
    padding. Where one has several there is none: transformers then reads from the positions which
    tokens belong together, and padding is a sequence of its own, which attends to itself alone.
    It does so only without a cache: a model must be called with ``use_cache=False``, or the rows of
    a sequence see one another.

    A micro-batch without sequences becomes one of two tokens of padding. All its labels are -100,
    so that its loss, summed and divided by the tokens of the global batch, is 0 and has gradients
    of 0; a mean over its own tokens would be 0 / 0.

    Args:
        sequences: The rows of each sequence.
        pad_id: The id of the padding.
        flat: Whether all rows form one sequence without padding (B = 1), which is the only form in
            which FlashAttention tells packed rows apart.

    Returns:
        ``input_ids``, ``labels`` (-100 outside of the loss) and ``position_ids``, int64 (B, T), and
        ``attention_mask``, int64 (B, T), unless a sequence has several rows. The label of a row's
        first token is -100 always: it would be predicted from another row.
    """
    joined = [[row for sequence in sequences for row in sequence]] if flat else sequences
    is_packed = any(len(sequence) > 1 for sequence in joined)
    longest = max((sum(len(row.input_ids) for row in rows) for rows in joined), default=0)
    size = (max(1, len(joined)), max(2, longest))
    ids, labels = np.full(size, pad_id, np.int64), np.full(size, UNLEARNED, np.int64)
    positions, attended = np.empty(size, np.int64), np.zeros(size, np.int64)
    for place in range(size[0]):
        rows = joined[place] if joined else ()
        end = _lay(rows, ids[place], labels[place], positions[place])
        positions[place, end:] = np.arange(size[1] - end) + (0 if is_packed else end)
        attended[place, :end] = 1
    if not any(len(rows) for rows in joined):
        attended[:] = 1  # a row that may attend to nothing has no softmax
    tensors = {"input_ids": ids, "labels": labels, "position_ids": positions}
    if not is_packed:
        tensors["attention_mask"] = attended
    return {name: torch.from_numpy(found) for name, found in tensors.items()}


def _lay(
    rows: Sequence[TokenRow], ids: np.ndarray, labels: np.ndarray, positions: np.ndarray
) -> int:
    """Lay rows one after another into the arrays of a sequence; where they end."""
    start = 0
    for row in rows:
        end = start + len(row.input_ids)
        ids[start:end] = row.input_ids
        labels[start:end] = np.where(row.loss_mask, row.input_ids, UNLEARNED)
        labels[start] = UNLEARNED
        positions[start:end] = np.arange(end - start)
        start = end
    return start
