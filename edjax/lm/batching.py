"""Ragged token rows to a few static shapes, so that each shape compiles once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

LENGTHS = (16, 24, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)


def bucket(length: int, sizes: Sequence[int] = LENGTHS) -> int:
    """The smallest listed size that holds `length`; beyond the last, the next multiple of it."""
    for size in sizes:
        if length <= size:
            return size
    return -(-length // sizes[-1]) * sizes[-1]


def common_widths(lengths: Sequence[int], cost: float, multiple: int = 8) -> np.ndarray:
    """For each length a width that holds it, such that few widths waste little: (n,) int64.

    The widths are the multiples of `multiple` that minimise sum_i width_i + cost * (how many differ), exactly, by
    dynamic programming over the m distinct lengths so rounded: O(m^2).

    >>> common_widths([9, 17, 18, 30, 100], cost=20).tolist()
    [24, 24, 24, 32, 104]
    """
    rounded = -(-np.maximum(np.asarray(lengths, np.int64), 1) // multiple) * multiple
    sizes, place, counts = np.unique(rounded, return_inverse=True, return_counts=True)
    before = np.concatenate([[0], np.cumsum(counts)])
    best, start = np.zeros(len(sizes) + 1), np.zeros(len(sizes) + 1, np.int64)
    for j, size in enumerate(sizes, 1):
        whole = best[:j] + (before[j] - before[:j]) * size + cost
        start[j] = int(np.argmin(whole))
        best[j] = whole[start[j]]
    chosen, j = np.zeros(len(sizes), np.int64), len(sizes)
    while j:
        chosen[start[j] : j] = sizes[j - 1]
        j = int(start[j])
    return chosen[place.reshape(-1)]


def by_length(lengths: Sequence[int]) -> np.ndarray:
    """Row indices from short to long; equal lengths keep their order."""
    return np.argsort(np.asarray(lengths), kind="stable")


def chunks(order: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Consecutive pieces of `order`, `size` long but for the last."""
    return (order[i : i + size] for i in range(0, len(order), size))


def height(rows: int, most: int, multiple: int = 1) -> int:
    """How many rows a batch of `rows` is padded to: few sizes, below twice the rows, and `most` at the most.

    Args:
      most: rows of a full batch.
      multiple: the devices that rows are shared out among; it divides `most`.

    >>> [height(n, 32) for n in (1, 2, 3, 17, 32)]
    [1, 2, 4, 32, 32]
    """
    size = multiple
    while size < rows:
        size *= 2
    return min(size, most)


def pad(rows: Sequence[Sequence[int]], batch_size: int, length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Token rows as (batch_size, bucket) int32, right-padded with 0, and their lengths (batch_size,) int32.

    Rows beyond `len(rows)` have length 0.
    """
    longest = max((len(r) for r in rows), default=1)
    tokens = np.zeros((batch_size, length or bucket(max(longest, 1))), np.int32)
    lengths = np.zeros(batch_size, np.int32)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = row
        lengths[i] = len(row)
    return tokens, lengths


def batches(
    rows: Sequence[Sequence[int]], order: np.ndarray, batch_size: int, multiple: int = 1
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(row indices, padded tokens, lengths) of every batch, the rows taken in `order`; see `height` for `multiple`."""
    for batch in chunks(order, batch_size):
        yield batch, *pad([rows[i] for i in batch], height(len(batch), batch_size, multiple))
