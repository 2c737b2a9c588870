"""What a scoring pass computes: distinct prompts, in order of length, in shards and batches. Plain NumPy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from edjax.lm.batching import common_widths

PROGRAM_TOKENS = {"cpu": 1024}  # padded tokens that take as long as compiling one more program
PROGRAM_TOKENS_ELSEWHERE = 1 << 20


class Batch(NamedTuple):
    """The distinct prompts `start` to `stop` of a `Layout`, as rows of `width` tokens."""

    start: int
    stop: int
    width: int


class Layout(NamedTuple):
    """A pool's n rows as m distinct prompts, from short to long; a pure function of their tokens.

    `order` (n,) holds the pool's rows, copies of a prompt side by side; `starts` (m + 1,) where each prompt's copies
    begin in it. `shards` are ranges of distinct prompts, each cut into batches.
    """

    order: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    shards: tuple[tuple[Batch, ...], ...]

    @property
    def distinct(self) -> int:
        """How many prompts differ."""
        return len(self.starts) - 1

    def firsts(self, batch: Batch) -> np.ndarray:
        """The pool's row of each prompt of a batch: the first that holds it."""
        return self.order[self.starts[batch.start : batch.stop]]

    def rows(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        """The pool's rows that a shard holds, and which of the shard's prompts each is a copy of."""
        start, stop = self.shards[shard][0].start, self.shards[shard][-1].stop
        copies = np.diff(self.starts[start : stop + 1])
        return self.order[self.starts[start] : self.starts[stop]], np.repeat(np.arange(stop - start), copies)

    def batches(self) -> Iterator[Batch]:
        """All of them."""
        return (batch for shard in self.shards for batch in shard)


def lay_out(prompts: Sequence[Sequence[int]], batch_size: int, shard_rows: int, backend: str = "cpu") -> Layout:
    """Lay out token rows.

    Args:
      prompts: n token rows; rows with the same tokens are one prompt.
      batch_size: prompts a batch. shard_rows: distinct prompts a shard.
      backend: jax's name of where the programs will run, which decides how many widths are worth compiling.
    """
    seen: dict[bytes, int] = {}
    first = np.array([seen.setdefault(np.asarray(p, np.int32).tobytes(), i) for i, p in enumerate(prompts)], np.int64)
    lengths = np.array([len(p) for p in prompts], np.int64)
    order = np.lexsort((first, lengths))
    starts = np.flatnonzero(np.diff(first[order], prepend=-1, append=-1))
    lengths = lengths[order[starts[:-1]]]
    m = len(lengths)
    shards = [
        [(i, min(i + batch_size, at + shard_rows, m)) for i in range(at, min(at + shard_rows, m), batch_size)]
        for at in range(0, m, shard_rows)
    ]
    longest = [lengths[stop - 1] for shard in shards for _, stop in shard]
    cost = PROGRAM_TOKENS.get(backend, PROGRAM_TOKENS_ELSEWHERE)
    width = iter(common_widths(longest, cost / batch_size).tolist())
    return Layout(order, starts, lengths, tuple(tuple(Batch(a, b, next(width)) for a, b in s) for s in shards))
